// Past sweeps, newest first, each a link that reopens it with everything.

import { ApiError, api } from "./api.js";
import { at, h, plural } from "./dom.js";
import { about } from "./sweep.js";

const STATES = { queued: "waiting", running: "being drawn", cancelled: "cancelled", failed: "failed", interrupted: "interrupted", done: null };

/** Fills the list from the server. */
export async function showHistory() {
  try {
    const { sweeps } = await api.sweeps();
    at("history-about").textContent = sweeps.length ? `${plural(sweeps.length, "sweep")}, newest first.` : "No sweep yet. What you draw is kept and shown here, also after a restart.";
    at("past").replaceChildren(...sweeps.map(entry));
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    at("history-about").textContent = error.message;
  }
}

function entry(sweep) {
  const picture = sweep.thumbnail ? h("img", { src: sweep.thumbnail, alt: "", loading: "lazy" }) : h("span", { class: "blank" });
  const skips = sweep.columns.map((column) => String(column.label).replace("Clip Skip ", ""));
  const span = skips.length > 4 ? `${skips[0]} to ${skips.at(-1)}` : skips.join(", ");
  const facts = [`Clip Skip ${span}`, sweep.rows.map((row) => row.name).join(" / "), STATES[sweep.state] ? `${STATES[sweep.state]}, ${sweep.done} of ${sweep.total}` : null];
  return h("li", {}, h("a", { href: `#/sweep/${encodeURIComponent(sweep.id)}` }, picture,
    h("span", { class: "words" }, h("strong", { text: sweep.prompt || "No prompt" }), h("span", { class: "about", text: facts.filter(Boolean).join(" · ") }), h("span", { class: "about", text: about(sweep) }))));
}
