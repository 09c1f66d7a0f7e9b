// The one file that a sweep leaves: its pictures are in it, and nothing is asked of anybody.

import { about, at } from "./dom.js";
import { openViewer } from "./viewer.js";

const KEPT = "clipskip.marks.";
const sweep = JSON.parse(at("data").textContent);
const viewer = openViewer({ shown: () => {}, depth: (one) => one.model?.depth ?? 12, marked: keep, forms, dialects });

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

/** The forms that the page carries: of texts that are much alike, each line once. */
function forms(cell, [r, c]) {
  const { names, lines, cells } = sweep.forms ?? {};
  if (!cells?.[r]?.[c]) return { error: "This page carries no forms of this picture: open the sweep in clipskip serve." };
  const text = (numbers) => numbers.map((number) => lines[number]);
  return { forms: cells[r][c].map(([body, notes, error], i) => ({ tool: names[i][0], file: names[i][1], text: text(body).join("\n"), notes: text(notes), error })) };
}

function dialects(_, column) {
  const rows = sweep.dialects?.[sweep.columns.indexOf(column)];
  return rows ? { rows } : { error: "This page carries no numbers of other tools." };
}

const marks = kept(sweep);
at("sweep-prompt").textContent = marks?.name || sweep.prompt || "No prompt";
at("sweep-about").textContent = about(sweep);
viewer.open(sweep, { ended: true, kept: marks });
