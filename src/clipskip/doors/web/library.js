// Models, LoRAs and embeddings of the folders: searched, looked into, used.

import { ApiError, api } from "./api.js";
import { at, h, plural, sentence, size } from "./dom.js";
import { advised, previewOf, search, wordsOf } from "./picker.js";

const AGAIN_MS = 700, MOST_CARDS = 60;

/** The lists. `hear` has files(found), useModel(name), addLora(name), addWord(word). */
export function openLibrary(hear) {
  let files = { models: [], loras: [], embeddings: [], upscalers: [] }, progress = "Looking into the folders…", shown = MOST_CARDS, timer = 0, whole = false;
  const waiting = [];

  function show() {
    const text = at("search").value;
    const shelves = [
      shelf("Models", search(files.models, text), model),
      shelf("LoRAs", search(files.loras, text), lora),
      shelf("Embeddings", search(files.embeddings, text), embedding),
    ];
    at("shelves").replaceChildren(...shelves.map((one) => one.section));
    const found = shelves.reduce((sum, one) => sum + one.count, 0);
    at("found").textContent = [text.trim() ? `${found} found` : "", progress ?? ""].filter(Boolean).join(" · ");
  }

  function shelf(title, found, make) {
    const none = at("search").value ? "None has these words." : progress ?? `No ${title.toLowerCase()} in the folders.`;
    const more = found.length > shown ? h("button", { type: "button", text: `Show more of ${found.length}`, on: { click: () => { shown *= 2; show(); } } }) : null;
    const section = h("section", {}, h("h2", {}, title, h("span", { class: "count", text: ` ${found.length}` })),
      found.length ? h("ul", { class: "shelf" }, ...found.slice(0, shown).map(make)) : h("p", { class: "about", text: none }), more);
    return { section, count: found.length };
  }

  function model(file) {
    return card(file, {
      facts: [file.family, file.layers ? `${file.layers} layers of ${file.width}` : null, size(file.size_bytes), file.hash],
      use: h("button", { type: "button", text: "Use", "aria-label": `Use ${file.name}`, on: { click: () => hear.useModel(file.name) } }),
    });
  }

  function lora(file) {
    const touches = [file.touches.text_encoder ? "text encoder" : null, file.touches.unet ? "U-Net" : null].filter(Boolean).join(" and ");
    const words = file.trigger_words.length ? file.trigger_words : Object.keys(file.tag_counts ?? {}).slice(0, 8);
    return card(file, {
      facts: [file.family, file.rank ? `rank ${file.rank}` : null, size(file.size_bytes), file.hash, touches ? `changes ${touches}` : null],
      use: h("button", { type: "button", text: "Add", "aria-label": `Add LoRA ${file.name}`, on: { click: () => hear.addLora(file.name) } }),
      words: words.length ? h("p", { class: "words" }, file.trigger_words.length ? "Trigger words: " : "Frequent tags: ",
        ...words.map((word) => h("button", { type: "button", class: "word", text: word, "aria-label": `Add ${word} to the prompt`, on: { click: () => hear.addWord(word) } }))) : null,
    });
  }

  function embedding(file) {
    return card(file, {
      facts: [file.vectors ? plural(file.vectors, "vector") : null, file.hash],
      use: h("button", { type: "button", text: "Add", "aria-label": `Add ${file.name} to the prompt`, on: { click: () => hear.addWord(file.name) } }),
    });
  }

  function card(file, { facts, use, words = null }) {
    const trained = file.trained_clip_skip
      ? h("span", { class: "badge", text: `Clip Skip ${file.trained_clip_skip}`, title: `Trained at Clip Skip ${file.trained_clip_skip}${file.trained_clip_skip_source ? ` (${file.trained_clip_skip_source})` : ""}` })
      : null;
    const more = h("details", {}, h("summary", {}, "Details", h("span", { class: "unseen", text: ` of ${file.name}` })));
    more.addEventListener("toggle", () => { if (more.open && more.children.length === 1) look(file, more); });
    return h("li", { class: "card" }, file.preview ? previewOf(file) : null,
      h("div", { class: "row" }, h("h3", { text: file.alias && file.alias !== file.name ? `${file.name} (${file.alias})` : file.name }), trained, use),
      h("p", { class: "about", text: [...facts, file.made_for ? `for ${file.made_for}` : null, ...advised(file)].filter(Boolean).join(" · ") }), words,
      ...(file.warnings ?? []).map((text) => h("p", { class: "warning", text: sentence(text) })), more);
  }

  async function look(file, place) {
    try {
      const { identity, ...rest } = await api.inspect(file.name);
      place.append(tree({ ...identity, ...rest, path: null }));
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      place.append(h("p", { class: "error", text: error.message }));
    }
  }

  /** Asks for the lists, and again for as long as the server reads files that are new to it. */
  async function load() {
    clearTimeout(timer);
    try {
      const found = await api.files();
      for (const file of [...found.models, ...found.loras, ...found.embeddings]) file.words = wordsOf(file);
      files = found;
      progress = found.reading ? `Reading model files${found.reading.total ? `: ${found.reading.done} of ${found.reading.total}` : "…"}` : null;
      whole = !found.reading;
      if (found.reading) timer = setTimeout(load, AGAIN_MS);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      progress = error.message;
      whole = true; // as far as it gets
    }
    for (const go of waiting.splice(0)) go();
    hear.files(files, progress);
    if (!at("page-models").hidden) show();
  }

  at("search").addEventListener("input", () => { shown = MOST_CARDS; show(); });
  at("refresh").addEventListener("click", load);
  return {
    load,
    show,
    /** The file whose name somebody dropped, with its kind, as soon as the lists have it; null when they are whole without it. */
    async named(name) {
      const same = (file) => file.file === name || file.file?.endsWith(`/${name}`) || file.name === name.replace(/\.[^.]+$/, "");
      for (;;) {
        const model = files.models.find(same), lora = files.loras.find(same);
        if (model) return { kind: "model", name: model.name };
        if (lora) return { kind: "lora", name: lora.name };
        if (whole) return null;
        await new Promise((go) => waiting.push(go));
      }
    },
  };
}

/** Any JSON as a list of names and values; what is empty is left out. */
function tree(value) {
  if (Array.isArray(value) && value.every((one) => Array.isArray(one) && one.length === 2 && typeof one[0] === "string")) return tree(Object.fromEntries(value));
  if (Array.isArray(value)) return value.every((one) => typeof one !== "object") ? document.createTextNode(value.join(", ")) : h("ul", {}, ...value.map((one) => h("li", {}, tree(one))));
  if (Number.isInteger(value)) return document.createTextNode(value >= 10000 ? value.toLocaleString() : String(value));
  if (value === null || typeof value !== "object") return document.createTextNode(String(value));
  const pairs = Object.entries(value).filter(([, one]) => one !== null && one !== "" && one !== false && !(typeof one === "object" && Object.keys(one).length === 0));
  return h("dl", {}, ...pairs.flatMap(([name, one]) => [h("dt", { text: name.replaceAll("_", " ") }), h("dd", {}, name === "size" && typeof one === "number" ? size(one) : tree(one))]));
}
