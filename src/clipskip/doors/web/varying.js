// What a sweep varies besides Clip Skip: a line for each axis, with its values as they are typed. The server reads them.

import { at, h, plural } from "./dom.js";

/** The lines. `hear.changed()` when one changes. */
export function openVarying(hear) {
  let kinds = [], lines = [];
  const list = at("axes");

  const kindOf = (name) => kinds.find((kind) => kind.name === name) ?? { name, title: name, example: "" };
  const free = (own) => kinds.filter((kind) => kind.name === own || !lines.some((line) => line.name === kind.name));

  function show() {
    list.replaceChildren(...lines.map(entry));
    at("add-axis").hidden = kinds.length > 0 && lines.length >= kinds.length;
  }

  function entry(line) {
    const { title, example } = kindOf(line.name);
    const kind = h("select", { "aria-label": "What is varied", on: { change: (event) => { line.name = event.target.value; show(); hear.changed(); } } },
      ...free(line.name).map((one) => h("option", { value: one.name, text: one.title, selected: one.name === line.name })));
    const values = h("input", { type: "text", value: line.values, placeholder: example, autocomplete: "off", spellcheck: "false", "aria-label": `Values of ${title}`, on: { input: () => { line.values = values.value; hear.changed(); } } });
    const remove = h("button", { type: "button", class: "quiet", text: "×", "aria-label": `Do not vary ${title}`, on: { click: () => { lines = lines.filter((one) => one !== line); show(); hear.changed(); at("add-axis").focus(); } } });
    return h("li", {}, h("div", { class: "row" }, kind, values, remove), h("p", { class: "about", "data-count": line.name }));
  }

  at("add-axis").addEventListener("click", () => {
    lines.push({ name: free(null)[0].name, values: "" });
    show();
    list.lastElementChild.querySelector("input").focus();
    hear.changed();
  });

  return {
    /** As the API takes them; those without values are not there yet. */
    texts: () => lines.filter((line) => line.values.trim()).map(({ name, values }) => `${name}=${values}`),
    lines: () => lines.map((line) => ({ ...line })),
    set(newLines) { lines = newLines.map((line) => ({ ...line })); show(); },
    setKinds(all) { kinds = all; show(); },
    /** How many values the server has read. */
    told(axes) {
      for (const line of list.querySelectorAll("[data-count]")) {
        const found = axes.find((axis) => axis.name === line.dataset.count);
        line.textContent = found ? `${plural(found.values.length, "value")}: ${found.values.slice(0, 8).join(", ")}${found.values.length > 8 ? ", …" : ""}` : "";
      }
    },
  };
}
