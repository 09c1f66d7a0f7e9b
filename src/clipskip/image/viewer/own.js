// The one file that a sweep leaves: its pictures are in it, and nothing is asked of anybody.

import { at } from "./dom.js";
import { openViewer } from "./viewer.js";

const KEPT = "clipskip.marks.";
const sweep = JSON.parse(at("data").textContent);
const viewer = openViewer({ shown: () => {}, depth: (one) => one.model?.depth ?? 12, marked: keep });

function keep({ id }, marks) {
  try {
    localStorage.setItem(KEPT + id, JSON.stringify(marks));
  } catch {
    // A browser that keeps nothing for files: marks last as long as the page is open.
  }
}

function kept({ id, marks }) {
  try {
    return JSON.parse(localStorage.getItem(KEPT + id)) ?? marks ?? null;
  } catch {
    return marks ?? null;
  }
}

const marks = kept(sweep);
at("sweep-prompt").textContent = marks?.name || sweep.prompt || "No prompt";
viewer.open(sweep, { ended: true, kept: marks });
