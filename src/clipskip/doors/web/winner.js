// The picture that is shown, for other tools: the same layer in their numbers, and the settings for the form.

import { ApiError, api } from "./api.js";
import { at, copy, h, sentence } from "./dom.js";

const LABELS = {
  a1111: "AUTOMATIC1111", forge: "Forge", comfyui: "ComfyUI", sdnext: "SD.Next", diffusers: "diffusers", invokeai: "InvokeAI",
  kohya: "kohya sd-scripts", easydiffusion: "Easy Diffusion", onetrainer: "OneTrainer", fooocus: "Fooocus",
};
const LAYS_OUT_AS_WE = new Set(["a1111", "forge"]);

/** What can be done with the picture shown. `hear.reuse(settings)` puts its settings into the form. */
export function openWinner(hear) {
  let settings = null, asked = "", family = "sd1", skip = null, image = null, written = null;

  function show(sweep, cell, column) {
    settings = cell?.settings ?? null;
    family = sweep.model?.family ?? "sd1";
    skip = typeof column?.clip_skip === "number" ? column.clip_skip : null;
    at("reuse").disabled = settings === null;
    at("dialects").hidden = settings === null || skip === null;
    image = cell?.image ?? null;
    at("forms").hidden = image === null;
    if (at("dialects").open) translate();
    if (at("forms").open) write();
    links(sweep, image);
  }

  async function translate() {
    const key = `${family} ${skip}`;
    if (skip === null || asked === key) { at("tools").querySelectorAll("[data-settings]").forEach((button) => { button.dataset.settings = settings; }); return; }
    asked = key;
    try {
      const answer = await api.dialects({ clip_skip: skip, family });
      if (asked === key) at("tools").replaceChildren(...answer.rows.map(row));
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      asked = "";
      at("tools").replaceChildren(h("li", { class: "error", text: error.message }));
    }
  }

  /** The picture in other tools' own forms. */
  async function write() {
    const of = image;
    if (of === null || of === written) return;
    written = of;
    try {
      const { forms } = await api.forms(of);
      if (written === of) at("form-list").replaceChildren(...forms.map(form));
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      written = null;
      at("form-list").replaceChildren(h("li", { class: "error", text: error.message }));
    }
  }

  function form({ tool, file, text, notes, error }) {
    if (error) return h("li", { class: "cannot" }, h("span", { class: "tool", text: tool }), h("span"), h("span"), h("span", { class: "note", text: sentence(error) }));
    const button = h("button", { type: "button", class: "quiet", text: "Copy", "aria-label": `Copy the ${file} for ${tool}`, on: { click: () => copy(text, button) } });
    const url = URL.createObjectURL(new Blob([text], { type: "text/plain" }));
    return h("li", {}, h("span", { class: "tool", text: tool }), h("a", { href: url, download: file, text: file }), button, ...notes.map((note) => h("span", { class: "note", text: sentence(note) })));
  }

  function row({ tool, number, note }) {
    const label = LABELS[tool] ?? tool, cannot = String(number) === "-";
    const button = h("button", { type: "button", class: "quiet", text: "Copy", "aria-label": `Copy for ${label}`, on: { click: () => copy(forTool({ tool, label, number, note }), button) } });
    return h("li", { class: cannot ? "cannot" : null },
      h("span", { class: "tool", text: label }),
      h("code", { class: String(number).length > 8 ? "long" : null, text: cannot ? "–" : String(number) }),
      cannot ? h("span") : button,
      h("span", { class: "note", text: note }));
  }

  /** A1111 and its like read the settings as they are; for others the number and its reason come first. */
  const forTool = ({ tool, label, number, note }) =>
    (LAYS_OUT_AS_WE.has(tool) ? settings : `${label}: Clip Skip ${number}${note ? ` (${note})` : ""}\n\n${settings}`);

  function links(sweep, image) {
    const row = /cells\/(\d+)\//.exec(image ?? "")?.[1];
    const table = (kind) => `/v1/sweeps/${encodeURIComponent(sweep.id)}/table.${kind}`;
    const made = [["Grid", sweep.grid, true], ["Page", sweep.page, false], ["Animation", row && `/v1/sweeps/${encodeURIComponent(sweep.id)}/rows/${row}/scrub.webp`, true], ["Manifest", sweep.manifest, true], ["Table (CSV)", table("csv"), true], ["Table (Parquet)", table("parquet"), true]].filter(([, url]) => url);
    at("links").replaceChildren(...made.map(([text, url, save]) => h("a", { href: url, text, download: save, target: save ? null : "_blank", rel: save ? null : "noopener" })));
  }

  at("reuse").addEventListener("click", () => hear.reuse(settings));
  at("dialects").addEventListener("toggle", () => { if (at("dialects").open) translate(); });
  at("forms").addEventListener("toggle", () => { if (at("forms").open) write(); });
  return { show };
}
