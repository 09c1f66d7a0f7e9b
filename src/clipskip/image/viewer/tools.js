// The picture that is shown, for other tools: the same layer in their numbers, and a workflow, code or record of it in their own forms.

import { at, copy, h, sentence } from "./dom.js";

const LAYS_OUT_AS_WE = new Set(["a1111", "forge", "forge-neo", "clipskip"]);

/**
 * What other tools take. `hear.forms(cell, place)` and `hear.dialects(sweep, column)` give, perhaps later, {forms} and {rows}, or {error}.
 */
export function openTools(hear) {
  let sweep = null, cell = null, place = null, translated = null, written = null, urls = [];

  function show(newSweep, newCell, newPlace) {
    [sweep, cell, place] = [newSweep, newCell, newPlace];
    at("dialects").hidden = !cell.settings || typeof column().clip_skip !== "number";
    at("forms").hidden = !cell.image;
    if (at("dialects").open) translate();
    if (at("forms").open) write();
  }

  const column = () => sweep.columns[place[1]];

  async function translate() {
    if (at("dialects").hidden || translated === column()) return;
    const mine = translated = column(), { rows = [], error } = await hear.dialects(sweep, mine);
    if (mine !== translated) return;
    if (error) translated = null;
    at("tools").replaceChildren(...rows.map(row), ...(error ? [h("li", { class: "error", text: error })] : []));
  }

  async function write() {
    if (at("forms").hidden || written === cell.image) return;
    const mine = written = cell.image, settings = { tool: "AUTOMATIC1111", file: "settings.txt", text: cell.settings, notes: [] };
    const { forms = [], error } = await hear.forms(cell, place);
    if (mine !== written) return;
    if (error) written = null;
    urls.forEach((url) => URL.revokeObjectURL(url));
    urls = [];
    at("form-list").replaceChildren(...[settings, ...forms].map(form), ...(error ? [h("li", { class: "error", text: error })] : []));
  }

  function form({ tool, file, text, notes, error }) {
    if (error) return h("li", { class: "cannot" }, h("span", { class: "tool", text: tool }), h("span"), h("span"), h("span", { class: "note", text: sentence(error) }));
    const button = h("button", { type: "button", class: "quiet", text: "Copy", "aria-label": `Copy the ${file} for ${tool}`, on: { click: () => copy(text, button) } });
    urls.push(URL.createObjectURL(new Blob([text], { type: "text/plain" })));
    return h("li", {}, h("span", { class: "tool", text: tool }), h("a", { href: urls.at(-1), download: file, text: file }), button, ...notes.map((note) => h("span", { class: "note", text: sentence(note) })));
  }

  function row({ tool, label, number, note }) {
    const cannot = String(number) === "-";
    const button = h("button", { type: "button", class: "quiet", text: "Copy", "aria-label": `Copy for ${label}`, on: { click: () => copy(forTool({ tool, label, number, note }), button) } });
    return h("li", { class: cannot ? "cannot" : null },
      h("span", { class: "tool", text: label }),
      h("code", { class: String(number).length > 8 ? "long" : null, text: cannot ? "–" : String(number) }),
      cannot ? h("span") : button,
      h("span", { class: "note", text: note }));
  }

  /** A1111 and its like read the settings as they are; for others the number and its reason come first. */
  const forTool = ({ tool, label, number, note }) =>
    (LAYS_OUT_AS_WE.has(tool) ? cell.settings : `${label}: Clip Skip ${number}${note ? ` (${note})` : ""}\n\n${cell.settings}`);

  at("dialects").addEventListener("toggle", () => { if (at("dialects").open) translate(); });
  at("forms").addEventListener("toggle", () => { if (at("forms").open) write(); });
  return { show };
}
