// What each layer of the text encoder makes of a prompt's words, asked for when it is opened.

import { ApiError, api } from "./api.js";
import { h } from "./dom.js";

const HEARD = 2, HEARD_FROM = 0.1;
/** Percent of the accent colour that text is still legible on, in both themes. */
const FULL = 45;

/** A closed line that opens to the tables. */
export function wordsOf(prompt, model) {
  const place = h("div", {}, h("p", { class: "about", text: "Reading…" }));
  const made = h("details", { class: "claim" }, h("summary", { text: "What each layer makes of the prompt" }), place);
  made.addEventListener("toggle", async () => {
    try {
      place.replaceChildren(...tables(await api.layers({ prompt, model })));
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      place.replaceChildren(h("p", { class: "error", role: "alert", text: error.message }));
    }
  }, { once: true });
  return made;
}

function tables(found) {
  const last = found.skips.length - 1, hundred = (value) => `${Math.round(100 * value)}%`;
  const likeness = [
    ["like the next Clip Skip", [...found.likeness.slice(0, last).map((row, i) => row[i + 1]), null]],
    [`like Clip Skip ${found.skips[0]}`, found.likeness[0]],
  ];
  const context = found.words.flatMap((word) => [
    [word.text, word.context],
    ...word.heard.slice(0, HEARD).filter((one) => Math.max(...one.share) >= HEARD_FROM).map((one) => [`from ${one.word}`, one.share, "from"]),
  ]);
  return [
    h("p", { class: "about", text: `Clip Skip ${found.skips[0]} reads layer ${found.depth + 1 - found.skips[0]} of ${found.depth}. The stronger the colour the more; 1.00 is the same, 0% is untouched.` }),
    shaded("How alike the words' vectors are", found.skips, likeness, (value) => value.toFixed(2)),
    shaded("What the other words do to each word's vector, of its length", found.skips, context, hundred),
    h("details", { class: "claim" }, h("summary", { text: "Nearest words" }), nearest(found)),
  ];
}

function shaded(name, skips, rows, say) {
  return h("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": name }, h("table", { class: "numbers shaded" },
    h("caption", { text: name }),
    h("thead", {}, h("tr", {}, h("td", { text: "Clip Skip" }), ...skips.map((skip) => h("th", { scope: "col", text: `${skip}` })))),
    h("tbody", {}, ...rows.map(([text, values, kind]) => h("tr", { class: kind }, h("th", { scope: "row", text }),
      ...values.map((value) => (value === null ? h("td") : cell(value, say(value)))))))));
}

function cell(value, text) {
  const made = h("td", { text });
  made.style.setProperty("--strength", `${Math.round(FULL * Math.min(Math.max(value, 0), 1))}%`);
  return made;
}

function nearest(found) {
  return h("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": "Nearest words" }, h("table", { class: "numbers" },
    h("thead", {}, h("tr", {}, h("td", { text: "Clip Skip" }), ...found.skips.map((skip) => h("th", { scope: "col", text: `${skip}` })))),
    h("tbody", {}, ...found.words.map((word) => h("tr", {}, h("th", { scope: "row", text: word.text }),
      ...word.nearest.map((near) => h("td", { title: near.map((one) => `${one.word} ${one.cosine.toFixed(2)}`).join(", "), text: near[0].word })))))));
}
