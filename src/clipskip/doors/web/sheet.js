// All pictures of a sweep: Clip Skip across, LoRAs down, each cell alive while it is drawn.

import { at, h } from "./dom.js";

/** The contact sheet. `show(row, column)` is called when a cell is chosen. */
export function openSheet(show) {
  const table = at("grid");
  let buttons = [], focused = null;

  function build(sweep) {
    const caption = table.querySelector("caption");
    const head = h("tr", {}, h("td"), ...sweep.columns.map((column) => h("th", { scope: "col" },
      h("span", { class: "wide", text: "Clip Skip " }), String(column.label).replace("Clip Skip ", ""))));
    buttons = sweep.cells.map((cells, r) => cells.map((_, c) => cellButton(r, c)));
    const lines = sweep.rows.map((row, r) => h("tr", {}, h("th", { scope: "row", text: row.name }), ...buttons[r].map((button) => h("td", {}, button))));
    table.replaceChildren(caption, h("thead", {}, head), h("tbody", {}, ...lines));
    at("sheet").style.setProperty("--columns", sweep.columns.length);
    at("panes").style.setProperty("--rows", sweep.rows.length);
    at("sheet").classList.toggle("many", sweep.columns.length > 6);
  }

  function cellButton(r, c) {
    return h("button", { type: "button", class: "cell", tabIndex: -1, on: { click: () => show(r, c) } },
      h("img", { alt: "", hidden: true, decoding: "async", draggable: "false" }), h("span", { class: "empty", "aria-hidden": "true" }), h("span", { class: "done", "aria-hidden": "true" }));
  }

  /** Brings one cell up to date: its picture, else its preview, and how far it is. */
  function update(r, c, { cell, preview, name }) {
    const button = buttons[r][c], [image, empty, done] = button.children;
    const source = cell.thumbnail ?? cell.image ?? preview ?? null;
    if (source !== null && image.getAttribute("src") !== source) image.src = source;
    image.hidden = source === null;
    empty.textContent = source !== null ? "" : cell.state === "failed" ? "!" : "";
    button.classList.toggle("drawing", cell.state === "drawing");
    button.classList.toggle("finished", cell.state === "done");
    button.classList.toggle("failed", cell.state === "failed");
    done.style.transform = `scaleX(${cell.state === "drawing" && cell.steps ? cell.step / cell.steps : 0})`;
    const said = { waiting: "not drawn yet", drawing: "being drawn", done: "", failed: "failed" }[cell.state] ?? cell.state;
    button.setAttribute("aria-label", `Show ${name}${said ? `, ${said}` : ""}`);
  }

  /** Marks the cells that are shown and held; the shown one is the sheet's only tab stop. */
  function mark(shown, held) {
    buttons.forEach((cells, r) => cells.forEach((button, c) => {
      const isShown = r === shown[0] && c === shown[1];
      button.classList.toggle("shown", isShown);
      button.classList.toggle("held", held !== null && r === held[0] && c === held[1]);
      button.setAttribute("aria-pressed", isShown);
      button.tabIndex = isShown ? 0 : -1;
    }));
    const button = buttons[shown[0]]?.[shown[1]];
    if (button && button !== focused && table.contains(document.activeElement)) button.focus();
    focused = button;
    if (button) keepInView(button);
  }

  return { build, update, mark };
}

/** Scrolls the sheet sideways alone: the page stays where it is. */
function keepInView(button) {
  const box = button.closest(".scroll");
  const cell = button.getBoundingClientRect(), view = box.getBoundingClientRect();
  if (cell.left < view.left + 60) box.scrollLeft -= view.left + 60 - cell.left;
  else if (cell.right > view.right) box.scrollLeft += cell.right - view.right;
}
