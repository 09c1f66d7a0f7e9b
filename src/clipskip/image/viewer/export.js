// What is taken away: the settings and the picture shown, the grid as it is seen, everything in one zip.

import { animate } from "./animate.js";
import { at, copy, h, say } from "./dom.js";
import { MOST_SHOTS } from "./sheet.js";
import { zip } from "./zip.js";

const FRAME_MS = 700, QUALITY = 0.92, LOSSLESS = 1; // Chromium writes WebP without loss where the quality is 1
const MOST_SIDE = 16000, MOST_PIXELS = 200e6, GAP = 8;
const MOST_ZIPPED = 32767, MOST_BYTES = 4e9; // what a zip file counts with 16 and 32 bits: pictures with a text each, and bytes
const LABEL = "16px system-ui, sans-serif", LABEL_PX = 16;

/** The buttons of the panel. `hear.view()` gives what is seen. */
export function openExport(hear) {
  let settings = null, again = null;

  /** Another picture is shown. */
  function show(cell) {
    settings = cell?.settings ?? null;
    at("copy").disabled = settings === null;
    at("cell-settings").textContent = settings ?? "not drawn yet";
    at("save").hidden = !cell?.image;
    if (!cell?.image) return;
    at("save").href = cell.image;
    at("save").download = cell.image.startsWith("data:") ? cell.name ?? "picture.png" : "";
  }

  async function act(button, work) {
    const before = button.textContent;
    button.disabled = true;
    button.textContent = "Working…";
    at("save-error").textContent = "";
    try {
      await work();
    } catch (error) {
      if (!(error instanceof TypeError || error instanceof DOMException || error instanceof RangeError)) throw error;
      at("save-error").textContent = error instanceof RangeError ? error.message : "The browser does not let this page read the pictures beside it: choose the folder that it lies in.";
      at("save-folder").hidden = error instanceof RangeError;
      again = () => act(button, work);
    } finally {
      button.disabled = false;
      button.textContent = before;
    }
  }

  at("folder").addEventListener("change", () => {
    chosen = new Map([...at("folder").files].map((file) => [file.name, file]));
    again?.();
  });
  at("copy").addEventListener("click", () => copy(settings, at("copy")));
  at("save-png").addEventListener("click", () => act(at("save-png"), () => saveSheets(hear.view(), "image/png", "png")));
  at("save-webp").addEventListener("click", () => act(at("save-webp"), () => saveSheets(hear.view(), "image/webp", "webp")));
  at("save-animation").addEventListener("click", () => act(at("save-animation"), () => saveAnimation(hear.view())));
  at("save-zip").addEventListener("click", () => act(at("save-zip"), () => saveZip(hear.view())));
  return { show };
}

