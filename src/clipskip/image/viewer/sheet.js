// All pictures of a sweep: one axis across, one down, each cell alive while it is drawn. Of thousands, only what is seen is there.

import { at, h } from "./dom.js";

/** More rows or columns than this are made as they come into view. */
const MOST = 40, BEYOND = 4;
/** Pictures that one cell shows. */
export const MOST_SHOTS = 9;

/** The contact sheet. `hear.show(place)` when a cell is chosen; `hear.describe(place, places)` says what is in it. */
export function openSheet(hear) {
  const table = at("grid"), box = table.closest(".scroll");
  let heads = [], lines = [], corner = "", buttons = new Map(), seen = "", focused = null, marks = [null, null], waiting = 0;

  /** Lays out `heads` across, {text, badges}, and `lines` down, {name, places, all}: of each cell the place it shows, or null, and all in it. */
  function build(newHeads, newLines, newCorner) {
    [heads, lines, corner] = [newHeads, newLines, newCorner];
    table.classList.toggle("many", isMany());
    table.setAttribute("aria-rowcount", lines.length + 1);
    table.setAttribute("aria-colcount", heads.length + 1);
    at("sheet").style.setProperty("--columns", Math.max(1, heads.length));
    at("sheet").style.setProperty("--rows", lines.length);
    seen = "";
    draw();
    update();
  }

  const isMany = () => heads.length > MOST || lines.length > MOST;

  /** Makes what is in view: everything, or the cells around where the sheet is scrolled to. */
  function draw() {
    const size = isMany() ? pitch() : null;
    const [left, right] = size ? range(box.scrollLeft, box.clientWidth, size.across, heads.length) : [0, heads.length];
    const [top, bottom] = size ? range(box.scrollTop, box.clientHeight, size.down, lines.length) : [0, lines.length];
    const now = [left, right, top, bottom].join();
    if (now === seen) return;
    seen = now;
    const before = buttons, had = table.contains(document.activeElement);
    buttons = new Map();
    const gap = (cells, step, side) => { const made = h("td", { class: "gap", "aria-hidden": "true" }); made.style[side] = `${cells * step}px`; return made; };
    const sides = (row, make) => (size && heads.length > MOST ? [make(left), ...row, make(heads.length - right)] : row);
    const wide = (cells) => gap(cells, size?.across, "width");
    const band = (rows) => h("tr", { class: "gap" }, gap(rows, size?.down, "height"));
    const rows = lines.slice(top, bottom).map((line, j) => h("tr", { "aria-rowindex": top + j + 2 },
      h("th", { scope: "row", text: line.name, title: size ? line.name : null }), ...sides(line.places.slice(left, right).map((place, i) => h("td", {}, place && cellButton(place, line.all[left + i], before))), wide)));
    table.replaceChildren(table.querySelector("caption"), h("thead", {}, h("tr", { "aria-rowindex": 1 }, h("td", { text: corner }), ...sides(heads.slice(left, right).map(head), wide))),
      h("tbody", {}, ...(size ? [band(top), ...rows, band(lines.length - bottom)] : rows)));
    mark(...marks);
    if (had && !table.contains(document.activeElement)) buttons.get(String(marks[0]))?.button.focus({ preventScroll: true });
  }

  function head({ text, badges }) {
    return h("th", { scope: "col" }, h("span", { class: "unseen", text: /^[\d.[]/.test(text) ? `${corner} ` : "" }), text, ...badges.map((badge) => h("span", { class: `badge-of ${badge.kind.split(" ")[0].toLowerCase()}`, title: badge.text, text: badge.about ? `${badge.kind}: ${badge.about}` : badge.kind })));
  }

  /** Pixels from one cell to the next, each way. */
  function pitch() {
    const style = getComputedStyle(at("sheet")), probe = h("span", { class: "probe" });
    at("sheet").append(probe);
    const across = probe.getBoundingClientRect().width;
    probe.remove();
    const down = Math.round(across / (Number(style.getPropertyValue("--shape")) || 1)) + 4;
    at("sheet").style.setProperty("--pitch", `${down}px`);
    return { across, down };
  }

  function cellButton(place, all, before) {
    const key = String(place);
    let button = before.get(key)?.button;
    if (!button) {
      button = h("button", { type: "button", class: "cell", tabIndex: -1, on: { click: () => hear.show(place) } },
        h("span", { class: "shots" }), h("span", { class: "empty", "aria-hidden": "true" }), h("span", { class: "done", "aria-hidden": "true" }), h("span", { class: "star", "aria-hidden": "true" }), h("span", { class: "score", "aria-hidden": "true" }));
      fill(button, place, all);
    }
    buttons.set(key, { button, place, all });
    return button;
  }

  /** Brings one cell up to date: its pictures, else its previews, how far it is, and its score. */
  function fill(button, place, all) {
    const { shots, cell, name, starred, winner, score } = hear.describe(place, all);
    const [pictures, empty, done, star, number] = button.children;
    if (pictures.children.length !== Math.min(shots.length, MOST_SHOTS)) {
      pictures.replaceChildren(...shots.slice(0, MOST_SHOTS).map(() => h("img", { alt: "", hidden: true, decoding: "async", loading: "lazy", draggable: "false" })));
      pictures.style.setProperty("--shots", Math.ceil(Math.sqrt(Math.min(shots.length, MOST_SHOTS))));
    }
    shots.slice(0, MOST_SHOTS).forEach((source, i) => {
      const image = pictures.children[i];
      if (source !== null && image.getAttribute("src") !== source) image.src = source;
      image.hidden = source === null;
    });
    empty.textContent = cell.state === "failed" ? "!" : "";
    star.textContent = winner ? "♛" : starred ? "★" : "";
    for (const state of ["drawing", "failed"]) button.classList.toggle(state, cell.state === state);
    button.classList.toggle("finished", cell.state === "done");
    done.style.transform = `scaleX(${cell.state === "drawing" && cell.steps ? cell.step / cell.steps : 0})`;
    number.textContent = score?.text ?? "";
    button.classList.toggle("scored", Boolean(score));
    button.style.setProperty("--level", score?.level ?? 0);
    const said = { waiting: "not drawn yet", drawing: "being drawn", done: "", failed: "failed" }[cell.state] ?? cell.state;
    button.setAttribute("aria-label", [`Show ${name}`, said, winner ? "winner" : "", starred ? "starred" : "", score?.said].filter(Boolean).join(", "));
  }

  /** A place is another by now, or with none everything may be. */
  function update(place = null) {
    for (const { button, place: shown, all } of buttons.values()) {
      if (!place || all.some((one) => String(one) === String(place))) fill(button, shown, all);
    }
  }

  /** Marks the cells that are shown and held; the shown one is the sheet's only tab stop. */
  function mark(shown, held) {
    marks = [shown, held];
    for (const [place, { button }] of buttons) {
      const isShown = place === String(shown);
      button.classList.toggle("shown", isShown);
      button.classList.toggle("held", held !== null && place === String(held));
      button.setAttribute("aria-pressed", isShown);
      button.tabIndex = isShown ? 0 : -1;
    }
    const button = buttons.get(String(shown))?.button ?? null;
    if (button && button !== focused && table.contains(document.activeElement)) button.focus({ preventScroll: true });
    focused = button;
  }

  /** Scrolls the sheet alone to column `i` and row `j`: the page stays where it is. */
  function reach(i, j) {
    if (isMany()) {
      const { across, down } = pitch(), top = table.tHead?.offsetHeight ?? 0;
      box.scrollTo(near(box.scrollLeft, box.clientWidth - 110, i * across, across), near(box.scrollTop, box.clientHeight - top, j * down, down));
      draw();
    } else if (focused) keepInView(focused, box);
  }

  box.addEventListener("scroll", () => { if (isMany() && !waiting) waiting = requestAnimationFrame(() => { waiting = 0; draw(); }); }, { passive: true });
  new ResizeObserver(() => { if (isMany()) draw(); }).observe(box);
  return { build, update, mark, reach };
}

const range = (from, room, step, count) => [Math.max(0, Math.min(count, Math.floor(from / step)) - BEYOND), Math.min(count, Math.ceil((from + room) / step) + BEYOND)];

/** Where to scroll to so that what is `size` long at `start` is seen, from where it is scrolled now. */
const near = (now, room, start, size) => Math.max(0, start < now ? start : start + size > now + room ? start + size - room : now);

function keepInView(button, box) {
  const cell = button.getBoundingClientRect(), view = box.getBoundingClientRect();
  if (cell.left < view.left + 60) box.scrollLeft -= view.left + 60 - cell.left;
  else if (cell.right > view.right) box.scrollLeft += cell.right - view.right;
  if (cell.top < view.top + 24) box.scrollTop -= view.top + 24 - cell.top;
  else if (cell.bottom > view.bottom) box.scrollTop += cell.bottom - view.bottom;
}
