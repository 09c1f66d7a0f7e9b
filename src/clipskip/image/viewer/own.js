// The one file that a sweep leaves: its pictures are in it, and nothing is asked of anybody.

import { at } from "./dom.js";
import { openViewer } from "./viewer.js";

const KEPT = "clipskip.stars.";
const sweep = JSON.parse(at("data").textContent);
const viewer = openViewer({ shown: () => {}, depth: (one) => one.model?.depth ?? 12, starred: keep });

function keep({ id }, stars) {
  try {
    localStorage.setItem(KEPT + id, JSON.stringify(stars));
  } catch {
    // A browser that keeps nothing for files: stars last as long as the page is open.
  }
}

function kept({ id }) {
  try {
    return JSON.parse(localStorage.getItem(KEPT + id)) ?? [];
  } catch {
    return [];
  }
}

at("sweep-prompt").textContent = sweep.prompt || "No prompt";
viewer.open(sweep, { ended: true, kept: kept(sweep) });
