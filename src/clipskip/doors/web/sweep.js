// One sweep on the page: watched while it is drawn, then scrubbed, compared and chosen from.

import { openAdvice } from "./advice.js";
import { ApiError, api, follow } from "./api.js";
import { at, duration, h, plural, say } from "./dom.js";
import { drawMini } from "./layers.js";
import { openSheet } from "./sheet.js";
import { openStage } from "./stage.js";
import { openWinner } from "./winner.js";

const ENDED = new Set(["done", "cancelled", "failed", "interrupted"]);

/** The place where sweeps are shown. `hear` has ended(), reuse(settings) and layers(name of a model). */
export function openSweeps(hear) {
  let sweep = null, shown = [0, 0], chosen = false, held = null, mode = "side", stop = () => {}, shape = "";
  let previews = new Map(), loaded = new Map();
  const sheet = openSheet((r, c) => choose(r, c)), stage = openStage();
  const advice = openAdvice({ choose: (column) => choose(shown[0], column) });
  const winner = openWinner({ reuse: (settings) => hear.reuse(settings) });

  const cellAt = ([r, c]) => sweep.cells[r][c];
  const nameOf = ([r, c]) => (sweep.rows.length > 1 ? `${sweep.columns[c].label}, ${sweep.rows[r].name}` : sweep.columns[c].label);

  /** Shows the sweep of this id and follows it until it ends. */
  async function open(id) {
    if (sweep?.id === id) reveal();
    else begin(await api.sweep(id));
  }

  /** Shows a sweep as the server gave it, and follows it. */
  function begin(whole) {
    close();
    take(whole, { anew: true });
    reveal();
    if (!ENDED.has(sweep.state)) watch(sweep.id);
  }

  function reveal() {
    at("first").hidden = true;
    at("sweep").hidden = false;
  }

  function close() {
    stop();
    stop = () => {};
    sweep = null;
    held = null;
    chosen = false;
    previews = new Map();
    loaded = new Map();
    document.title = "clipskip";
  }

  function watch(id) {
    stop = follow(id, {
      sweep: (whole) => { if (sweep?.id === whole.id) take(whole); },
      step: (event) => step(event),
      cell: (event) => cellCame(event),
      end: (event) => end(event),
      lost: (forever) => { if (forever) at("sweep-error").textContent = "The server has gone away. Reload this page when it is back."; },
    });
  }

  function take(whole, { anew = false } = {}) {
    const rebuilt = anew || whole.columns.length !== sweep.columns.length || whole.rows.length !== sweep.rows.length;
    sweep = whole;
    if (rebuilt) build();
    sweep.cells.forEach((cells, r) => cells.forEach((cell, c) => { refresh(r, c); preload(cell); }));
    showProgress();
    show();
  }

  function build() {
    at("sweep-prompt").textContent = sweep.prompt || "No prompt";
    at("sweep-about").textContent = about(sweep);
    at("sweep-error").textContent = "";
    at("skip").max = sweep.columns.length - 1;
    at("skip").disabled = sweep.columns.length < 2;
    const start = sweep.columns.findIndex((column) => column.clip_skip === sweep.model?.trained_clip_skip);
    shown = [sweep.rows.length - 1, ENDED.has(sweep.state) ? Math.max(start, 0) : 0];
    held = null;
    mode = "side";
    chosen = ENDED.has(sweep.state);
    at("rows").replaceChildren(h("legend", { text: "LoRA" }), ...sweep.rows.map((row, r) => option("row", row.name, { checked: r === shown[0], pick: () => choose(r, shown[1]) })));
    at("rows").hidden = sweep.rows.length < 2;
    at("compare").replaceChildren(h("legend", { class: "unseen", text: "How to compare" }),
      option("mode", "Side by side", { checked: true, pick: () => { mode = "side"; show(); } }),
      option("mode", "Difference", { checked: false, pick: () => { mode = "difference"; show(); } }));
    sheet.build(sweep);
    const size = /Size: (\d+)x(\d+)/.exec(sweep.settings ?? "");
    shape = size ? `${size[1]}x${size[2]}` : "";
    reshape(...(size ? [Number(size[1]), Number(size[2])] : [1, 1]));
    stage.fit();
    winner.show(sweep, null);
  }

  /** The pictures' own shape, so that nothing jumps while they load. */
  function reshape(width, height) {
    at("sweep").style.setProperty("--shape", width / height);
  }

  function refresh(r, c) {
    sheet.update(r, c, { cell: sweep.cells[r][c], preview: previews.get(`${r},${c}`), name: nameOf([r, c]) });
  }

  /** Fetches the whole picture before it is asked for, so that scrubbing does not wait. */
  function preload(cell) {
    if (!cell.image || loaded.has(cell.image)) return;
    const image = new Image();
    image.src = cell.image;
    image.addEventListener("load", () => { if (!shape && sweep) { shape = "seen"; reshape(image.naturalWidth, image.naturalHeight); } });
    loaded.set(cell.image, image);
  }

  function step({ row, column, step: at_step, steps, preview, eta_s }) {
    if (!sweep) return;
    const cell = sweep.cells[row][column];
    if (cell.state === "done") return;
    Object.assign(cell, { state: "drawing", step: at_step, steps });
    if (preview) previews.set(`${row},${column}`, preview);
    sweep.state = "running";
    sweep.eta_s = eta_s;
    follow_to(row, column);
    refresh(row, column);
    showProgress();
    if (row === shown[0] && column === shown[1]) show();
  }

  function cellCame({ row, column, cell }) {
    if (!sweep) return;
    sweep.cells[row][column] = cell;
    previews.delete(`${row},${column}`);
    sweep.done = sweep.cells.flat().filter((one) => one.state === "done").length;
    preload(cell);
    follow_to(row, column);
    refresh(row, column);
    showProgress();
    if (cell.state === "done") say(`${nameOf([row, column])} is drawn: ${sweep.done} of ${sweep.total}.`);
    show();
  }

  /** Until somebody chooses a cell, the first one that has something to show is shown. */
  function follow_to(row, column) {
    if (chosen || hasPicture(shown)) return;
    shown = [row, column];
  }

  const hasPicture = (place) => Boolean(cellAt(place).image ?? previews.get(place.join(",")));

  async function end({ state, error }) {
    stop();
    const id = sweep?.id;
    if (!id) return;
    say(state === "done" ? "The sweep is done." : `The sweep is ${state}.`);
    const whole = await api.sweep(id).catch(() => ({ ...sweep, state, error }));
    if (sweep?.id === id) take(whole);
    hear.ended();
  }

  function showProgress() {
    const ended = ENDED.has(sweep.state), running = sweep.state === "running";
    const cells = sweep.cells.flat();
    const parts = cells.map((cell) => (cell.state === "done" ? 1 : cell.state === "drawing" && cell.steps ? (cell.step / (cell.steps + 1)) : 0));
    const share = parts.reduce((sum, part) => sum + part, 0) / cells.length;
    at("progress").hidden = sweep.state === "done";
    at("bar").hidden = ended;
    at("bar").value = share;
    at("cancel").hidden = ended;
    at("cancel").disabled = false;
    at("resume").hidden = !ended || sweep.state === "done";
    const left = sweep.eta_s ? `, about ${duration(sweep.eta_s)} left` : "";
    at("progress-text").textContent = {
      queued: "Waiting for its turn",
      running: `${sweep.done} of ${plural(sweep.total, "picture")}${left}`,
      cancelled: `Cancelled: ${sweep.done} of ${plural(sweep.total, "picture")} kept`,
      interrupted: `Interrupted: ${sweep.done} of ${plural(sweep.total, "picture")} kept`,
      failed: "Failed",
      done: "",
    }[sweep.state] ?? sweep.state;
    at("sweep-error").textContent = sweep.error?.detail ?? "";
    document.title = running ? `${Math.floor(share * 100)}% · clipskip` : "clipskip";
    winner.links(sweep);
    advice.show(sweep, ended);
  }

  function picture(place) {
    const cell = cellAt(place), name = nameOf(place), preview = previews.get(place.join(","));
    const waiting = cell.state === "failed" ? "could not be drawn" : ENDED.has(sweep.state) ? "was not drawn" : cell.state === "drawing" ? `step ${cell.step} of ${cell.steps}` : "not drawn yet";
    const source = cell.image ?? preview ?? null;
    return { source, name: cell.image ? name : `${name}: ${waiting}`, alt: source ? `The picture at ${name}${cell.image ? "" : ", being drawn"}` : `${name} ${waiting}`, soft: !cell.image };
  }

  function show() {
    const [r, c] = shown, column = sweep.columns[c];
    at("skip").value = c;
    at("skip").setAttribute("aria-valuetext", nameOf(shown));
    at("skip-value").textContent = String(column.label).replace("Clip Skip ", "");
    at("shown-name").textContent = nameOf(shown);
    at("rows").querySelectorAll("input").forEach((input, i) => { input.checked = i === r; });
    at("hold").textContent = held === null ? "Hold beside" : "Put away";
    at("hold").disabled = held === null && !hasPicture(shown);
    at("compare").hidden = held === null;
    at("compare").querySelectorAll("input").forEach((input, i) => { input.checked = (mode === "difference") === (i === 1); });
    showLayer(column);
    sheet.mark(shown, held);
    stage.show(picture(shown), held === null ? null : picture(held), mode);
    winner.show(sweep, cellAt(shown), column);
  }

  function showLayer(column) {
    const depth = sweep.model?.depth ?? hear.layers(sweep.model?.name) ?? 12, skip = Number(column.clip_skip);
    if (!Number.isFinite(skip)) { at("mini").replaceChildren(h("span", { text: "changes while it is drawn" })); return; }
    const layer = depth - skip + 1;
    const words = Number.isInteger(skip) ? `layer ${layer} of ${depth}` : `between layers ${Math.floor(layer)} and ${Math.ceil(layer)} of ${depth}`;
    at("mini").replaceChildren(drawMini(depth, skip), h("span", { text: words }));
  }

  function choose(r, c) {
    chosen = true;
    shown = [Math.min(Math.max(r, 0), sweep.rows.length - 1), Math.min(Math.max(c, 0), sweep.columns.length - 1)];
    show();
  }

  function hold() {
    if (!held && !hasPicture(shown)) return;
    held = held ? null : [...shown];
    chosen = true;
    if (held) say(`${nameOf(held)} is held. Choose another to see it beside.`);
    show();
  }

  async function act(button, ask) {
    button.disabled = true;
    const id = sweep.id;
    try {
      const whole = await ask(id);
      if (sweep?.id === id && whole?.cells) take(whole);
      return true;
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      at("sweep-error").textContent = error.message;
      return false;
    } finally {
      button.disabled = false;
    }
  }

  async function resume() {
    const id = sweep.id;
    if (!(await act(at("resume"), api.resume)) || sweep?.id !== id) return;
    chosen = false;
    stop();
    watch(id);
  }

  function keys(event) {
    if (!sweep || at("sweep").hidden || at("page-sweep").hidden || event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    if (event.target.closest("input:not([type=range], [type=radio]), textarea, select, pre") || !(event.target === document.body || at("main").contains(event.target))) return;
    const moves = event.target.matches("input"); // the slider and the switches have arrows of their own
    const done = {
      ArrowLeft: moves ? null : () => choose(shown[0], shown[1] - 1),
      ArrowRight: moves ? null : () => choose(shown[0], shown[1] + 1),
      ArrowUp: moves || sweep.rows.length < 2 ? null : () => choose(shown[0] - 1, shown[1]),
      ArrowDown: moves || sweep.rows.length < 2 ? null : () => choose(shown[0] + 1, shown[1]),
      h: hold,
      d: held ? () => { mode = mode === "side" ? "difference" : "side"; show(); } : null,
      c: () => at("copy").click(),
      Escape: held ? hold : null,
      "+": stage.zoomIn,
      "-": stage.zoomOut,
      0: stage.fit,
    }[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!done) return;
    event.preventDefault();
    done();
  }

  at("skip").addEventListener("input", (event) => choose(shown[0], Number(event.target.value)));
  at("hold").addEventListener("click", hold);
  at("cancel").addEventListener("click", () => act(at("cancel"), api.cancel));
  at("resume").addEventListener("click", resume);
  at("zoom-in").addEventListener("click", stage.zoomIn);
  at("zoom-out").addEventListener("click", stage.zoomOut);
  at("zoom-fit").addEventListener("click", stage.fit);
  document.addEventListener("keydown", keys);

  return {
    open,
    begin,
    current: () => sweep,
    /** The server draws this sweep: whoever shows it as ended follows it again. */
    heard(id) {
      if (sweep?.id !== id || !ENDED.has(sweep.state)) return;
      chosen = false;
      stop();
      watch(id);
    },
  };
}

function option(group, text, { checked, pick }) {
  const input = h("input", { type: "radio", name: group, checked, on: { change: pick } });
  return h("label", {}, input, h("span", { text }));
}

/** A sweep in one line: model, when, seed. */
export function about(sweep) {
  const when = new Date(sweep.created);
  const date = Number.isNaN(when.getTime()) ? null : when.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
  return [sweep.model?.name, sweep.seed === null ? null : `seed ${sweep.seed}`, date].filter(Boolean).join(" · ");
}
