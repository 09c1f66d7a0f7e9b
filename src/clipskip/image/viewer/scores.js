// Scores of a sweep's cells: one drawn over the grid as outline, bar or heat, with the mean and spread of seeds, and badges of columns.

import { at, h, sentence } from "./dom.js";

/** The scores. `hear.changed()` when another score, or another way to draw it, is chosen. */
export function openScores(hear) {
  let measures = [], summary = null, low = 0, high = 1;

  const chosen = () => measures.find((measure) => measure.name === at("score").value) ?? null;

  /** A sweep's scores as they are by now. */
  function open(sweep) {
    measures = sweep.measures ?? [];
    summary = sweep.summary ?? null;
    at("scores").hidden = !measures.length;
    const names = measures.map((measure) => measure.name).join();
    if (at("score").dataset.names !== names) {
      at("score").dataset.names = names;
      at("score").replaceChildren(h("option", { value: "", text: "none" }), ...measures.map((measure) => h("option", { value: measure.name, text: measure.label })));
    }
    const lines = [...(summary?.lines ?? []), ...(summary?.missing ?? [])];
    at("score-lines").replaceChildren(...lines.map((text) => h("li", { text: sentence(text) })));
    at("score-says").hidden = !lines.length;
  }

  /** The range of the chosen score, and how it is drawn. */
  function measure(cells) {
    const { name } = chosen() ?? {}, values = name ? cells.flat().map((cell) => cell.scores?.[name]).filter(Number.isFinite) : [];
    low = values.reduce((least, value) => Math.min(least, value), Infinity);
    high = values.reduce((most, value) => Math.max(most, value), -Infinity);
    at("sheet").dataset.score = values.length ? at("score-as").value : "";
    at("score-as").disabled = !name;
  }

  /** The chosen score of a cell's pictures: {text, said, level 0..1, 1 is best}; null where nothing is measured. */
  function of(places, cellAt) {
    const found = chosen();
    const values = found ? places.map((place) => cellAt(place).scores?.[found.name]).filter(Number.isFinite) : [];
    if (!values.length) return null;
    const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
    const spread = values.length > 1 ? Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (values.length - 1)) : null;
    const share = high > low ? (mean - low) / (high - low) : 1;
    const text = `${shown(mean, found)}${spread === null ? "" : ` ±${shown(spread, found)}`}`;
    return { text, said: `${found.label} ${text}`, level: found.higher_is_better ? share : 1 - share };
  }

  /** All scores of the picture shown. */
  function show(cell) {
    const pairs = measures.filter(({ name }) => Number.isFinite(cell.scores?.[name])).flatMap((one) => [h("dt", { text: one.label }), h("dd", { text: shown(cell.scores[one.name], one) })]);
    at("cell-scores").replaceChildren(...pairs);
    at("cell-scores").hidden = !pairs.length;
  }

  at("score").addEventListener("change", hear.changed);
  at("score-as").addEventListener("change", hear.changed);
  return { open, measure, of, show, badges: (column) => (summary?.badges ?? []).filter((badge) => badge.column === column) };
}

const shown = (value, { unit }) => (unit === "share" ? `${Math.round(100 * value)}%` : String(Number(value.toPrecision(3))));
