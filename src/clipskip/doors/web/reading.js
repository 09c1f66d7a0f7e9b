// How the server reads a prompt, shown under its box while it is typed.

import { ApiError, api } from "./api.js";
import { at, h, sentence } from "./dom.js";

const PAUSE_MS = 250;

/** Reads the box `id` aloud. `context()` gives model, steps and loras; `hear(report)` gets each reading. */
export function openReading(id, { negative, context, hear }) {
  const box = at(id), place = at(`${id}-reading`), count = at(`${id}-count`);
  let timer = 0, running = null, opened = false;

  async function read() {
    running?.abort();
    running = new AbortController();
    try {
      const report = await api.prompt({ prompt: box.value, negative, ...context() }, running.signal);
      show(report);
      hear(report);
    } catch (error) {
      if (error.name === "AbortError") return;
      if (!(error instanceof ApiError)) throw error;
      count.textContent = "";
      place.replaceChildren(h("p", { class: "error", text: error.message }));
    }
  }

  function show(report) {
    const texts = report.parts.flatMap((part) => part.texts);
    const longest = texts.reduce((most, text) => (text.count >= most.count ? text : most), { count: 0, limit: 75 });
    count.textContent = `${longest.count}/${longest.limit}`;
    count.setAttribute("aria-label", `${longest.count} of ${longest.limit} tokens`);
    const lines = [
      ...report.unknown.map((text) => h("p", { class: "error", text: sentence(text) })),
      ...absent(report.files?.loras).map((name) => h("p", { class: "error", text: `LoRA ${name} is not in the folders.` })),
      ...report.notes.map((text) => h("p", { class: "warning", text: sentence(text) })),
    ];
    place.replaceChildren(...lines, ...(box.value.trim() ? [details(report)] : []));
  }

  function details(report) {
    const made = h("details", { class: "reading", open: opened }, h("summary", { text: "How it is read" }),
      ...report.parts.flatMap((part, i) => partOf(part, { number: i + 1, of: report.parts.length, steps: report.steps })));
    made.addEventListener("toggle", () => { opened = made.open; });
    return made;
  }

  function ask() {
    clearTimeout(timer);
    timer = setTimeout(read, PAUSE_MS);
  }
  box.addEventListener("input", ask);
  return { ask };
}

/** The names of a list of files for which no file was found. */
const absent = (files) => Object.entries(files ?? {}).filter(([, file]) => file === null).map(([name]) => name);

function partOf(part, { number, of, steps }) {
  const head = of > 1 || part.weight !== 1 ? [h("p", { class: "part", text: `AND part ${number} of ${of}, weight ${part.weight}` })] : [];
  return [...head, ...part.texts.flatMap((text) => textOf(text, steps))];
}

function textOf(text, steps) {
  const spans = text.steps.map(([first, last]) => (first === last ? `${first}` : `${first}–${last}`)).join(", ");
  const always = spans === `1–${steps}` || (steps === 1 && spans === "1");
  const head = always ? [] : [h("p", { class: "part", text: spans ? `Steps ${spans}` : "Never used" })];
  const chunks = text.chunks.map((chunk, i) => h("div", { class: "chunk" },
    text.chunks.length > 1 ? h("span", { class: "part", text: `Chunk ${i + 1}: ${chunk.used} of 75` }) : null,
    h("p", { class: "tokens" }, ...chunk.tokens.map(token))));
  return [...head, ...chunks];
}

function token(one) {
  const name = one.id === null ? "token embedding" : one.weight > 1 ? "token up" : one.weight < 1 ? "token down" : "token";
  const words = one.id === null ? `${one.text} (${one.vectors} vectors)` : one.text.trimEnd() || "␣";
  const joined = one.id !== null && !one.text.endsWith(" ");
  const made = h("span", { class: joined ? `${name} joined` : name, title: one.id === null ? "embedding" : `token ${one.id}` }, words);
  if (one.weight !== 1) made.append(h("sup", { text: `×${Number(one.weight.toFixed(3))}` }));
  return made;
}
