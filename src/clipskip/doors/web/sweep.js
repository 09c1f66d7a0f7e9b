// One sweep on the page: watched while it is drawn, then looked at in the viewer.

import { openAdvice } from "./advice.js";
import { ApiError, api, follow } from "./api.js";
import { about, at, duration, h, plural, say } from "./dom.js";
import { openMarking } from "./marking.js";
import { openScoring } from "./scoring.js";
import { openViewer } from "./viewer.js";
import { dialectsOf, formsOf, openWinner } from "./winner.js";

const ENDED = new Set(["done", "cancelled", "failed", "interrupted"]);

/** The place where sweeps are shown. `hear` has ended(), reuse(settings) and layers(name of a model). */
export function openSweeps(hear) {
  let sweep = null, stop = () => {};
  const winner = openWinner({ reuse: (settings) => hear.reuse(settings) });
  const viewer = openViewer({
    shown: (cell) => winner.show(sweep, cell),
    forms: formsOf,
    dialects: dialectsOf,
    depth: (one) => one.model?.depth ?? hear.layers(one.model?.name) ?? 12,
    marked: (of, all, change) => marking.keep(of, all, change),
  });
  const marking = openMarking({ marks: viewer.marks, failed: (text) => { at("sweep-error").textContent = text; } });
  const advice = openAdvice({ choose: viewer.column, status: hear.ended });

  const scoring = openScoring({
    status: hear.ended,
    async measured(id) {
      const whole = await api.sweep(id).catch(() => null);
      if (whole && sweep?.id === id) take(whole);
    },
  });

  /** Shows the sweep of this id and follows it until it ends. */
  async function open(id) {
    if (sweep?.id === id) reveal();
    else begin(await api.sweep(id));
  }

  /** Shows a sweep as the server gave it, and follows it. */
  function begin(whole) {
    close();
    sweep = whole;
    at("sweep-about").textContent = about(sweep);
    at("sweep-error").textContent = "";
    viewer.open(whole, { ended: ENDED.has(whole.state) });
    marking.open(whole);
    showProgress();
    reveal();
    if (!ENDED.has(sweep.state)) watch(sweep.id);
  }

  function reveal() {
    at("first").hidden = true;
    at("sweep").hidden = false;
    at("page-sweep").classList.add("drawn");
  }

  function close() {
    stop();
    stop = () => {};
    sweep = null;
    document.title = "clipskip";
  }

  function watch(id) {
    stop = follow(id, {
      sweep: (whole) => { if (sweep?.id === whole.id) take(whole); },
      step: (event) => step(event),
      cell: (event) => cellCame(event),
      progress: (event) => { if (sweep) { Object.assign(sweep, event, { state: "running" }); showProgress(); } },
      end: (event) => end(event),
      lost: (forever) => { if (forever) at("sweep-error").textContent = "The server has gone away. Reload this page when it is back."; },
    });
  }

  function take(whole) {
    sweep = whole;
    viewer.update(whole);
    showProgress();
  }

  function step({ row, column, step: at_step, steps, preview, eta_s }) {
    if (!sweep) return;
    const cell = sweep.cells[row][column];
    if (cell.state === "done") return;
    Object.assign(cell, { state: "drawing", step: at_step, steps });
    sweep.state = "running";
    sweep.eta_s = eta_s;
    viewer.cellChanged([row, column], { preview });
    showProgress();
  }

  function cellCame({ row, column, cell }) {
    if (!sweep) return;
    sweep.cells[row][column] = cell;
    sweep.done = sweep.cells.flat().filter((one) => one.state === "done").length;
    viewer.cellChanged([row, column]);
    showProgress();
    if (cell.state === "done") say(`${viewer.nameOf([row, column])} is drawn: ${sweep.done} of ${sweep.total}.`);
  }

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
    at("cancel").hidden = ended || sweep.workers.length > 0;
    at("cancel").disabled = false;
    at("resume").hidden = !ended || sweep.state === "done";
    const left = sweep.eta_s ? `, about ${duration(sweep.eta_s)} left` : "";
    at("progress-text").textContent = {
      queued: "Waiting for its turn",
      running: `${sweep.done} of ${plural(sweep.total, "picture")}${left}${others(sweep.workers)}`,
      cancelled: `Cancelled: ${sweep.done} of ${plural(sweep.total, "picture")} kept`,
      interrupted: `Interrupted: ${sweep.done} of ${plural(sweep.total, "picture")} kept`,
      failed: "Failed",
      done: "",
    }[sweep.state] ?? sweep.state;
    at("sweep-error").textContent = sweep.error?.detail ?? "";
    document.title = running ? `${Math.floor(share * 100)}% · clipskip` : "clipskip";
    advice.show(sweep, ended);
    scoring.show(sweep, ended);
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
    viewer.follow();
    stop();
    watch(id);
  }

  at("cancel").addEventListener("click", () => act(at("cancel"), api.cancel));
  at("resume").addEventListener("click", resume);
  at("to-advice").addEventListener("click", () => { at("verdict").scrollIntoView({ block: "start" }); at("verdict").querySelector("button, summary")?.focus({ preventScroll: true }); });

  return {
    open,
    begin,
    current: () => sweep,
    /** The server draws this sweep: whoever shows it as ended follows it again. */
    heard(id) {
      if (sweep?.id !== id || !ENDED.has(sweep.state)) return;
      viewer.follow();
      stop();
      watch(id);
    },
  };
}

/** Who else draws a sweep, and each one's pictures a second. */
function others(workers) {
  const each = workers.map((one) => `${one.name} ${one.per_second.toFixed(2)}`);
  return workers.length ? `; pictures a second: ${each.join(", ")}` : "";
}
