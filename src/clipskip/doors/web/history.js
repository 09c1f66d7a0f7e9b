// Past sweeps, newest first: found by words, reopened with everything, renamed, deleted.

import { ApiError, api } from "./api.js";
import { about, at, h, plural, say } from "./dom.js";

const STATES = { queued: "waiting", running: "being drawn", cancelled: "cancelled", failed: "failed", interrupted: "interrupted", done: null };
const PAUSE_MS = 200;
let asked = 0;

/** Fills the list from the server: of what is typed in the search, those that have each of its words. */
export async function showHistory() {
  const text = at("history-search").value.trim(), mine = asked += 1;
  try {
    const { sweeps } = await api.sweeps(text);
    if (mine !== asked) return;
    const none = text ? "None has these words." : "No sweep yet. What you draw is kept and shown here, also after a restart.";
    at("history-about").textContent = sweeps.length ? `${plural(sweeps.length, "sweep")}${text ? " found" : ""}, newest first.` : none;
    at("past").replaceChildren(...sweeps.map(entry));
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    at("history-about").textContent = error.message;
  }
}

/** Searches while it is typed. */
export function listenToHistory() {
  let timer = 0;
  at("history-search").addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(showHistory, PAUSE_MS); });
}

function entry(sweep) {
  const picture = sweep.thumbnail ? h("img", { src: sweep.thumbnail, alt: "", loading: "lazy" }) : h("span", { class: "blank" });
  const skips = sweep.columns.map((column) => String(column.label).replace("Clip Skip ", ""));
  const span = skips.length > 4 ? `${skips[0]} to ${skips.at(-1)}` : skips.join(", ");
  const rows = sweep.rows.length > 4 ? plural(sweep.rows.length, "row") : sweep.rows.map((row) => row.name).join(" / ");
  const facts = [`Clip Skip ${span}`, rows, STATES[sweep.state] ? `${STATES[sweep.state]}, ${sweep.done} of ${sweep.total}` : null, sweep.stars ? `★ ${sweep.stars}` : null];
  const name = sweep.name || sweep.prompt || "No prompt", actions = h("div", { class: "row actions" }), error = h("p", { class: "error", role: "alert" });
  offer(actions, sweep, name, error);
  return h("li", {}, h("a", { href: `#/sweep/${encodeURIComponent(sweep.id)}` }, picture,
    h("span", { class: "words" }, h("strong", { text: name }), sweep.name ? h("span", { class: "about", text: sweep.prompt }) : null, h("span", { class: "about", text: facts.filter(Boolean).join(" · ") }), h("span", { class: "about", text: about(sweep) }))), actions, error);
}

function offer(actions, sweep, name, error) {
  const button = (text, run) => h("button", { type: "button", class: "quiet small", text, "aria-label": `${text} ${name}`, on: { click: run } });
  actions.replaceChildren(button("Rename", () => rename(actions, sweep, name, error)), button("Delete", () => remove(actions, sweep, name, error)));
}

function rename(actions, sweep, name, error) {
  const field = h("input", { type: "text", maxlength: 200, value: sweep.name, "aria-label": `Name of ${name}` });
  const keep = async () => done(error, async () => {
    const marks = await api.marks(sweep.id);
    await api.mark(sweep.id, { ...marks, name: field.value.trim() });
  });
  field.addEventListener("keydown", (event) => {
    if (event.key === "Enter") keep();
    if (event.key === "Escape") { event.preventDefault(); offer(actions, sweep, name, error); }
  });
  actions.replaceChildren(field, h("button", { type: "button", text: "Keep", on: { click: keep } }));
  field.focus();
}

function remove(actions, sweep, name, error) {
  const gone = h("button", { type: "button", class: "danger", text: `Delete ${plural(sweep.done, "picture")} for good`, on: { click: () => done(error, () => api.deleteSweep(sweep.id)) } });
  actions.replaceChildren(gone, h("button", { type: "button", class: "quiet", text: "Keep it", on: { click: () => offer(actions, sweep, name, error) } }));
  gone.focus();
}

async function done(error, act) {
  try {
    await act();
    await showHistory();
    say(at("history-about").textContent);
  } catch (problem) {
    if (!(problem instanceof ApiError)) throw problem;
    error.textContent = problem.message;
  }
}
