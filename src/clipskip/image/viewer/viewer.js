// The pictures of a sweep, wherever they are shown: on the page of a server, and in the one file that a sweep leaves.

import { at, h, say } from "./dom.js";
import { openExport } from "./export.js";
import { drawMini } from "./layers.js";
import { openSheet } from "./sheet.js";
import { openStage } from "./stage.js";

const MODES = [["side", "Side by side"], ["one", "Flip"], ["wipe", "Wipe"], ["difference", "Difference"]];
const PLAY_MS = 700;

/** The viewer. `hear.shown(cell, column)` when another picture is shown; `hear.depth(sweep)` gives the layers of its model. */
export function openViewer(hear) {
  let sweep = null, shown = [0, 0], held = null, mode = "side", chosen = false, swapped = false, starredOnly = false, flipped = false;
  let hidden = { rows: new Set(), columns: new Set() }, stars = new Set(), previews = new Map(), loaded = new Map(), shape = "", timer = 0;
  const sheet = openSheet((place) => choose(place)), stage = openStage();
  const take = openExport({ view: () => ({ ...view(), sweep, nameOf, shown: flipped && held ? held : shown }) });

  const cellAt = ([r, c]) => sweep.cells[r][c];
  const nameOf = ([r, c]) => (sweep.rows.length > 1 ? `${sweep.columns[c].label}, ${sweep.rows[r].name}` : sweep.columns[c].label);
  const hasPicture = (place) => Boolean(cellAt(place).image ?? previews.get(String(place)));

  /** What is to be seen: places across and down, after hiding, starring and swapping. */
  function view() {
    const starredIn = (test) => !starredOnly || [...stars].some((star) => test(star.split(",").map(Number)));
    const columns = sweep.columns.map((_, c) => c).filter((c) => !hidden.columns.has(c) && starredIn(([, other]) => other === c));
    const rows = sweep.rows.map((_, r) => r).filter((r) => !hidden.rows.has(r) && starredIn(([other]) => other === r));
    const column = { name: (c) => sweep.columns[c].label, all: columns }, row = { name: (r) => sweep.rows[r].name, all: rows };
    const [across, down] = swapped ? [row, column] : [column, row];
    const place = (i, j) => (swapped ? [across.all[i], down.all[j]] : [down.all[j], across.all[i]]);
    const kept = (spot) => (!starredOnly || stars.has(String(spot)) ? spot : null);
    const lines = down.all.map((one, j) => ({ name: down.name(one), places: across.all.map((_, i) => kept(place(i, j))) }));
    return { heads: across.all.map(across.name), lines, place, width: across.all.length, height: down.all.length };
  }

  /** Another sweep: everything begins anew, at the Clip Skip that its model was trained at if it has ended. */
  function open(whole, { ended, kept = [] }) {
    sweep = whole;
    stop();
    const start = sweep.columns.findIndex((column) => column.clip_skip === sweep.model?.trained_clip_skip);
    shown = [sweep.rows.length - 1, ended ? Math.max(start, 0) : 0];
    held = null;
    mode = "side";
    chosen = ended;
    swapped = starredOnly = flipped = false;
    hidden = { rows: new Set(), columns: new Set() };
    stars = new Set(kept);
    previews = new Map();
    loaded = new Map();
    const size = /Size: (\d+)x(\d+)/.exec(sweep.settings ?? "");
    shape = size ? `${size[1]}x${size[2]}` : "";
    reshape(...(size ? [Number(size[1]), Number(size[2])] : [1, 1]));
    stage.fit();
    at("compare").replaceChildren(h("legend", { class: "unseen", text: "How to compare" }), ...MODES.map(([name, text]) => option("mode", text, { checked: mode === name, pick: () => { mode = name; flipped = false; show(); } })));
    at("rows").replaceChildren(h("legend", { text: "LoRA" }), ...sweep.rows.map((row, r) => option("row", row.name, { checked: r === shown[0], pick: () => choose([r, shown[1]]) })));
    at("rows").hidden = sweep.rows.length < 2;
    buildChoices();
    lay();
  }

  /** The same sweep as it is by now. */
  function update(whole) {
    sweep = whole;
    fill();
    show();
  }

  function lay() {
    const { heads, lines, width } = view();
    sheet.build(heads, lines);
    at("skip").max = Math.max(0, width - 1);
    at("skip").disabled = width < 2;
    at("skip-label").textContent = swapped ? "LoRA" : "Clip Skip";
    fill();
    show();
  }

  function fill() {
    sweep.cells.forEach((cells, r) => cells.forEach((cell, c) => { refresh([r, c]); preload(cell); }));
  }

  /** Boxes that leave out values of either axis. */
  function buildChoices() {
    const box = (set, i, text) => h("label", {}, h("input", { type: "checkbox", checked: true, on: { change: (event) => {
      if (event.target.checked) set.delete(i);
      else set.add(i);
      lay();
    } } }), ` ${text}`);
    at("values").replaceChildren(...sweep.columns.map((column, c) => box(hidden.columns, c, column.label)), ...(sweep.rows.length > 1 ? sweep.rows.map((row, r) => box(hidden.rows, r, row.name)) : []));
    at("swap").hidden = sweep.rows.length < 2;
  }

  /** The pictures' own shape, so that nothing jumps while they load. */
  function reshape(width, height) {
    at("sweep").style.setProperty("--shape", width / height);
  }

  function refresh(place) {
    sheet.update(place, { cell: cellAt(place), preview: previews.get(String(place)), name: nameOf(place), starred: stars.has(String(place)) });
  }

  /** Fetches the whole picture before it is asked for, so that scrubbing does not wait. */
  function preload(cell) {
    if (!cell.image || loaded.has(cell.image) || cell.image.startsWith("data:")) return;
    const image = new Image();
    image.src = cell.image;
    image.addEventListener("load", () => { if (!shape && sweep) { shape = "seen"; reshape(image.naturalWidth, image.naturalHeight); } });
    loaded.set(cell.image, image);
  }

  /** A cell has a preview, or its picture: until somebody chooses, the first that has something to show is shown. */
  function cellChanged(place, { preview = null } = {}) {
    if (preview) previews.set(String(place), preview);
    if (cellAt(place).state === "done") { previews.delete(String(place)); preload(cellAt(place)); }
    if (!chosen && !hasPicture(shown)) shown = place;
    refresh(place);
    if (String(place) === String(shown) || String(place) === String(held) || !chosen) show();
  }

  function picture(place) {
    const cell = cellAt(place), name = nameOf(place), preview = previews.get(String(place));
    const waiting = cell.state === "failed" ? "could not be drawn" : cell.state === "drawing" ? `step ${cell.step} of ${cell.steps}` : "not drawn";
    const source = cell.image ?? preview ?? null;
    return { source, name: cell.image ? name : `${name}: ${waiting}`, alt: source ? `The picture at ${name}${cell.image ? "" : ", being drawn"}` : `${name} ${waiting}`, soft: !cell.image };
  }

  function show() {
    const seen = flipped && held ? held : shown, [r, c] = seen, column = sweep.columns[c], { width } = view();
    const across = swapped ? shown[0] : shown[1], index = Array.from({ length: width }, (_, i) => view().place(i, 0)).findIndex((place) => (swapped ? place[0] : place[1]) === across);
    at("skip").value = Math.max(0, index);
    at("skip").setAttribute("aria-valuetext", nameOf(shown));
    at("skip-value").textContent = swapped ? sweep.rows[r].name : String(column.label).replace("Clip Skip ", "");
    at("shown-name").textContent = nameOf(seen);
    at("full-name").textContent = nameOf(seen);
    at("rows").querySelectorAll("input").forEach((input, i) => { input.checked = i === r; });
    at("hold").textContent = held === null ? "Hold beside" : "Put away";
    at("hold").disabled = held === null && !hasPicture(shown);
    at("star").setAttribute("aria-pressed", String(stars.has(String(shown))));
    at("compare").hidden = held === null;
    at("compare").querySelectorAll("input").forEach((input, i) => { input.checked = MODES[i][0] === mode; });
    showLayer(column);
    sheet.mark(shown, held);
    stage.show(picture(seen), held === null ? null : picture(held), mode);
    take.show(cellAt(seen));
    hear.shown(cellAt(seen), column);
  }

  function showLayer(column) {
    const depth = hear.depth(sweep), skip = Number(column.clip_skip);
    if (!Number.isFinite(skip)) { at("mini").replaceChildren(h("span", { text: String(column.clip_skip).includes("/") ? "one for each text encoder" : "changes while it is drawn" })); return; }
    const layer = depth - skip + 1;
    const words = Number.isInteger(skip) ? `layer ${layer} of ${depth}` : `between layers ${Math.floor(layer)} and ${Math.ceil(layer)} of ${depth}`;
    at("mini").replaceChildren(drawMini(depth, skip), h("span", { text: words }));
  }

  function choose(place) {
    chosen = true;
    flipped = false;
    shown = place;
    show();
  }

  /** The next visible place in a direction of the sheet; cells that are left out are passed over. */
  function move(dx, dy, { around = false } = {}) {
    const { lines, width, height } = view();
    if (!width || !height) return;
    let j = lines.findIndex((line) => line.places.some((place) => String(place) === String(shown)));
    let i = j < 0 ? 0 : lines[j].places.findIndex((place) => String(place) === String(shown));
    j = Math.max(0, j);
    for (let tries = 0; tries < Math.max(width, height); tries += 1) {
      i += dx;
      j += dy;
      if (around) i = (i + width) % width;
      if (i < 0 || i >= width || j < 0 || j >= height) return;
      if (lines[j].places[i]) { choose(lines[j].places[i]); return; }
    }
  }

  function hold() {
    if (!held && !hasPicture(shown)) return;
    held = held ? null : [...shown];
    flipped = false;
    chosen = true;
    if (held) say(`${nameOf(held)} is held. Choose another to see it beside.`);
    show();
  }

  function flip() {
    if (!held) return;
    mode = "one";
    flipped = !flipped;
    show();
  }

  function star() {
    const key = String(shown);
    if (stars.has(key)) stars.delete(key);
    else stars.add(key);
    hear.starred?.(sweep, [...stars]);
    if (starredOnly) lay();
    refresh(shown);
    show();
  }

  function stop() {
    clearInterval(timer);
    timer = 0;
    at("play").setAttribute("aria-pressed", "false");
  }

  function play() {
    if (timer) { stop(); return; }
    timer = setInterval(() => move(1, 0, { around: true }), PLAY_MS);
    at("play").setAttribute("aria-pressed", "true");
  }

  async function full() {
    if (document.fullscreenElement) await document.exitFullscreen();
    else await at("stage").requestFullscreen();
  }

  function keys(event) {
    if (!sweep || at("sweep").hidden || !at("sweep").checkVisibility() || event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    if (event.target.closest("input:not([type=range], [type=radio], [type=checkbox]), textarea, select, pre") || !(event.target === document.body || at("main").contains(event.target))) return;
    const moves = event.target.matches("input[type=range], input[type=radio]"); // these have arrows of their own
    const presses = event.target.matches("button, a, summary, input[type=checkbox]");
    const done = {
      ArrowLeft: moves ? null : () => move(-1, 0),
      ArrowRight: moves ? null : () => move(1, 0),
      ArrowUp: moves ? null : () => move(0, -1),
      ArrowDown: moves ? null : () => move(0, 1),
      " ": held && !(presses && !event.target.matches(".cell")) ? flip : null,
      h: hold,
      d: held ? () => { mode = mode === "difference" ? "side" : "difference"; flipped = false; show(); } : null,
      w: held ? () => { mode = mode === "wipe" ? "side" : "wipe"; flipped = false; show(); } : null,
      s: star,
      p: play,
      f: full,
      c: () => at("copy").click(),
      Escape: timer ? stop : held && !document.fullscreenElement ? hold : null,
      "+": stage.zoomIn,
      "-": stage.zoomOut,
      0: stage.fit,
    }[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!done) return;
    event.preventDefault();
    done();
  }

  at("skip").addEventListener("input", (event) => {
    const { lines } = view(), i = Number(event.target.value);
    const line = lines.find((one) => one.places.some((place) => String(place) === String(shown))) ?? lines[0];
    if (line?.places[i]) choose(line.places[i]);
  });
  for (const [id, act] of [["hold", hold], ["star", star], ["play", play], ["full", full], ["zoom-in", stage.zoomIn], ["zoom-out", stage.zoomOut], ["zoom-fit", stage.fit]]) at(id).addEventListener("click", act);
  at("swap").addEventListener("click", () => { swapped = !swapped; at("swap").setAttribute("aria-pressed", String(swapped)); lay(); });
  at("only-starred").addEventListener("click", () => { starredOnly = !starredOnly; at("only-starred").setAttribute("aria-pressed", String(starredOnly)); lay(); });
  document.addEventListener("keydown", keys);

  return { open, update, cellChanged, choose, nameOf, column: (c) => choose([shown[0], c]), follow: () => { chosen = false; } };
}

function option(group, text, { checked, pick }) {
  const input = h("input", { type: "radio", name: group, checked, on: { change: pick } });
  return h("label", {}, input, h("span", { text }));
}
