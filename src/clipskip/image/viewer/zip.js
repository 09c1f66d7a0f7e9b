// A zip file of files that are stored as they are: pictures are compressed already (APPNOTE 6.3.10, sections 4.3.7 to 4.3.16).

const TABLE = Uint32Array.from({ length: 256 }, (_, n) => {
  let c = n;
  for (let k = 0; k < 8; k += 1) c = c & 1 ? 0xedb88320 ^ (c >>> 1) : c >>> 1;
  return c >>> 0;
});

/** CRC-32 of bytes. */
export function crc32(bytes) {
  let c = 0xffffffff;
  for (const byte of bytes) c = TABLE[(c ^ byte) & 0xff] ^ (c >>> 8);
  return (c ^ 0xffffffff) >>> 0;
}

/** The archive of [name, Uint8Array] pairs as a Blob. */
export function zip(files) {
  const parts = [], central = [];
  let at = 0;
  for (const [text, bytes] of files) {
    const name = new TextEncoder().encode(text), crc = crc32(bytes);
    const shared = [20, 0x0800, 0, 0, 0x21, crc, bytes.length, bytes.length, name.length, 0];
    const head = record([[4, 0x04034b50], ...fields(shared)]);
    parts.push(head, name, bytes);
    central.push(record([[4, 0x02014b50], [2, 20], ...fields(shared), [2, 0], [2, 0], [2, 0], [4, 0], [4, at]]), name);
    at += head.length + name.length + bytes.length;
  }
  const size = central.reduce((sum, part) => sum + part.length, 0);
  const end = record([[4, 0x06054b50], [2, 0], [2, 0], [2, files.length], [2, files.length], [4, size], [4, at], [2, 0]]);
  return new Blob([...parts, ...central, end], { type: "application/zip" });
}

/** Version, flags (names are UTF-8), method, time, date, CRC, sizes, lengths of name and extra field. */
const fields = (values) => values.map((value, i) => [[2, 2, 2, 2, 2, 4, 4, 4, 2, 2][i], value]);

function record(values) {
  const bytes = new Uint8Array(values.reduce((sum, [width]) => sum + width, 0)), view = new DataView(bytes.buffer);
  let at = 0;
  for (const [width, value] of values) {
    if (width === 4) view.setUint32(at, value, true);
    else view.setUint16(at, value, true);
    at += width;
  }
  return bytes;
}
