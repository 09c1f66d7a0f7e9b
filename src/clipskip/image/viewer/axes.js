// What a sweep varies, and which of it is seen: one axis across, one down, and of each other axis one value at a time.

const WITHOUT = "without LoRA", ANY = "any";
/** The axis whose pictures may lie together in one cell. */
export const SEED = "seed";

/** The axes of a sweep, Clip Skip first: {name, label, values}, `place` of indices on them, and `on` the indices of a place. */
export function axesOf(sweep) {
  const across = columnAxes(sweep.columns), down = rowAxes(sweep.rows, sweep.axes ?? []);
  const columnAt = new Map(across.on.map((key, c) => [key.join(), c])), rowAt = new Map(down.on.map((key, r) => [key.join(), r]));
  const count = across.axes.length;
  return {
    axes: [...across.axes, ...down.axes],
    on: ([r, c]) => [...across.on[c], ...down.on[r]],
    place(indices) {
      const r = rowAt.get(indices.slice(count).join()), c = columnAt.get(indices.slice(0, count).join());
      return r === undefined || c === undefined ? null : [r, c];
    },
  };
}

/** Clip Skip; where both of SDXL's encoders vary, an axis for each. */
function columnAxes(columns) {
  const texts = columns.map(({ label }) => String(label).replace("Clip Skip ", ""));
  const sides = texts.map((text) => (text.includes("/") ? text.split("/") : [text, text]));
  const [first, second] = [0, 1].map((i) => [...new Set(sides.map((side) => side[i]))]);
  const apart = texts.some((text) => text.includes("/")) && first.length > 1 && second.length > 1 && first.length * second.length === texts.length;
  if (!apart) return { axes: [{ name: "skip", label: "Clip Skip", values: texts }], on: texts.map((_, c) => [c]) };
  const axes = [{ name: "skip", label: "CLIP-L", values: first }, { name: "skip-g", label: "OpenCLIP-bigG", values: second }];
  return { axes, on: sides.map(([l, g]) => [first.indexOf(l), second.indexOf(g)]) };
}

function rowAxes(rows, varied) {
  if (!varied.length || !rows.some((row) => Object.keys(row.values ?? {}).length)) return { axes: [{ name: "lora", label: "LoRA", values: rows.map((row) => row.name) }], on: rows.map((_, r) => [r]) };
  const axes = varied.map(({ name, label, values }) => axisOf(name, titled(label || name), [...new Set(rows.map((row) => valueOn(row, name)))], values.map(String)));
  let on = rows.map((row) => axes.map((axis) => axis.at.get(valueOn(row, axis.name))));
  if (new Set(on.map(String)).size < rows.length) {
    const loras = axisOf("lora", "LoRAs", [...new Set(rows.map((row) => lorasOf(row)))], []);
    on = on.map((indices, r) => [...indices, loras.at.get(lorasOf(rows[r]))]);
    axes.push(loras);
  }
  return { axes, on };
}

/** An axis of the values that rows have, in the order in which they were asked for. */
function axisOf(name, label, values, asked) {
  const order = new Map(asked.map((value, i) => [value, i]));
  const sorted = values.sort((a, b) => (order.get(a) ?? -1) - (order.get(b) ?? -1));
  return { name, label, values: sorted, at: new Map(sorted.map((value, i) => [value, i])) };
}

/** Where a row stands: a row that several values share has none, as one without LoRA has no weight. */
const valueOn = (row, name) => (row.values?.[name] === undefined ? (row.loras?.length ? ANY : WITHOUT) : String(row.values[name]));

const lorasOf = ({ loras }) => loras.map(({ name, text_encoder, unet }) => (text_encoder !== unet ? `${name} ${text_encoder}/${unet}` : unet === 1 ? name : `${name} ${unet}`)).join(" + ") || WITHOUT;

const titled = (name) => name[0].toUpperCase() + name.slice(1).replaceAll("-", " ");
