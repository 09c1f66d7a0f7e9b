// All pictures of a sweep: one axis across, one down, each cell alive while it is drawn.

import { at, h } from "./dom.js";

/** The contact sheet. `show(place)` is called when a cell is chosen. */
export function openSheet(show) {
  const table = at("grid");
  let buttons = new Map(), focused = null;

  /** Lays out `heads` across and `lines` down: {name, places}, where a place is [row, column] of the sweep, or null. */
  function build(heads, lines) {
    const caption = table.querySelector("caption");
    const words = /^(.*\D)\S+$/.exec(heads[0] ?? "")?.[1], same = words && heads.every((head) => head.startsWith(words)) ? words : "";
    const head = h("tr", {}, h("td", { text: same.trim() }), ...heads.map((text) => h("th", { scope: "col" }, h("span", { class: "unseen", text: same }), text.slice(same.length))));
    buttons = new Map();
    const rows = lines.map(({ name, places }) => h("tr", {}, h("th", { scope: "row", text: name }), ...places.map((place) => h("td", {}, place && cellButton(place)))));
    table.replaceChildren(caption, h("thead", {}, head), h("tbody", {}, ...rows));
    at("sheet").style.setProperty("--columns", heads.length);
    at("sheet").style.setProperty("--rows", lines.length);
  }

  function cellButton(place) {
    const button = h("button", { type: "button", class: "cell", tabIndex: -1, on: { click: () => show(place) } },
      h("img", { alt: "", hidden: true, decoding: "async", loading: "lazy", draggable: "false" }), h("span", { class: "empty", "aria-hidden": "true" }), h("span", { class: "done", "aria-hidden": "true" }), h("span", { class: "star", "aria-hidden": "true" }));
    buttons.set(String(place), button);
    return button;
  }

  /** Brings one cell up to date: its picture, else its preview, and how far it is. */
  function update(place, { cell, preview, name, starred }) {
    const button = buttons.get(String(place));
    if (!button) return;
    const [image, empty, done, star] = button.children;
    const source = cell.thumbnail ?? cell.image ?? preview ?? null;
    if (source !== null && image.getAttribute("src") !== source) image.src = source;
    image.hidden = source === null;
    empty.textContent = source !== null ? "" : cell.state === "failed" ? "!" : "";
    star.textContent = starred ? "★" : "";
    button.classList.toggle("drawing", cell.state === "drawing");
    button.classList.toggle("finished", cell.state === "done");
    button.classList.toggle("failed", cell.state === "failed");
    done.style.transform = `scaleX(${cell.state === "drawing" && cell.steps ? cell.step / cell.steps : 0})`;
    const said = { waiting: "not drawn yet", drawing: "being drawn", done: "", failed: "failed" }[cell.state] ?? cell.state;
    button.setAttribute("aria-label", ["Show " + name, said, starred ? "starred" : ""].filter(Boolean).join(", "));
  }

  /** Marks the cells that are shown and held; the shown one is the sheet's only tab stop. */
  function mark(shown, held) {
    for (const [place, button] of buttons) {
      const isShown = place === String(shown);
      button.classList.toggle("shown", isShown);
      button.classList.toggle("held", held !== null && place === String(held));
      button.setAttribute("aria-pressed", isShown);
      button.tabIndex = isShown ? 0 : -1;
    }
    const button = buttons.get(String(shown));
    if (button && button !== focused && table.contains(document.activeElement)) button.focus();
    focused = button;
    if (button) keepInView(button);
  }

  return { build, update, mark };
}

/** Scrolls the sheet alone: the page stays where it is. */
function keepInView(button) {
  const box = button.closest(".scroll");
  const cell = button.getBoundingClientRect(), view = box.getBoundingClientRect();
  if (cell.left < view.left + 60) box.scrollLeft -= view.left + 60 - cell.left;
  else if (cell.right > view.right) box.scrollLeft += cell.right - view.right;
  if (cell.top < view.top + 24) box.scrollTop -= view.top + 24 - cell.top;
  else if (cell.bottom > view.bottom) box.scrollTop += cell.bottom - view.bottom;
}
