// Elements from data: text goes in as text, never as markup.

export const at = (id) => document.getElementById(id);

const PROPERTIES = new Set(["hidden", "disabled", "checked", "value", "htmlFor", "tabIndex", "selected", "open"]);

/** An element. Keys of `props`: class, text, on {event: listener}, properties above, else attributes. */
export function h(tag, props = {}, ...children) {
  return fill(document.createElement(tag), props, children);
}

/** The same for SVG. */
export function svg(tag, props = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), props, children);
}

function fill(element, props, children) {
  for (const [key, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (key === "text") element.textContent = value;
    else if (key === "on") for (const [name, listener] of Object.entries(value)) element.addEventListener(name, listener);
    else if (PROPERTIES.has(key)) element[key] = value;
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Says something to screen readers, politely. */
export function say(text) {
  at("say").textContent = text;
}

/** Shows a line at the top of the page, with at most one thing to do about it. */
export function notice(text, action = null, { bad = false } = {}) {
  at("notice").hidden = false;
  at("notice").classList.toggle("bad", bad);
  at("notice-text").textContent = text;
  at("notice-action").hidden = action === null;
  at("notice-action").onclick = null;
  if (action === null) return;
  at("notice-action").textContent = action.label;
  at("notice-action").onclick = () => { closeNotice(); action.run(); };
}

export function closeNotice() {
  at("notice").hidden = true;
  at("notice-text").textContent = "";
}

/** Copies text; where the browser refuses, shows it selected. The button says which. */
export async function copy(text, button) {
  const before = button.dataset.label ?? button.textContent;
  button.dataset.label = before;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
    say("Copied.");
  } catch {
    showToCopy(text, button);
    return;
  }
  clearTimeout(Number(button.dataset.timer));
  button.dataset.timer = setTimeout(() => { button.textContent = before; }, 1600);
}

function showToCopy(text, button) {
  const box = h("textarea", { class: "to-copy", rows: 4, "aria-label": "Copy this text", readonly: true, value: text });
  button.after(box);
  box.addEventListener("blur", () => box.remove());
  box.focus();
  box.select();
  say("The browser does not let this page copy: the text is selected, press Ctrl+C.");
}

/** 58468454 -> 58 MB */
export function size(bytes) {
  const units = ["bytes", "kB", "MB", "GB"];
  const step = Math.min(units.length - 1, Math.floor(Math.log10(Math.max(bytes, 1)) / 3));
  const value = bytes / 1000 ** step;
  return `${value >= 10 || step === 0 ? Math.round(value) : value.toFixed(1)} ${units[step]}`;
}

/** 95 -> 1 min 35 s */
export function duration(seconds) {
  const whole = Math.max(1, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}

export const plural = (count, one, many = `${one}s`) => `${count} ${count === 1 ? one : many}`;

/** A note as a sentence. A first word that may be a name stays as it is. */
export const sentence = (text) => text.replace(/^[a-z]+(?=\s)/, (word) => word[0].toUpperCase() + word.slice(1)).replace(/([^.!?])$/, "$1.");

/** Model, seed and date of a sweep, as far as they are known. */
export function about(sweep) {
  const when = new Date(sweep.created);
  const date = Number.isNaN(when.getTime()) ? null : when.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
  return [sweep.model?.name, sweep.seed == null ? null : `seed ${sweep.seed}`, date].filter(Boolean).join(" · ");
}