function save(blob, name) {
  const url = URL.createObjectURL(blob), link = h("a", { href: url, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 60000);
  say(`${name} is saved.`);
}

/** The files of the folder that somebody has chosen, by name: a page that was opened from disk may read no others. */
let chosen = new Map();
const fileOf = (source) => (source.startsWith("data:") ? null : chosen.get(decodeURIComponent(source.split("/").at(-1))) ?? null);

/** Bytes of a picture, from the server, from the file that shows it, or from the folder. */
async function bytesOf(source) {
  const file = fileOf(source);
  if (file) return new Uint8Array(await file.arrayBuffer());
  if (!source.startsWith("data:")) return new Uint8Array(await (await fetch(source)).arrayBuffer());
  return Uint8Array.from(atob(source.slice(source.indexOf(",") + 1)), (letter) => letter.charCodeAt(0));
}

/** Every picture seen that is drawn, with its settings beside it as text. */
async function saveZip({ lines, sweep, nameOf }) {
  const files = [], places = lines.flatMap((line) => line.all.flat()).filter((place) => place && sweep.cells[place[0]][place[1]].image);
  let size = 0;
  if (places.length > MOST_ZIPPED) throw new RangeError(`A zip file holds ${MOST_ZIPPED} pictures, and these are ${places.length}: leave values out and save them in parts.`);
  for (const place of places) {
    const cell = sweep.cells[place[0]][place[1]];
    const name = (cell.name ?? `row${place[0]}-${nameOf(place)}.png`).replace(/[^\w.,+ -]/g, "_");
    const bytes = await bytesOf(cell.image);
    size += bytes.length;
    if (size > MOST_BYTES) throw new RangeError("A zip file holds 4 GB, and these pictures are larger: leave values out and save them in parts.");
    files.push([name, bytes], [name.replace(/\.png$/, ".txt"), new TextEncoder().encode(cell.settings ?? "")]);
  }
  save(zip(files), `sweep-${sweep.id ?? "pictures"}.zip`);
}

/** How many columns and rows of cells fit one sheet. */
export function sheetSize({ cellWidth, cellHeight, left, top, columns, rows }) {
  const across = Math.max(1, Math.min(columns, Math.floor((MOST_SIDE - left) / (cellWidth + GAP))));
  const width = left + across * (cellWidth + GAP);
  const down = Math.max(1, Math.min(rows, Math.floor((Math.min(MOST_SIDE, MOST_PIXELS / width) - top) / (cellHeight + GAP))));
  return { across, down };
}

/** The grid as it is seen, in as many sheets as it takes. */
async function saveSheets({ heads, lines, sweep }, type, ending) {
  const first = sweep.cells.flat().find((cell) => cell.image);
  if (!first) return;
  const [cellWidth, cellHeight] = sizeOf(await load(first.image));
  const left = Math.min(220, 24 + Math.max(...lines.map((line) => line.name.length)) * 9), top = 2 * LABEL_PX;
  const { across, down } = sheetSize({ cellWidth, cellHeight, left, top, columns: heads.length, rows: lines.length });
  let number = 0;
  for (let j = 0; j < lines.length; j += down) {
    for (let i = 0; i < heads.length; i += across) {
      number += 1;
      const some = lines.slice(j, j + down), canvas = document.createElement("canvas"), across_here = heads.slice(i, i + across);
      canvas.width = left + across_here.length * (cellWidth + GAP);
      canvas.height = top + some.length * (cellHeight + GAP);
      await paint(canvas.getContext("2d"), { heads: across_here, lines: some.map((line) => ({ ...line, all: line.all.slice(i, i + across) })), sweep, cellWidth, cellHeight, left, top });
      const blob = await encoded(canvas, type, QUALITY);
      const all = Math.ceil(lines.length / down) * Math.ceil(heads.length / across);
      save(blob, `sweep-${sweep.id ?? "grid"}${all > 1 ? `-${number}-of-${all}` : ""}.${ending}`);
    }
  }
}

/** A canvas as a file; a browser that does not write this type would write another. */
async function encoded(canvas, type, quality) {
  const blob = await new Promise((done) => { canvas.toBlob(done, type, quality); });
  if (blob?.type !== type) throw new RangeError(`This browser does not write ${type.replace("image/", "").toUpperCase()} files: save a PNG instead.`);
  return blob;
}

/** The pictures of the row that is shown, one after the other. */
async function saveAnimation({ row, sweep }) {
  const pictures = await Promise.all(row.places.filter((place) => place && sweep.cells[place[0]][place[1]].image).map(([r, c]) => load(sweep.cells[r][c].image)));
  if (!pictures.length) return;
  const canvas = document.createElement("canvas"), brush = canvas.getContext("2d", { alpha: false }), stills = [];
  [canvas.width, canvas.height] = sizeOf(pictures[0]);
  for (const picture of pictures) {
    brush.drawImage(picture, 0, 0, canvas.width, canvas.height);
    stills.push(new Uint8Array(await (await encoded(canvas, "image/webp", LOSSLESS)).arrayBuffer()));
  }
  save(animate(stills, { width: canvas.width, height: canvas.height, ms: FRAME_MS }), `sweep-${sweep.id ?? "row"}-row${row.places.find(Boolean)[0]}.webp`);
}

const sizeOf = (picture) => [picture.naturalWidth ?? picture.width, picture.naturalHeight ?? picture.height];

async function paint(brush, { heads, lines, sweep, cellWidth, cellHeight, left, top }) {
  brush.fillStyle = "#fff";
  brush.fillRect(0, 0, brush.canvas.width, brush.canvas.height);
  brush.fillStyle = "#17171b";
  brush.font = LABEL;
  brush.textBaseline = "middle";
  heads.forEach(({ full }, i) => brush.fillText(full, left + i * (cellWidth + GAP), top / 2, cellWidth));
  for (const [j, { name, all }] of lines.entries()) {
    const y = top + j * (cellHeight + GAP);
    brush.fillText(name, GAP, y + cellHeight / 2, left - 2 * GAP);
    for (const [i, places] of all.entries()) {
      const shots = places.slice(0, MOST_SHOTS), side = Math.ceil(Math.sqrt(shots.length)), width = cellWidth / side, height = cellHeight / side;
      for (const [k, [r, c]] of shots.entries()) {
        const { image } = sweep.cells[r][c];
        if (image) brush.drawImage(await load(image), left + i * (cellWidth + GAP) + (k % side) * width, y + Math.floor(k / side) * height, width, height);
      }
    }
  }
}

async function load(source) {
  const file = fileOf(source);
  if (file) return createImageBitmap(file);
  const image = new Image();
  image.src = source;
  await image.decode();
  return image;
}
