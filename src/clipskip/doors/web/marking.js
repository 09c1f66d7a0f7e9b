// A sweep's marks on the server: its name and note over the pictures, and what the viewer has of stars, winner and comparisons.

import { ApiError, api } from "./api.js";
import { at } from "./dom.js";

const TYPING_MS = 400, CONFLICT = 409;

/** Keeps marks. `hear.marks` is the viewer's {value, change, set}; `hear.failed(text)` says what could not be kept. */
export function openMarking(hear) {
  let id = null, revision = 0, last = Promise.resolve();

  /** Another sweep: its marks come when they come. */
  async function open(sweep) {
    id = sweep.id;
    revision = 0;
    title(sweep.name, sweep.prompt);
    const marks = await asked(() => api.marks(sweep.id));
    if (marks && id === sweep.id) take(marks, sweep.prompt);
  }

  function take(marks, prompt) {
    revision = marks.revision;
    hear.marks.set(marks);
    title(marks.name, prompt);
    if (document.activeElement !== at("sweep-note")) at("sweep-note").value = marks.note;
  }

  function title(name, prompt) {
    at("sweep-prompt").textContent = name || prompt || "No prompt";
    at("sweep-words").textContent = name ? prompt : "";
    if (document.activeElement !== at("sweep-name")) at("sweep-name").value = name ?? "";
  }

  /** Keeps a change, one after the other; on top of what somebody else has changed meanwhile it is made once more. */
  function keep(sweep, all, change) {
    title(all.name, sweep.prompt);
    last = last.then(() => asked(async () => {
      try {
        return await api.mark(sweep.id, { ...all, kind: undefined, revision });
      } catch (error) {
        if (!(error instanceof ApiError) || error.status !== CONFLICT) throw error;
        const theirs = await api.marks(sweep.id);
        return api.mark(sweep.id, { ...change(theirs), revision: theirs.revision });
      }
    })).then((kept) => { if (kept && id === sweep.id) revision = kept.revision; });
  }

  async function asked(ask) {
    try {
      return await ask();
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      hear.failed(error.message);
      return null;
    }
  }

  for (const [field, part] of [["sweep-name", "name"], ["sweep-note", "note"]]) {
    let timer = 0;
    at(field).addEventListener("input", () => {
      const of = id, text = at(field).value.trim();
      clearTimeout(timer);
      timer = setTimeout(() => { if (of === id) hear.marks.change((all) => ({ ...all, [part]: text })); }, TYPING_MS);
    });
  }

  const naming = at("sweep-name").closest("details");
  naming.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !naming.open) return;
    event.preventDefault();
    naming.open = false;
    naming.querySelector("summary").focus();
  });

  return { open, keep };
}
