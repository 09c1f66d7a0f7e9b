// Measuring a sweep's cells: asked for, followed, cancelled; the numbers then stand in the cells.

import { ApiError, api } from "./api.js";
import { at, duration, h, say } from "./dom.js";

const LOOK_MS = 700;

/** The place where scores are asked for. `hear.measured(id)` when there are new ones, `hear.status()` looks what the server is at. */
export function openScoring(hear) {
  let shown = null, timer = 0, sources = null, measuring = false;

  /** Offers scores of a sweep that has ended, or shows how far measuring is. */
  function show(sweep, ended) {
    if (ended && shown === sweep.id) return;
    at("scoring").hidden = true;
    shown = ended ? sweep.id : null;
    if (!ended) return;
    measuring = false;
    look(sweep, () => api.scores(sweep.id));
  }

  /** Does something about the scores, shows how they stand, and looks again for as long as they are measured. */
  async function look(sweep, ask) {
    clearTimeout(timer);
    let now = null;
    try {
      sources ??= (await api.sources()).scores;
      now = await ask();
    } catch (problem) {
      if (!(problem instanceof ApiError)) throw problem;
      if (shown === sweep.id) offer(sweep, { error: problem.message });
      return;
    }
    if (shown !== sweep.id) return;
    const going = now.state === "queued" || now.state === "running";
    offer(sweep, { now: going ? now : null, error: now.error?.detail ?? "" });
    if (going) timer = setTimeout(() => look(sweep, () => api.scores(sweep.id)), LOOK_MS);
    if (going || measuring) hear.status();
    if (measuring && !going) { say("The cells are scored."); hear.measured(sweep.id); }
    measuring = going;
  }

  function offer(sweep, { now = null, error = "" }) {
    at("scoring").hidden = false;
    if (now) {
      const line = now.state === "queued" ? "Waiting for its turn" : `Scoring the cells${now.eta_s ? `, about ${duration(now.eta_s)} left` : "…"}`;
      const stop = h("button", { type: "button", id: "stop-scoring", text: "Cancel", on: { click: () => { stop.disabled = true; look(sweep, () => api.stopScores(sweep.id)); } } });
      at("scoring").replaceChildren(h("div", { class: "row" }, h("progress", { max: 1, value: now.progress, "aria-label": "Progress of the scores" }), h("span", { text: line }), stop));
      return;
    }
    const boxes = (sources ?? []).map((name) => h("input", { type: "checkbox", value: name, checked: name === "advise" }));
    const begin = h("button", { type: "button", id: "score-cells", text: "Score the cells", on: { click: () => { begin.disabled = true; look(sweep, () => api.findScores(sweep.id, boxes.filter((box) => box.checked).map((box) => box.value))); } } });
    const choices = boxes.length > 1 ? boxes.map((box) => h("label", {}, box, ` ${box.value}`)) : [];
    at("scoring").replaceChildren(h("div", { class: "row" }, begin, ...choices, h("span", { class: "about", text: "Guidance kept, LoRA uptake and breakage at each cell; draws nothing." })), h("p", { class: "error", role: "alert", text: error }));
  }

  return { show };
}
