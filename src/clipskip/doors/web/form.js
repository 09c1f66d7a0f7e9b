// The form: what to draw. It keeps a draft in this browser, and shows each refusal at its field.

import { ApiError, api } from "./api.js";
import { openChooser } from "./chooser.js";
import { at, h, notice, plural, sentence } from "./dom.js";
import { openLoras } from "./loras.js";
import { openPicker } from "./picker.js";
import { openReading } from "./reading.js";
import { openVarying } from "./varying.js";

const DRAFT = "clipskip.draft", STARTER = "starter";
const TEXTS = ["prompt", "negative_prompt", "clip_skips", "negative_clip_skip", "seed"];
const NUMBERS = ["steps", "cfg_scale", "width", "height"];
const HIRES = ["hires_scale", "hires_denoising_strength", "hires_steps"];
const CHOICES = ["sampler", "scheduler"];
const DEFAULTS = { clip_skips: "1-5", steps: 20, cfg_scale: 7, seed: "-1", sampler: "Euler a", scheduler: "Automatic" };
const HIRES_DEFAULTS = { hires_upscaler: "Latent", hires_denoising_strength: 0.7 };
const OWN_SIZE = "own size";
const MOST_SHOWN = 160;
const DOUBTED = ["model", "prompt", "loras", "width"], PAUSE_MS = 500;
const SAME_FIELD = { clip_skip: "clip_skips", lora: "loras", cfg: "cfg_scale", size: "width", negative: "negative_prompt", embedding: "prompt", axis: "axes" };

/** A value that settings have and nobody uses, short enough to be read over the page. */
const brief = (text) => (text.length > MOST_SHOWN ? `${text.slice(0, MOST_SHOWN).trimEnd()}… (${text.length} characters)` : text);

