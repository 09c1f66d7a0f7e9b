// What a server adds to the picture that is shown: its settings for the form, and the files of its sweep.

import { ApiError, api } from "./api.js";
import { at, h } from "./dom.js";

/** What can be done with the picture shown. `hear.reuse(settings)` puts its settings into the form. */
export function openWinner(hear) {
  let settings = null;

  function show(sweep, cell) {
    settings = cell?.settings ?? null;
    at("reuse").disabled = settings === null;
    const table = (kind) => `/v1/sweeps/${encodeURIComponent(sweep.id)}/table.${kind}`;
    const made = [["Grid", sweep.grid, true], ["Page", sweep.page, false], ["Manifest", sweep.manifest, true], ["Table (CSV)", table("csv"), true], ["Table (Parquet)", table("parquet"), true]].filter(([, url]) => url);
    at("links").replaceChildren(...made.map(([text, url, save]) => h("a", { href: url, text, download: save, target: save ? null : "_blank", rel: save ? null : "noopener" })));
  }

  at("reuse").addEventListener("click", () => hear.reuse(settings));
  return { show };
}

/** What the server answers, or {error} in words. */
async function answered(asked) {
  try {
    return await asked;
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    return { error: error.message };
  }
}

export const formsOf = (cell) => answered(api.forms(cell.image));
export const dialectsOf = (sweep, column) => answered(api.dialects({ clip_skip: column.clip_skip, family: sweep.model?.family ?? "sd1" }));
