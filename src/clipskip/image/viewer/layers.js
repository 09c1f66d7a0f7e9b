// The text encoder drawn: a bar for each layer, and where a Clip Skip stops reading.

import { svg } from "./dom.js";

const WIDTH = 420, BAR_TOP = 34, BAR_HEIGHT = 64;

/** The big drawing: prompt in, layers, and the way out at `skip`. */
export function drawLayers(depth, skip) {
  const left = 66, right = WIDTH - 50, pitch = (right - left) / depth, bar = pitch * 0.66;
  const stop = depth - Math.floor(skip), x = (layer) => left + (layer - 0.5) * pitch;
  const middle = BAR_TOP + BAR_HEIGHT / 2, below = BAR_TOP + BAR_HEIGHT;
  const picture = svg("svg", {
    viewBox: `0 0 ${WIDTH} 160`,
    role: "img",
    "aria-label": `${depth} layers. At Clip Skip ${skip} the prompt is read up to layer ${stop + 1}; ${skip - 1 || "none"} of the last are skipped.`,
  });
  picture.append(
    text("prompt", 2, middle + 4, "start"),
    line(40, middle, x(1) - bar / 2 - 2, middle, "way"),
    text("layer 1", x(1), BAR_TOP - 12),
    text(`layer ${depth}`, x(depth), BAR_TOP - 12),
  );
  for (let layer = 1; layer <= depth; layer += 1) {
    const skipped = layer > stop + 1, last = layer === stop + 1;
    picture.append(svg("rect", {
      x: x(layer) - bar / 2, y: BAR_TOP, width: bar, height: BAR_HEIGHT, rx: Math.min(3, bar / 3),
      class: skipped ? "bar skipped" : last ? "bar last" : "bar",
    }));
    const number = depth - layer + 1;
    if (depth <= 16 || number % 2 === 1 || last) picture.append(text(String(number), x(layer), below + 18, "middle", last ? "number now" : "number"));
  }
  const out = x(stop + 1), bottom = below + 50;
  picture.append(
    text("Clip Skip", 2, below + 18, "start", "number"),
    svg("path", { class: "way", d: `M ${out} ${below + 24} V ${bottom - 8} Q ${out} ${bottom} ${out + Math.sign(right - out || 1) * 8} ${bottom} H ${right - 4}` }),
    svg("path", { class: "tip", d: `M ${right - 5} ${bottom - 4} l 7 4 l -7 4 z` }),
    text("picture", WIDTH - 2, bottom + 4, "end"),
  );
  return picture;
}

/** The small drawing beside a picture: no words, the caption says it. */
export function drawMini(depth, skip) {
  const stop = depth - Math.floor(skip) + 1, pitch = 120 / depth;
  const picture = svg("svg", { viewBox: "0 0 120 14", "aria-hidden": "true" });
  for (let layer = 1; layer <= depth; layer += 1) {
    picture.append(svg("rect", {
      x: (layer - 1) * pitch, y: 0, width: pitch * 0.7, height: 14, rx: Math.min(2, pitch / 4),
      class: layer > stop ? "bar skipped" : layer === stop ? "bar last" : "bar",
    }));
  }
  return picture;
}

function text(words, x, y, anchor = "middle", name = "word") {
  const made = svg("text", { x, y, "text-anchor": anchor, class: name });
  made.textContent = words;
  return made;
}

const line = (x1, y1, x2, y2, name) => svg("line", { x1, y1, x2, y2, class: name });
