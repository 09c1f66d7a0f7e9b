// The pictures of a sweep, wherever they are shown: on the page of a server, and in the one file that a sweep leaves.

import { axesOf, SEED } from "./axes.js";
import { at, h, plural, say, sentence } from "./dom.js";
import { openExport } from "./export.js";
import { drawMini } from "./layers.js";
import { openMarks } from "./marks.js";
import { openScores } from "./scores.js";
import { MOST_SHOTS, openSheet } from "./sheet.js";
import { openStage } from "./stage.js";
import { openTools } from "./tools.js";

const MODES = [["side", "Side by side"], ["one", "Flip"], ["wipe", "Wipe"], ["difference", "Difference"]];
const PLAY_MS = 700, MOST_BUTTONS = 8, MOST_FETCHED = 60, NEAR = 6;

/**
 * The viewer. `hear.shown(cell)` when another picture is shown; `hear.depth(sweep)` gives the layers of its model;
 * `hear.marked(sweep, marks)` keeps what somebody thinks of it; `hear.forms` and `hear.dialects` are those of other tools.
 */
export function openViewer(hear) {
  let sweep = null, space = null, shown = [0, 0], held = null, mode = "side", chosen = false, flipped = false;
  let across = 0, down = 0, together = false, starredOnly = false, hidden = [], laid = null;
  let previews = new Map(), fetched = new Map(), shape = "", timer = 0;
  const sheet = openSheet({ show: (place) => choose(place), describe }), stage = openStage();
  const take = openExport({ view: () => ({ ...view(), sweep, nameOf, row: view().lines[Math.max(0, view().rows.indexOf(space.on(seen())[down]))] }) });
  const tools = openTools(hear);
  const scores = openScores({ changed: () => lay() });
  const marks = openMarks({
    shown: () => shown, held: () => held, sweep: () => sweep, cellAt, nameOf, seen: () => view().lines.flatMap((line) => line.places).filter((place) => place && cellAt(place).image),
    compare: (pair) => { [held, shown] = pair ?? [null, shown]; mode = "side"; flipped = false; show(); },
    blind: (on) => at("stage").classList.toggle("blind", on),
    kept(all, change) { hear.marked(sweep, all, change); if (starredOnly) lay(); sheet.update(); show(); },
  });

  function cellAt([r, c]) { return sweep.cells[r][c]; }
  function nameOf([r, c]) { return sweep.rows.length > 1 ? `${sweep.columns[c].label}, ${sweep.rows[r].name}` : sweep.columns[c].label; }
  const seen = () => (flipped && held ? held : shown);
  const hasPicture = (place) => Boolean(cellAt(place).image ?? previews.get(String(place)));
  const seedAxis = () => space.axes.findIndex((axis) => axis.name === SEED);
  const axis = (which) => space.axes[which] ?? { label: "", values: [""] };
  /** Axes of which one value is seen. */
  const pages = () => space.axes.map((_, i) => i).filter((i) => i !== across && i !== down && space.axes[i].values.length > 1);

  /** What is to be seen: places across and down, after choosing axes, hiding and starring. Of each cell also all places in it. */
  function view() {
    if (laid) return laid;
    const here = space.on(shown), seed = together ? seedAxis() : -1, stars = starredOnly ? starredAlong(here, seed) : null;
    const values = (which) => axis(which).values.map((_, i) => i).filter((i) => !hidden[which]?.has(i) && (!stars || stars.some((on) => on[which] === i || which < 0)));
    const columns = values(across), rows = down < 0 ? [0] : values(down);
    const spot = (i, j, k) => { const on = [...here]; on[across] = i; if (down >= 0) on[down] = j; if (k !== undefined) on[seed] = k; return space.place(on); };
    const kept = (place) => (place && (!starredOnly || marks.starred(cellAt(place))) ? place : null);
    const lines = rows.map((j) => {
      const all = columns.map((i) => (seed < 0 ? [spot(i, j)] : axis(seed).values.map((_, k) => spot(i, j, k))).filter(kept));
      const own = columns.map((i, n) => all[n].find((place) => String(place) === String(spot(i, j))) ?? all[n][0] ?? null);
      return { name: named(axis(down), j), places: own, all };
    });
    const heads = columns.map((i) => ({ text: axis(across).values[i], full: named(axis(across), i), badges: axis(across).name === "skip" && space.axes[1]?.name !== "skip-g" ? scores.badges(i) : [] }));
    laid = { heads, lines, columns, rows, corner: axis(across).label };
    return laid;
  }

  /** Where the starred pictures of what is seen are, on every axis. */
  function starredAlong(here, seed) {
    const loose = new Set([across, down, seed]), found = [];
    sweep.cells.forEach((cells, r) => cells.forEach((cell, c) => {
      if (!marks.starred(cell)) return;
      const on = space.on([r, c]);
      if (on.every((index, which) => loose.has(which) || index === here[which])) found.push(on);
    }));
    return found;
  }

  /** Another sweep: everything begins anew, at the Clip Skip that its model was trained at if it has ended. */
  function open(whole, { ended, kept = null }) {
    sweep = whole;
    space = axesOf(whole);
    stop();
    const start = sweep.columns.findIndex((column) => column.clip_skip === sweep.model?.trained_clip_skip);
    shown = [sweep.rows.length - 1, ended ? Math.max(start, 0) : 0];
    held = null;
    mode = "side";
    chosen = ended;
    starredOnly = flipped = false;
    for (const id of ["swap", "only-starred"]) at(id).setAttribute("aria-pressed", "false");
    across = 0;
    down = firstDown();
    together = seedAxis() >= 0 && seedAxis() !== down && axis(seedAxis()).values.length <= MOST_SHOTS;
    hidden = space.axes.map(() => new Set());
    previews = new Map();
    fetched = new Map();
    laid = null;
    scores.open(whole);
    marks.open(kept);
    showLeftOut();
    const size = /Size: (\d+)x(\d+)/.exec(sweep.settings ?? "");
    shape = size ? `${size[1]}x${size[2]}` : "";
    reshape(...(size ? [Number(size[1]), Number(size[2])] : [1, 1]));
    stage.fit();
    at("compare").replaceChildren(h("legend", { class: "unseen", text: "How to compare" }), ...MODES.map(([name, text]) => option("mode", text, { checked: mode === name, pick: () => { mode = name; flipped = false; show(); } })));
    lay();
  }

  /** Combinations of the axes' values that are not there, and why. */
  function showLeftOut() {
    const lines = sweep.left_out ?? [], [summary, list] = at("left-out").children;
    at("left-out").hidden = !lines.length;
    summary.textContent = `Left out: ${plural(lines.length, "combination")} that cannot be drawn`;
    list.replaceChildren(...lines.map((text) => h("li", { text: sentence(text) })));
  }

  /** The axis down at first: the second encoder, else the LoRA's, else the first that is not the seed. */
  function firstDown() {
    const rest = space.axes.map((one, i) => [one, i]).slice(1).filter(([one]) => one.values.length > 1);
    const found = rest.find(([one]) => one.name === "skip-g") ?? rest.find(([one]) => one.name.startsWith("lora")) ?? rest.find(([one]) => one.name !== SEED) ?? rest[0];
    return found ? found[1] : space.axes.length > 1 ? 1 : -1;
  }

  /** The same sweep as it is by now. */
  function update(whole) {
    sweep = whole;
    scores.open(whole);
    laid = null;
    lay();
  }

  function lay() {
    laid = null;
    scores.measure(sweep.cells);
    const { heads, lines, corner } = view();
    sheet.build(heads, lines, corner);
    at("skip").max = Math.max(0, heads.length - 1);
    at("skip").disabled = heads.length < 2;
    buildChoices();
    show();
  }

  /** The places of the panel where values are chosen: of the axis down, of the pages, and what is left out. */
  function buildChoices() {
    const chooser = (which) => {
      const { label, values } = axis(which), go = (i) => { const on = [...space.on(shown)]; on[which] = i; choose(space.place(on) ?? nearest(on, which)); };
      return values.length <= MOST_BUTTONS && which === down
        ? h("fieldset", { class: "choice", "data-axis": which }, h("legend", { text: label }), ...values.map((text, i) => option(`axis${which}`, text, { checked: false, pick: () => go(i) })))
        : h("label", { class: "page-of", "data-axis": which }, h("span", { text: label }), h("select", { on: { change: (event) => go(event.target.selectedIndex) } }, ...values.map((text) => h("option", { text }))));
    };
    at("rows").replaceChildren(...[down, ...pages()].filter((which) => axis(which).values.length > 1).map(chooser));
    at("rows").hidden = !at("rows").children.length;
    const box = (which, i, text) => h("label", {}, h("input", { type: "checkbox", checked: !hidden[which].has(i), on: { change: (event) => { hidden[which][event.target.checked ? "delete" : "add"](i); lay(); } } }), ` ${text}`);
    at("values").replaceChildren(...[across, down].filter((which) => axis(which).values.length > 1 && axis(which).values.length <= 100).flatMap((which) => axis(which).values.map((text, i) => box(which, i, which === 0 && across === 0 ? `${axis(0).label} ${text}` : text))));
    const many = space.axes.filter((one) => one.values.length > 1);
    at("swap").hidden = many.length < 2;
    at("axes-seen").hidden = many.length < 3;
    for (const [id, now] of [["axis-across", across], ["axis-down", down]]) at(id).replaceChildren(...space.axes.map((one, i) => h("option", { value: String(i), text: one.label, selected: i === now, hidden: one.values.length < 2 })));
    at("together").hidden = seedAxis() < 0 || [across, down].includes(seedAxis()) || axis(seedAxis()).values.length < 2;
    at("together").setAttribute("aria-pressed", String(together));
  }

  /** A place that has this value of an axis, as near to the shown one as there is: not every combination is drawn. */
  function nearest(on, which) {
    let best = shown, most = -1;
    for (let r = 0; r < sweep.rows.length; r += 1) {
      for (const c of which < 1 ? sweep.columns.keys() : [shown[1]]) {
        const other = space.on([r, c]), same = other.filter((index, i) => index === on[i]).length;
        if (other[which] === on[which] && same > most) [best, most] = [[r, c], same];
      }
    }
    return best;
  }

  /** The pictures' own shape, so that nothing jumps while they load. */
  function reshape(width, height) {
    at("sweep").style.setProperty("--shape", width / height);
  }

  /** What the sheet has to know of a cell and the pictures in it. */
  function describe(place, all) {
    const shots = (all.length > 1 ? all : [place]).map((one) => cellAt(one).thumbnail ?? cellAt(one).image ?? previews.get(String(one)) ?? null);
    const states = all.map((one) => cellAt(one)), cell = states.find((one) => one.state === "drawing") ?? states.find((one) => one.state !== "done") ?? cellAt(place);
    const name = all.length > 1 ? `${nameOf(place)} and ${all.length - 1} more seeds` : nameOf(place);
    return { shots, cell, name, starred: states.some(marks.starred), winner: states.some(marks.wins), score: scores.of(all, cellAt) };
  }

  /** Fetches whole pictures before they are asked for, so that scrubbing does not wait: all of a small sweep, else those around. */
  function prefetch() {
    const { lines, columns, rows } = view(), on = space.on(shown), j = Math.max(0, rows.indexOf(on[down])), i = columns.indexOf(on[across]);
    const near = sweep.rows.length * sweep.columns.length <= MOST_FETCHED ? lines.flatMap((line) => line.places)
      : [...(lines[j]?.places.slice(Math.max(0, i - NEAR), i + NEAR + 1) ?? []), lines[j - 1]?.places[i], lines[j + 1]?.places[i]];
    for (const place of near) if (place) fetchPicture(cellAt(place));
  }

  function fetchPicture(cell) {
    if (!cell.image || fetched.has(cell.image) || cell.image.startsWith("data:")) return;
    const image = new Image();
    image.src = cell.image;
    image.addEventListener("load", () => { if (!shape && sweep) { shape = "seen"; reshape(image.naturalWidth, image.naturalHeight); } });
    fetched.set(cell.image, image);
  }

  /** A cell has a preview, or its picture: until somebody chooses, the first that has something to show is shown. */
  function cellChanged(place, { preview = null } = {}) {
    if (preview) previews.set(String(place), preview);
    if (cellAt(place).state === "done") previews.delete(String(place));
    if (!chosen && !hasPicture(shown)) { shown = place; if (pages().length) lay(); }
    sheet.update(place);
    if (String(place) === String(shown) || String(place) === String(held) || !chosen) show();
  }

  function picture(place) {
    const cell = cellAt(place), name = marks.masked(place) ?? nameOf(place), preview = previews.get(String(place));
    const waiting = cell.state === "failed" ? "could not be drawn" : cell.state === "drawing" ? `step ${cell.step} of ${cell.steps}` : "not drawn";
    const source = cell.image ?? preview ?? null;
    return { source, name: cell.image ? name : `${name}: ${waiting}`, alt: source ? `The picture at ${name}${cell.image ? "" : ", being drawn"}` : `${name} ${waiting}`, soft: !cell.image };
  }

  function show() {
    const now = seen(), [, c] = now, on = space.on(now), { columns, rows } = view();
    const i = columns.indexOf(on[across]), j = Math.max(0, rows.indexOf(on[down]));
    at("skip").value = Math.max(0, i);
    at("skip").setAttribute("aria-valuetext", nameOf(shown));
    const { label, values } = axis(across), value = values[on[across]];
    at("skip-label").textContent = saysItself(value) ? "" : label;
    at("skip-value").textContent = value;
    at("shown-name").textContent = nameOf(now);
    for (const field of at("rows").children) {
      const index = on[Number(field.dataset.axis)], select = field.querySelector("select");
      if (select) select.selectedIndex = index;
      else field.querySelectorAll("input").forEach((input, k) => { input.checked = k === index; });
    }
    at("hold").textContent = held === null ? "Hold beside" : "Put away";
    at("hold").disabled = held === null && !hasPicture(shown);
    at("compare").hidden = held === null;
    at("compare").querySelectorAll("input").forEach((input, k) => { input.checked = MODES[k][0] === mode; });
    showLayer(sweep.columns[c]);
    sheet.mark(shown, held);
    sheet.reach(Math.max(0, i), j);
    stage.show(picture(now), held === null ? null : picture(held), mode);
    take.show(cellAt(now));
    marks.show(now);
    scores.show(cellAt(now));
    prefetch();
    tools.show(sweep, cellAt(now), now);
    hear.shown(cellAt(now));
  }

  function showLayer(column) {
    const depth = hear.depth(sweep), skip = Number(column.clip_skip);
    if (!Number.isFinite(skip)) { at("mini").replaceChildren(h("span", { text: String(column.clip_skip).includes("/") ? "one for each text encoder" : "changes while it is drawn" })); return; }
    const layer = depth - skip + 1;
    const words = Number.isInteger(skip) ? `layer ${layer} of ${depth}` : `between layers ${Math.floor(layer)} and ${Math.ceil(layer)} of ${depth}`;
    at("mini").replaceChildren(drawMini(depth, skip), h("span", { text: words }));
  }

  /** Shows another picture; where it is on another page, that page. */
  function choose(place) {
    const before = space.on(shown), after = space.on(place), seed = together ? seedAxis() : -1;
    const turned = after.some((index, which) => index !== before[which] && which !== across && which !== down && which !== seed);
    chosen = true;
    flipped = false;
    shown = place;
    if (turned) lay();
    else { if (seed >= 0 && after[seed] !== before[seed]) laid = null; show(); }
  }

  /** The next visible place in a direction of the sheet; cells that are left out are passed over. */
  function move(dx, dy, { around = false } = {}) {
    const { lines, columns, rows } = view(), on = space.on(shown);
    let i = Math.max(0, columns.indexOf(on[across])), j = Math.max(0, rows.indexOf(on[down]));
    for (let tries = 0; tries < Math.max(columns.length, rows.length); tries += 1) {
      i += dx;
      j += dy;
      if (around) i = (i + columns.length) % columns.length;
      if (i < 0 || i >= columns.length || j < 0 || j >= rows.length) return;
      if (lines[j].places[i]) { choose(lines[j].places[i]); return; }
    }
  }

  /** The next value of the first axis that has pages. */
  function turn(step) {
    const [which] = pages(), on = which === undefined ? null : [...space.on(shown)];
    if (!on || on[which] + step < 0 || on[which] + step >= axis(which).values.length) return;
    on[which] += step;
    choose(space.place(on) ?? nearest(on, which));
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

  /** After a click the keys are the viewer's again; whoever came with the keyboard stays where they are. */
  function giveKeysBack(event) {
    if (event.type === "click" && !event.detail) return;
    setTimeout(() => {
      const now = document.activeElement;
      if (now?.matches("#panel :is(button, .button, input[type=radio]), #skip, #wipe") && !at("blind").contains(now)) at("main").focus({ preventScroll: true });
    });
  }

  /** Puts axes across and down; the one that stood in the other place gives way to what stood in its own. */
  function put(newAcross, newDown) {
    if (newAcross === newDown) [newAcross, newDown] = newAcross === across ? [down, newDown] : [newAcross, across];
    [across, down] = [newAcross, newDown];
    if (seedAxis() === across || seedAxis() === down) together = false;
    lay();
  }

  function keys(event) {
    if (!sweep || at("sweep").hidden || !at("sweep").checkVisibility() || event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    if (event.target.closest("input:not([type=range], [type=radio], [type=checkbox]), textarea, select, pre") || !(event.target === document.body || at("main").contains(event.target))) return;
    const moves = event.target.matches("input[type=range], input[type=radio]"); // these have arrows of their own
    const presses = event.target.matches("button, a, summary, input[type=checkbox]");
    const done = marks.asking() ? marks.key(event.key) : marks.key(event.key) ?? {
      ArrowLeft: moves ? null : () => move(-1, 0),
      ArrowRight: moves ? null : () => move(1, 0),
      ArrowUp: moves ? null : () => move(0, -1),
      ArrowDown: moves ? null : () => move(0, 1),
      PageUp: moves || !pages().length ? null : () => turn(-1),
      PageDown: moves || !pages().length ? null : () => turn(1),
      " ": held && !(presses && !event.target.matches(".cell")) ? flip : null,
      h: hold,
      d: held ? () => { mode = mode === "difference" ? "side" : "difference"; flipped = false; show(); } : null,
      w: held ? () => { mode = mode === "wipe" ? "side" : "wipe"; flipped = false; show(); } : null,
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
    const { lines, rows } = view(), i = Number(event.target.value), line = lines[Math.max(0, rows.indexOf(space.on(shown)[down]))];
    if (line?.places[i]) choose(line.places[i]);
  });
  for (const [id, act] of [["hold", hold], ["play", play], ["full", full], ["zoom-in", stage.zoomIn], ["zoom-out", stage.zoomOut], ["zoom-fit", stage.fit]]) at(id).addEventListener("click", act);
  at("swap").addEventListener("click", () => { at("swap").setAttribute("aria-pressed", String(at("swap").getAttribute("aria-pressed") !== "true")); put(down, across); });
  at("axis-across").addEventListener("change", (event) => put(Number(event.target.value), down));
  at("axis-down").addEventListener("change", (event) => put(across, Number(event.target.value)));
  at("together").addEventListener("click", () => { together = !together; lay(); });
  at("only-starred").addEventListener("click", () => { starredOnly = !starredOnly; at("only-starred").setAttribute("aria-pressed", String(starredOnly)); lay(); });
  document.addEventListener("keydown", keys);
  at("panel").addEventListener("click", giveKeysBack);
  for (const id of ["skip", "wipe"]) at(id).addEventListener("pointerup", giveKeysBack);

  return { open, update, cellChanged, choose, nameOf, marks: { value: marks.value, change: marks.change, set(all) { marks.set(all); lay(); } }, column: (c) => choose([shown[0], c]), follow: () => { chosen = false; } };
}

/** A value of an axis in a place that does not say which axis it is. */
const named = ({ label, values }, i) => (saysItself(values[i]) ? values[i] : `${label} ${values[i]}`);

/** Whether a value is words: a number needs its axis' name before it. */
const saysItself = (value) => !/^[\d.[]/.test(value);

function option(group, text, { checked, pick }) {
  const input = h("input", { type: "radio", name: group, checked, on: { change: pick } });
  return h("label", {}, input, h("span", { text }));
}
