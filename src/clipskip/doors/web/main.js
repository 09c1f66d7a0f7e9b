// The page's start: which part is shown, what is dropped on it, and what the server is doing.

import { ApiError, api } from "./api.js";
import { at, closeNotice, h, notice, sentence } from "./dom.js";
import { openForm } from "./form.js";
import { listenToHistory, showHistory } from "./history.js";
import { drawLayers } from "./layers.js";
import { openLibrary } from "./library.js";
import { openSweeps } from "./sweep.js";

const STATUS_MS = 5000, LOOKING_MS = 300;
const PAGES = ["sweep", "models", "history"];

let gone = false;
let example = { depth: 12, skip: 2 };

const form = openForm({
  async start(body) {
    const sweep = await api.start(body);
    sweeps.begin(sweep);
    closeNotice();
    if (sweep.warnings.length) notice(sweep.warnings.map(sentence).join(" "));
    go(`#/sweep/${encodeURIComponent(sweep.id)}`);
    bringIntoView();
    at("main").focus({ preventScroll: true });
    status();
  },
  model(file) {
    example = { depth: file?.layers ?? 12, skip: file?.trained_clip_skip ?? 2 };
    explain();
  },
});

const sweeps = openSweeps({
  ended: status,
  layers: (name) => form.files().models.find((file) => file.name === name)?.layers ?? null,
  reuse(settings) {
    form.load(settings);
    at("form").scrollIntoView({ block: "start" });
    at("prompt").focus();
  },
});

const library = openLibrary({
  files: (found, progress) => form.setFiles(found, progress),
  useModel(name) { useModel(name); go("#/"); },
  addLora(name) { addLora(name); go("#/"); },
  addWord: (word) => form.addWord(word),
});

function useModel(name) {
  form.useModel(name);
  notice(`The checkpoint is ${name}.`);
}

function addLora(name) {
  form.addLora(name);
  notice(`LoRA ${name} is added.`);
}

/** Where the form is long, or the window narrow, the pictures are out of sight: go there. */
function bringIntoView() {
  const { top } = at("main").getBoundingClientRect();
  if (top < 0 || top > window.innerHeight / 2) at("main").scrollIntoView({ block: "start" });
}

function explain() {
  const { depth, skip } = example;
  at("layers").replaceChildren(drawLayers(depth, skip));
  at("explain").textContent = `Your prompt runs through ${depth} layers of a text encoder before it becomes a picture. Clip Skip says where to stop: `
    + `1 takes what the last layer says, 2 the layer before it, and so on. When a picture does not follow the prompt, or a LoRA does not show, go up by one or two and look: `
    + `some models and LoRAs were trained at 2. Far up the prompt is lost. Drop a picture that you have here, or write a prompt and choose a LoRA; Sweep draws a row without it and a row with it.`;
}

function go(hash) {
  if (location.hash === hash || (hash === "#/" && location.hash === "")) route();
  else location.hash = hash;
}

async function route() {
  const [page, id] = location.hash.replace(/^#\/?/, "").split("/");
  const name = PAGES.includes(page) ? page : "sweep";
  for (const one of PAGES) at(`page-${one}`).hidden = one !== name;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.page === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (name === "models") library.show();
  if (name === "history") await showHistory();
  if (name !== "sweep") return;
  if (id) await openSweep(decodeURIComponent(id));
  else if (sweeps.current() === null) showFirst(false);
}

async function openSweep(id) {
  try {
    await sweeps.open(id);
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    notice(error.message);
    showFirst(false);
  }
}

function showFirst(back) {
  explain();
  at("sweep").hidden = true;
  at("first").hidden = false;
  at("close-first").hidden = !back;
}

/** What the server is at, with the way to what it draws; a server that is gone is said over the page. */
async function status() {
  try {
    const { queue, device } = await api.status();
    if (gone) { closeNotice(); form.answered(); }
    gone = false;
    const { running } = queue, waiting = queue.waiting ? `, ${queue.waiting} waiting` : "";
    const id = running && running !== "picture" ? running.replace(/^\w+:/, "") : null;
    const doing = running?.includes(":") ? "measuring" : "drawing";
    say(running ? `${doing}${waiting}` : ["ready", device].filter(Boolean).join(" · "), id && `#/sweep/${encodeURIComponent(id)}`);
    at("status").classList.toggle("working", Boolean(running));
    if (id && doing === "drawing") sweeps.heard(id);
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    say("no answer", null);
    at("status").classList.remove("working");
    if (!gone) notice(`${error.message} What you typed is kept in this browser.`, null, { bad: true });
    gone = true;
  }
  at("status").classList.toggle("gone", gone);
}

function say(text, href) {
  at("status-link").hidden = !href;
  at("status-link").textContent = href ? text : "";
  if (href) at("status-link").href = href;
  at("status-text").textContent = href ? "" : text;
}

async function dropped(file) {
  if (/\.(safetensors|ckpt|pt)$/i.test(file.name)) {
    const told = setTimeout(() => notice(`Looking for ${file.name} in the model folders…`), LOOKING_MS);
    const found = await library.named(file.name);
    clearTimeout(told);
    closeNotice();
    if (!found) notice(`${file.name} is not in the model folders. Put it there, then: Models and LoRAs, Look again.`);
    else if (found.kind === "model") useModel(found.name);
    else addLora(found.name);
    return;
  }
  if (/\.(txt|json)$/i.test(file.name) || file.type.startsWith("text/")) file.text().then(form.load);
  else form.load(file);
}

function listenToDrops() {
  let depth = 0;
  const over = (on) => { at("drop").hidden = !on; };
  document.addEventListener("dragenter", (event) => { event.preventDefault(); depth += 1; over(true); });
  document.addEventListener("dragleave", () => { depth -= 1; if (depth <= 0) over(false); });
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    depth = 0;
    over(false);
    go(sweeps.current() ? `#/sweep/${encodeURIComponent(sweeps.current().id)}` : "#/");
    const file = event.dataTransfer.files[0], text = event.dataTransfer.getData("text/plain");
    if (file) dropped(file);
    else if (text) form.load(text);
  });
  document.addEventListener("paste", (event) => {
    if (event.defaultPrevented || event.target.closest?.("input, textarea, select")) return;
    const file = event.clipboardData.files[0], text = event.clipboardData.getData("text");
    if (!file && !text.trim()) return;
    event.preventDefault();
    if (file) dropped(file);
    else form.load(text);
  });
  at("picture").addEventListener("change", () => { if (at("picture").files[0]) dropped(at("picture").files[0]); });
}

async function begin() {
  listenToDrops();
  listenToHistory();
  at("notice-close").addEventListener("click", closeNotice);
  at("what").addEventListener("click", () => { showFirst(sweeps.current() !== null); at("first").scrollIntoView({ block: "nearest" }); at("first").focus(); });
  at("open-picture").addEventListener("click", () => { at("png-info").open = true; at("picture").click(); at("picture").focus(); });
  at("close-first").addEventListener("click", () => { at("first").hidden = true; at("sweep").hidden = false; at("what").focus(); });
  window.addEventListener("hashchange", route);
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || event.defaultPrevented || at("notice").hidden) return;
    event.preventDefault();
    closeNotice();
  });
  library.load();
  const routed = route();
  try {
    const [samplers, axes] = await Promise.all([api.samplers(), api.axes()]);
    form.begin({ ...samplers, ...axes });
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    notice(error.message);
  }
  await routed;
  document.body.append(h("span", { id: "ready", hidden: true }));
  status();
  setInterval(() => { if (!document.hidden) status(); }, STATUS_MS);
}

begin();
