// An animated WebP of frames that the browser has encoded (WebP Container Specification, Extended File Format).

const FRAME_CHUNKS = new Set(["ALPH", "VP8 ", "VP8L"]);
const ANIMATED = 0x02, DO_NOT_BLEND = 0x02;

/** One file of still WebP files, Uint8Arrays of one size, each shown for `ms` milliseconds, over and over. */
export function animate(stills, { width, height, ms }) {
  const size = [...uint(width - 1, 3), ...uint(height - 1, 3)];
  const frames = stills.map((still) => chunk("ANMF", [Uint8Array.from([...uint(0, 6), ...size, ...uint(ms, 3), DO_NOT_BLEND]), ...frameOf(still)]));
  const body = [chunk("VP8X", [Uint8Array.from([ANIMATED, 0, 0, 0, ...size])]), chunk("ANIM", [new Uint8Array(6)]), ...frames];
  return new Blob([chunk("RIFF", [ascii("WEBP"), ...body])], { type: "image/webp" });
}

/** The chunks of a still WebP that are its picture. */
function frameOf(still) {
  const view = new DataView(still.buffer, still.byteOffset, still.byteLength), found = [];
  for (let at = 12; at + 8 <= still.length;) {
    const length = view.getUint32(at + 4, true), end = at + 8 + length + (length % 2);
    if (FRAME_CHUNKS.has(String.fromCharCode(...still.subarray(at, at + 4)))) found.push(still.subarray(at, end));
    at = end;
  }
  return found;
}

/** A chunk: four letters, the length of what follows, and that, filled up to an even number of bytes. */
function chunk(name, parts) {
  const length = parts.reduce((sum, part) => sum + part.length, 0), bytes = new Uint8Array(8 + length + (length % 2));
  bytes.set(ascii(name));
  bytes.set(uint(length, 4), 4);
  let at = 8;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

const ascii = (text) => Uint8Array.from(text, (letter) => letter.charCodeAt(0));

/** A whole number in so many bytes, the lowest first. */
const uint = (value, bytes) => Array.from({ length: bytes }, (_, i) => Math.floor(value / 256 ** i) % 256);
