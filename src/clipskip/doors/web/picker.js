// A text field that finds one of thousands of files: typed words narrow the list, arrows move, Enter takes.

import { h } from "./dom.js";

const MOST_SHOWN = 50;

/** Every word that a file is found by, in small letters. */
export function wordsOf(file) {
  const words = [file.name, file.alias, file.title, file.file, file.made_for, file.family, file.hash, ...(file.trigger_words ?? []), ...Object.keys(file.tag_counts ?? {})];
  return words.filter(Boolean).join(" ").toLowerCase();
}

/** Those of `files`, each with its `words`, that have all words of the text; names that begin with it come first. */
export function search(files, text) {
  const wanted = text.trim().toLowerCase(), parts = wanted.split(/\s+/).filter(Boolean);
  if (!parts.length) return files;
  const ranks = [[], [], []];
  for (const file of files) {
    if (!parts.every((part) => file.words.includes(part))) continue;
    const begins = file.words.startsWith(wanted); // the name comes first among its words
    ranks[begins ? (file.name.length === wanted.length ? 0 : 1) : 2].push(file);
  }
  return ranks.flat();
}

/** What the notes beside a file say of how to use it. */
export const advised = (file) => [file.advised_weight ? `weight ${file.advised_weight} advised` : null, file.advised_clip_skip ? `Clip Skip ${file.advised_clip_skip} advised` : null];

/** A picture that lies beside a file, or an empty place of its size. */
export function previewOf(file) {
  return file.preview ? h("img", { class: "preview", src: file.preview, alt: "", loading: "lazy", decoding: "async" }) : h("span", { class: "preview" });
}

/**
 * Makes a picker of an input and its list. `hear.taken(file)` when one is chosen; `hear.facts(file)` gives its line,
 * `hear.unfit(file)` why it does not fit or null, `hear.name()` what the field says while nothing is typed.
 */
export function openPicker(input, list, hear) {
  let files = [], hits = [], at = 0, reading = null, found = null;

  const isOpen = () => !list.hidden;

  function open() {
    found = null;
    list.hidden = false;
    input.setAttribute("aria-expanded", "true");
    find();
  }

  function close() {
    list.hidden = true;
    input.setAttribute("aria-expanded", "false");
    input.removeAttribute("aria-activedescendant");
    input.value = hear.name();
  }

  function find() {
    const text = input.value === hear.name() ? "" : input.value;
    hits = search(found !== null && text.startsWith(found) ? hits : files, text); // more letters leave fewer
    found = text;
    at = Math.max(0, text ? 0 : hits.findIndex((file) => file.name === hear.name()));
    show();
  }

  function show() {
    const first = Math.max(0, Math.min(at - Math.floor(MOST_SHOWN / 2), hits.length - MOST_SHOWN)), some = hits.slice(first, first + MOST_SHOWN);
    const more = hits.length - some.length;
    list.replaceChildren(...some.map((file, i) => option(file, first + i)),
      ...(more > 0 ? [h("li", { class: "more", role: "presentation", text: `${more} more: type a part of the name, a trigger word or a tag` })] : []),
      ...(hits.length ? [] : [h("li", { class: "more", role: "presentation", text: files.length ? "None has these words." : reading ?? "None found in the folders." })]));
    mark();
  }

  function option(file, index) {
    const unfit = hear.unfit(file);
    return h("li", { role: "option", id: `${list.id}-${index}`, "data-index": index, class: unfit ? "unfit" : null, on: {
      pointerdown: (event) => { event.preventDefault(); take(file); },
    } }, previewOf(file), h("span", { class: "what" }, h("span", { class: "name", text: file.name }), h("span", { class: "about", text: [unfit, hear.facts(file)].filter(Boolean).join(" · ") })));
  }

  function mark() {
    for (const one of list.querySelectorAll("[role=option]")) one.setAttribute("aria-selected", String(Number(one.dataset.index) === at));
    const now = list.querySelector("[aria-selected=true]");
    if (now) input.setAttribute("aria-activedescendant", now.id);
    else input.removeAttribute("aria-activedescendant");
    now?.scrollIntoView({ block: "nearest" });
  }

  function move(step) {
    if (!hits.length) return;
    at = (at + step + hits.length) % hits.length;
    if (list.querySelector(`[data-index="${at}"]`)) mark();
    else show();
  }

  function take(file) {
    hear.taken(file);
    close();
  }

  input.addEventListener("focus", () => input.select());
  input.addEventListener("click", () => { if (!isOpen()) open(); });
  input.addEventListener("input", (event) => { event.stopPropagation(); if (isOpen()) find(); else open(); });
  input.addEventListener("blur", close);
  input.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const keys = {
      ArrowDown: () => (isOpen() ? move(1) : open()),
      ArrowUp: () => (isOpen() ? move(-1) : open()),
      Enter: () => { if (isOpen() && hits[at]) take(hits[at]); else if (!isOpen()) open(); },
      Escape: isOpen() ? close : null,
    };
    if (!keys[event.key]) return;
    event.preventDefault();
    event.stopPropagation();
    keys[event.key]();
  });

  return {
    show: close,
    /** The files to choose from; `progress` says how far they are read. */
    set(all, progress = null) {
      files = all;
      found = null;
      reading = progress;
      if (isOpen()) find();
      else close();
    },
  };
}
