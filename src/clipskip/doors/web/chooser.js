// Choosing Clip Skips: a text field as in A1111's X/Y/Z plot, and a button for each layer that the model has.

import { ApiError, api } from "./api.js";
import { at, h } from "./dom.js";
import { writeSkips } from "./skips.js";

/** The chooser. `hear()` is called when the columns change. */
export function openChooser(hear) {
  const field = at("clip_skips"), group = at("chooser");
  let depth = 0, focus = 1, trained = [], columns = null, readText = null, asking = null, model = null;

  const chosen = () => (columns ?? []).filter((n) => Number.isInteger(n));

  /** Has the server read what is typed; null where it cannot be read yet. */
  async function read() {
    const text = field.value, key = `${model} ${text}`;
    if (key === readText) return;
    asking?.abort();
    asking = new AbortController();
    try {
      columns = text.trim() ? (await api.clipSkips({ text, model }, asking.signal)).clip_skips : null;
    } catch (error) {
      if (error.name === "AbortError") return;
      if (!(error instanceof ApiError)) throw error;
      columns = null;
    }
    readText = key;
    mark();
  }

  async function toggle(n) {
    await read();
    const rest = (columns ?? []).filter((one) => !Number.isInteger(one));
    const numbers = chosen().includes(n) ? chosen().filter((one) => one !== n) : [...chosen(), n];
    field.value = [writeSkips(numbers), ...rest].filter(Boolean).join(",");
    changed();
  }

  function changed() {
    field.dispatchEvent(new Event("input", { bubbles: true }));
  }

  function mark() {
    const now = new Set(chosen());
    for (const [i, button] of [...group.children].entries()) {
      const n = i + 1;
      button.setAttribute("aria-pressed", now.has(n));
      button.tabIndex = n === focus ? 0 : -1;
    }
    read();
    at("clip_skips-about").textContent = trained.map((one) => `${one.name} was trained at ${one.skip}`).join(" · ");
    hear();
  }

  function build() {
    group.replaceChildren(...Array.from({ length: depth }, (_, i) => {
      const names = trained.filter((one) => one.skip === i + 1).map((one) => one.name);
      const label = `Clip Skip ${i + 1}${names.length ? `, trained: ${names.join(", ")}` : ""}`;
      return h("button", {
        type: "button", "aria-label": label, class: names.length ? "trained" : null,
        on: { click: () => { focus = i + 1; toggle(i + 1); } },
      }, h("span", { text: String(i + 1) }));
    }));
    at("all-skips").textContent = `1–${depth}`;
    mark();
  }

  group.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, Home: -depth, End: depth }[event.key];
    if (!step) return;
    event.preventDefault();
    event.stopPropagation();
    focus = Math.min(Math.max(focus + step, 1), depth);
    mark();
    group.children[focus - 1].focus();
  });
  /** SDXL's encoders: linked, one number counts for both. */
  function slide(moved, other) {
    if (at("link-skips").getAttribute("aria-pressed") === "true") {
      at(other).value = at(moved).value;
      at(moved).value = at(other).value; // CLIP-L has no more than 12 layers
    }
    tellSlides();
  }

  function tellSlides() {
    const [l, g] = ["skip-l", "skip-g"].map((id) => at(id).value);
    at("skip-l-value").textContent = l;
    at("skip-g-value").textContent = g;
    at("add-skip").textContent = `Add ${l}/${g}`;
  }

  at("skip-l").addEventListener("input", (event) => { event.stopPropagation(); slide("skip-l", "skip-g"); });
  at("skip-g").addEventListener("input", (event) => { event.stopPropagation(); slide("skip-g", "skip-l"); });
  at("link-skips").addEventListener("click", () => {
    const linked = at("link-skips").getAttribute("aria-pressed") !== "true";
    at("link-skips").setAttribute("aria-pressed", String(linked));
    at("link-skips").textContent = linked ? "Linked" : "Not linked";
    if (linked) slide("skip-l", "skip-g");
  });
  at("add-skip").addEventListener("click", () => {
    const pair = at("add-skip").textContent.replace("Add ", "");
    field.value = [field.value.trim().replace(/,$/, ""), pair].filter(Boolean).join(",");
    changed();
  });
  tellSlides();
  field.addEventListener("input", mark);
  for (const button of document.querySelectorAll("[data-range]")) {
    button.addEventListener("click", () => { field.value = button.dataset.range; changed(); });
  }
  at("all-skips").addEventListener("click", () => { field.value = `1-${depth}`; changed(); });

  return {
    columns: () => columns,
    /** Sets how many layers there are, at which Clip Skip models and LoRAs in use were trained, the model's name and its text encoders. */
    set(newDepth, newTrained, newModel, { encoders = 1 } = {}) {
      at("encoders").hidden = encoders < 2;
      model = newModel;
      depth = newDepth;
      trained = newTrained;
      focus = Math.min(focus, depth);
      build();
    },
  };
}