/** The form. `hear` has start(body) and model(file): a sweep is asked for; another checkpoint is chosen. */
export function openForm(hear) {
  let files = { models: [], loras: [], embeddings: [], upscalers: [] }, plain = [], reading = "", settings = null, tags = [], busy = false, begun = false, unanswered = false;
  let modelName = "", pictures = null;
  const touched = new Set();
  const loras = openLoras({ changed, word: addWord, model });
  const models = openPicker(at("model"), at("model-list"), {
    name: () => modelName,
    facts: (file) => [file.title, file.family, file.layers ? `${file.layers} layers` : null, file.trained_clip_skip ? `trained at Clip Skip ${file.trained_clip_skip}` : null].filter(Boolean).join(" · "),
    unfit: (file) => (file.layers || !file.warnings.length ? null : file.warnings[0]),
    taken: (file) => { touched.add("model"); chooseModel(file.name); },
  });
  const chooser = openChooser(count);
  const varying = openVarying({ changed: () => { at("axes-error").textContent = ""; pictures = null; stopAsking(); keep(); check(); } });
  const context = () => ({ steps: at("steps").validity.valid && whole("steps") ? whole("steps") : DEFAULTS.steps, model: known() ? modelName : null, loras: loras.values() });
  const readings = [
    openReading("prompt", { negative: false, context, hear: (report) => { tags = report.loras.map((lora) => lora.name); trained(); } }),
    openReading("negative_prompt", { negative: true, context, hear: () => {} }),
  ];

  function changed() {
    at("loras-error").textContent = "";
    keep();
    trained();
    if (begun) check();
  }

  function model() {
    return files.models.find((file) => file.name === modelName) ?? null;
  }

  const known = () => model() !== null;

  /** Another checkpoint; the one of settings that is not here stays named until one is chosen. */
  function chooseModel(name) {
    modelName = name;
    models.show();
    at("model-error").textContent = "";
    showModel();
    loras.modelChanged();
    keep();
    check();
  }

  /** Tells the chooser how deep the model is, and what was trained where. */
  function trained() {
    const file = model(), names = new Set([...loras.values().map((one) => one.name), ...tags]);
    const called = (lora) => names.has(lora.name) || (names.has(lora.alias) && !files.loras.some((other) => other.name === lora.alias));
    const marks = [file, ...files.loras.filter(called)]
      .filter((one) => one?.trained_clip_skip)
      .map((one) => ({ name: one.name, skip: one.trained_clip_skip }));
    chooser.set(file?.layers ?? 12, marks, file?.name ?? null, { encoders: file?.family === "SDXL" ? 2 : 1 });
  }

  function count() {
    const columns = chooser.columns(), rows = loras.values().length + tags.length > 0 ? 2 : 1;
    const number = varying.texts().length ? pictures : columns && columns.length * rows;
    at("clip_skips-count").textContent = columns ? plural(columns.length, "column") : "";
    at("start").textContent = busy ? "Starting…" : number ? `Sweep: ${plural(number, "picture")}` : "Sweep";
  }

  function showModel() {
    const file = model(), missing = modelName && !file && !reading;
    at("model-error").textContent = missing ? `${modelName} is not in the folders: choose another, or put it there and look again.` : "";
    at("model").toggleAttribute("aria-invalid", Boolean(missing));
    const facts = file ? [file.family, file.layers ? `${file.layers} layers of ${file.width}` : null, file.trained_clip_skip ? `trained at Clip Skip ${file.trained_clip_skip}` : null] : [];
    at("model-about").textContent = [...facts.filter(Boolean), ...(file?.warnings ?? []), file ? "" : reading].filter(Boolean).join(" · ");
    trained();
    hear.model(file);
  }

  function addWord(word) {
    const box = at("prompt"), words = box.value.split(",").map((one) => one.trim().toLowerCase());
    if (!words.includes(word.toLowerCase())) box.value = [box.value.trim().replace(/,$/, ""), word].filter(Boolean).join(", ");
    box.dispatchEvent(new Event("input", { bubbles: true }));
    notice(`“${word}” is in the prompt.`);
  }

  function values() {
    return {
      prompt: at("prompt").value,
      negative_prompt: at("negative_prompt").value,
      model: modelName || null,
      loras: loras.values(),
      clip_skips: at("clip_skips").value,
      axes: varying.lines(),
      negative_clip_skip: at("negative_clip_skip").value.trim() || null,
      steps: whole("steps"),
      sampler: at("sampler").value,
      scheduler: at("scheduler").value,
      cfg_scale: whole("cfg_scale"),
      seed: at("seed").value.trim(),
      width: whole("width"),
      height: whole("height"),
      ...second(),
    };
  }

  /** The second pass, where its size is given. */
  function second() {
    if (whole("hires_scale") === null) return {};
    const numbers = HIRES.map((id) => [id, whole(id)]).filter(([, value]) => value !== null);
    return { hires_upscaler: at("hires_upscaler").value, ...Object.fromEntries(numbers) };
  }

  /** Shows the second pass of a request; one to a size stays with the settings that have it. */
  function showSecond(request) {
    const sized = request.hires_width || request.hires_height;
    for (const id of HIRES) at(id).value = (sized ? null : request[id]) ?? HIRES_DEFAULTS[id] ?? "";
    listUpscalers(request.hires_upscaler ?? HIRES_DEFAULTS.hires_upscaler);
    at("hires").open ||= at("hires_scale").value !== "";
  }

  /** Fills the list of upscalers, with the one that is `chosen`, of the folders or not. */
  function listUpscalers(chosen) {
    const names = [...plain, ...files.upscalers.map((file) => file.name)];
    if (chosen && !names.includes(chosen)) names.push(chosen);
    at("hires_upscaler").replaceChildren(...names.map((name) => h("option", { value: name, text: name })));
    if (chosen) at("hires_upscaler").value = chosen;
  }

  const whole = (id) => (at(id).value === "" ? null : Number(at(id).value));

  function body() {
    const asked = values();
    if (!/^-?\d+$/.test(asked.seed)) throw new ApiError("Give a whole number; -1 draws a new one.", { field: "seed" });
    for (const id of ["steps", "cfg_scale"]) if (asked[id] === null) throw new ApiError("Give a number.", { field: id });
    const skip = asked.negative_clip_skip;
    return { ...asked, settings, previews: true, axes: varying.texts(), negative_clip_skip: skip !== null && /^[\d.]+$/.test(skip) ? Number(skip) : skip };
  }

  /** Keeps a draft once there is one: until then fields are empty because nothing has filled them. */
  function keep() {
    if (!begun) return;
    try {
      localStorage.setItem(DRAFT, JSON.stringify({ ...values(), settings }));
    } catch {
      // A browser that keeps nothing: the form works without its draft.
    }
    count();
  }

  function draft() {
    try {
      return JSON.parse(localStorage.getItem(DRAFT)) ?? {};
    } catch {
      return {};
    }
  }

  /** Fills the fields that `request` has; the others stay. */
  function fill(request) {
    if (request.clip_skip && !request.clip_skips) request = { ...request, clip_skips: around(request.clip_skip) };
    for (const id of [...TEXTS, ...NUMBERS]) if (request[id] !== undefined) at(id).value = request[id] ?? "";
    for (const id of CHOICES) if (request[id]) choose(id, request[id]);
    if (request.model) { modelName = sameName(request.model); models.show(); }
    if (request.loras) loras.set(request.loras);
    if (request.axes) varying.set(request.axes);
    if (request.prompt !== undefined) showSecond(request);
    settings = request.settings ?? null;
    at("based").hidden = settings === null;
    showModel();
    clearErrors();
    keep();
    readings.forEach((reading) => reading.ask());
    check();
  }

  function choose(id, value) {
    const options = [...at(id).options];
    const same = options.find((option) => option.value.toLowerCase() === String(value).toLowerCase());
    if (same) at(id).value = same.value;
  }

  const sameName = (name) => files.models.find((file) => file.name.toLowerCase() === String(name).toLowerCase())?.name ?? name;

  /** From somebody's Clip Skip to a sweep that has it. */
  const around = (skip) => (Number.isInteger(Number(skip)) ? `1-${Math.max(5, Number(skip))}` : `1-5,${skip}`);

  let pausing = 0, checking = null;

  /** Asks the server, after a pause in typing, what of this is likely not meant, and says it where it is chosen. */
  function check() {
    clearTimeout(pausing);
    checking?.abort();
    pausing = setTimeout(async () => {
      checking = new AbortController();
      try {
        const found = await api.check(body(), checking.signal);
        tellDoubts(found.doubts);
        varying.told(found.axes);
        at("axes-doubt").textContent = found.left_out.map((line) => `Left out: ${sentence(line)}`).join(" ");
        pictures = found.pictures;
        at("axes-error").textContent = "";
        count();
      } catch (error) {
        if (error.name === "AbortError") return;
        if (!(error instanceof ApiError)) throw error;
        tellDoubts([]);
        at("axes-doubt").textContent = "";
        const name = fieldOf(error);
        if (["model", "loras", "prompt", "clip_skips", "width", "axes", "hires_scale", "hires_upscaler"].includes(name) && error.status) at(`${name}-error`).textContent = sentence(error.message);
      }
    }, PAUSE_MS);
  }

  function tellDoubts(doubts) {
    for (const id of DOUBTED) at(`${id}-doubt`).textContent = doubts.filter((one) => one.field === id).map((one) => sentence(one.text)).join(" ");
    return doubts;
  }

  /** Whether to draw with these doubts: asked over the button, answered by a click. */
  function ask(doubts) {
    at("ask-doubts").replaceChildren(...doubts.map((one) => h("li", { text: sentence(one.text) })));
    at("ask").hidden = false;
    at("ask-size").hidden = !doubts.some((one) => one.field === "width");
    (at("ask-size").hidden ? at("ask-yes") : at("ask-size")).focus();
    return new Promise((answer) => {
      at("ask-yes").onclick = () => answer(true);
      at("ask-size").onclick = () => { at("width").value = at("height").value = ""; keep(); answer(OWN_SIZE); };
      at("ask-no").onclick = () => answer(false);
      stopAsking = () => answer(false);
    }).finally(() => { at("ask").hidden = true; });
  }

  let stopAsking = () => {};

  const fieldOf = (error) => { const name = (error.field ?? "").split(/[.[]/)[0]; return SAME_FIELD[name] ?? name; };

  function clearErrors() {
    for (const line of at("form").querySelectorAll(".error[id]")) line.textContent = "";
    for (const field of at("form").querySelectorAll("[aria-invalid]")) field.removeAttribute("aria-invalid");
  }

  /** Shows a refusal at the field that it names, else above the button. */
  function showError(error) {
    unanswered = !error.status;
    const id = fieldOf(error), line = id ? at(`${id}-error`) : null;
    (line && at("form").contains(line) ? line : at("form-error")).textContent = sentence(error.message);
    const field = id === "loras" ? at("add-lora") : at(id);
    if (!line || !field) return;
    field.setAttribute("aria-invalid", "true");
    field.closest("details")?.setAttribute("open", "");
    field.focus();
    field.scrollIntoView({ block: "center" });
  }

  async function start(event) {
    event?.preventDefault();
    if (busy) return;
    clearErrors();
    busy = true;
    count();
    try {
      await askAndStart();
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      showError(error);
    } finally {
      busy = false;
      count();
    }
  }

  /** Starts what nothing is odd about, or what is confirmed; without its size it is looked at once more. */
  async function askAndStart() {
    const asked = body(), { doubts } = await api.check(asked);
    const answer = !tellDoubts(doubts).length || await ask(doubts);
    if (answer === OWN_SIZE) await askAndStart();
    else if (answer) await hear.start(asked);
  }

  /** Reads a settings text or a picture into the form; what was there can be had back. */
  async function load(source) {
    const before = { ...values(), settings };
    try {
      const text = typeof source === "string" ? source : null;
      const answer = await (text === null ? api.settingsFile(source) : api.settingsText(text));
      const whole_text = answer.text ?? text, seed = /\bSeed: (\d+)/.exec(whole_text ?? "")?.[1];
      fill({ ...answer.request, seed: Number.isSafeInteger(answer.request.seed) ? answer.request.seed : seed, settings: whole_text });
      const unused = answer.unused.length ? ` Not used: ${answer.unused.slice(0, 40).map(([name, value]) => `${name}: ${brief(value)}`).join("; ")}${answer.unused.length > 40 ? `; and ${answer.unused.length - 40} more` : ""}.` : "";
      const left = answer.left_out.length ? ` Left out: ${answer.left_out.join(", ")}.` : "";
      notice(`The form is filled from ${text === null ? source.name : "these settings"}.${unused}${left}`, { label: "Undo", run: () => fill(before) });
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      if (typeof source !== "string") { notice(`${source.name}: ${error.message}`); return; }
      at("png-info").open = true;
      showError(new ApiError(error.message, { field: "settings" }));
    }
  }

  function listen() {
    at("form").addEventListener("submit", start);
    at("form").addEventListener("input", (event) => {
      touched.add(event.target.id);
      event.target.removeAttribute("aria-invalid");
      if (event.target.id && at(`${event.target.id}-error`)) at(`${event.target.id}-error`).textContent = "";
      at("form-error").textContent = "";
      if (event.target.id === "prompt") at("loras-error").textContent = "";
      stopAsking();
      keep();
      if (["prompt", "width", "height", "clip_skips", "seed", "steps", "hires_scale", "hires_upscaler"].includes(event.target.id)) check();
    });
    at("form").addEventListener("keydown", (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) start(event); });
    at("steps").addEventListener("change", () => readings.forEach((reading) => reading.ask()));
    at("forget").addEventListener("click", () => { settings = null; at("based").hidden = true; keep(); check(); at("start").focus(); });
    at("read-settings").addEventListener("click", () => load(at("settings").value));
    at("prompt").addEventListener("paste", (event) => {
      const text = event.clipboardData?.getData("text") ?? "";
      if (!/(^|\n)\s*Steps: *\d/.test(text)) return;
      event.preventDefault();
      load(text);
    });
  }
  listen();

  return {
    fill,
    load,
    showError,
    addLora: (name) => loras.add(name),
    addWord,
    useModel: (name) => fill({ model: name, settings }),
    files: () => files,
    /** The server answers again: that it did not is no longer said. */
    answered() { if (unanswered) at("form-error").textContent = ""; unanswered = false; },
    /** What the folders have; `progress` says how far they are read, null when they all are. */
    setFiles(found, progress) {
      files = found;
      reading = progress ?? "";
      modelName = modelName ? sameName(modelName) : found.models.find((file) => file.name === STARTER)?.name ?? found.models[0]?.name ?? "";
      models.set(found.models, progress);
      loras.setKnown(found.loras, progress);
      listUpscalers(at("hires_upscaler").value);
      showModel();
    },
    /** Once, when samplers are known: the draft, or what the command line starts with, in fields that nobody has touched yet. */
    begin({ samplers, schedulers, upscalers, axes }) {
      varying.setKinds(axes);
      plain = upscalers;
      listUpscalers(HIRES_DEFAULTS.hires_upscaler);
      at("hires_denoising_strength").value = HIRES_DEFAULTS.hires_denoising_strength;
      at("sampler").replaceChildren(...samplers.map((one) => h("option", { value: one.name, text: one.name })));
      at("scheduler").replaceChildren(...schedulers.map((one) => h("option", { value: one.name, text: one.label ?? one.name })));
      const kept = { ...DEFAULTS, ...draft() };
      begun = true;
      if (loras.values().length) delete kept.loras;
      fill(Object.fromEntries(Object.entries(kept).filter(([id]) => !touched.has(id))));
    },
  };
}
