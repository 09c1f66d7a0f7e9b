// Clip Skips as people type them: "1-5", "1,2,4", "1-3:0.5", "1,[1:2:0.5]". The server has the last word.

/** The columns that the text names, numbers or schedules as text; null where it cannot be read yet. */
export function readSkips(text) {
  const columns = [];
  for (const part of text.match(/\[[^\]]*\]|[^,]+/g) ?? []) {
    const found = readPart(part.trim());
    if (found === null) return null;
    columns.push(...found);
  }
  return columns.length ? columns : null;
}

function readPart(part) {
  if (/^\[.+\]$/.test(part)) return [part];
  if (/^\d+(\.\d+)?$/.test(part)) return [Number(part)];
  const span = /^(\d+(?:\.\d+)?)\s*-\s*(\d+(?:\.\d+)?)\s*(?::\s*(\d+(?:\.\d+)?))?$/.exec(part);
  if (!span) return null;
  const first = Number(span[1]), last = Number(span[2]), step = Number(span[3] ?? 1);
  if (last < first || step <= 0 || (last - first) / step > 1000) return null;
  const count = Math.floor((last - first) / step + 1e-9) + 1;
  return Array.from({ length: count }, (_, i) => Number((first + i * step).toFixed(6)));
}

/** [1, 2, 3, 5] -> "1-3,5" */
export function writeSkips(numbers) {
  const sorted = [...new Set(numbers)].sort((a, b) => a - b);
  const runs = [];
  for (const n of sorted) {
    const run = runs.at(-1);
    if (run && n === run[1] + 1) run[1] = n;
    else runs.push([n, n]);
  }
  return runs.map(([a, b]) => (a === b ? `${a}` : b === a + 1 ? `${a},${b}` : `${a}-${b}`)).join(",");
}
