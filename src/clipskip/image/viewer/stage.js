// One picture, two side by side, one wiped over the other, or their difference; zoom and place are shared between them.

import { at, h } from "./dom.js";

const MAX_ZOOM = 16, NOTICED = 16;
const GAINS = [16, 8, 4, 2, 1], BURNT = 0.01;

/** The panes. Pictures are {source, name, alt, soft}: soft ones are previews. */
export function openStage() {
  const panes = ["held", "shown", "difference"].map(createPane);
  const [heldPane, shownPane, differencePane] = panes;
  let zoom = 1, x = 0, y = 0, turn = 0;
  at("panes").append(...panes.map((pane) => pane.figure));
  panes.forEach((pane) => listen(pane.view));
  at("wipe").addEventListener("input", wipe);
  wipe();

  function wipe() {
    shownPane.over.style.clipPath = `inset(0 ${100 - Number(at("wipe").value)}% 0 0)`;
  }

  function move(newZoom, newX, newY) {
    zoom = Math.min(Math.max(newZoom, 1), MAX_ZOOM);
    x = Math.min(Math.max(newX, 1 - zoom), 0);
    y = Math.min(Math.max(newY, 1 - zoom), 0);
    for (const pane of panes) {
      pane.inner.style.transform = `translate(${x * 100}%, ${y * 100}%) scale(${zoom})`;
      pane.view.classList.toggle("near", zoom >= 6);
      pane.view.classList.toggle("zoomed", zoom > 1);
    }
    at("zoom-value").textContent = `${Math.round(zoom * 100)}%`;
  }

  /** Zooms by a factor; the point (px, py) of the pane, 0..1, stays where it is. */
  function zoomBy(factor, px = 0.5, py = 0.5) {
    const next = Math.min(Math.max(zoom * factor, 1), MAX_ZOOM), k = next / zoom;
    move(next, px - (px - x) * k, py - (py - y) * k);
  }

  function listen(view) {
    const fingers = new Map();
    const place = (event) => {
      const box = view.getBoundingClientRect();
      return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    };
    view.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && !event.metaKey) return;
      event.preventDefault();
      zoomBy(Math.exp(-event.deltaY / 200), ...place(event));
    }, { passive: false });
    view.addEventListener("dblclick", (event) => (zoom > 1 ? move(1, 0, 0) : zoomBy(4, ...place(event))));
    view.addEventListener("pointerdown", (event) => {
      fingers.set(event.pointerId, place(event));
      view.setPointerCapture(event.pointerId);
    });
    view.addEventListener("pointermove", (event) => {
      const before = fingers.get(event.pointerId);
      if (!before) return;
      const now = place(event), other = [...fingers].find(([id]) => id !== event.pointerId)?.[1];
      if (other) zoomBy(distance(now, other) / Math.max(distance(before, other), 0.001), ...other);
      else if (zoom > 1) move(zoom, x + now[0] - before[0], y + now[1] - before[1]);
      fingers.set(event.pointerId, now);
    });
    for (const name of ["pointerup", "pointercancel"]) view.addEventListener(name, (event) => fingers.delete(event.pointerId));
  }

  function put(pane, picture) {
    pane.image.hidden = !picture.source;
    pane.empty.hidden = Boolean(picture.source);
    pane.empty.textContent = picture.source ? "" : picture.alt;
    if (picture.source && pane.image.getAttribute("src") !== picture.source) pane.image.src = picture.source;
    pane.image.alt = picture.alt;
    pane.view.classList.toggle("soft", Boolean(picture.soft));
    pane.caption.textContent = picture.name;
  }

  /** Shows `shown`, with `held` where there is one; `mode` is side, one, wipe or difference. */
  async function show(shown, held, mode) {
    const differing = mode === "difference" && held !== null, wiping = mode === "wipe" && held !== null && held.source && shown.source;
    const beside = held !== null && mode === "side";
    put(shownPane, shown);
    if (held) put(heldPane, held);
    shownPane.over.hidden = !wiping;
    if (wiping) {
      shownPane.over.src = held.source;
      shownPane.caption.textContent = `${held.name} | ${shown.name}`;
    }
    at("wipe").hidden = !wiping;
    heldPane.figure.hidden = !beside;
    shownPane.figure.hidden = differing;
    differencePane.figure.hidden = !differing;
    at("panes").classList.toggle("two", beside);
    at("full-name").textContent = beside || wiping ? `${held.name} | ${shown.name}` : shown.name;
    at("difference").textContent = "";
    turn += 1;
    if (differing) await differ(shown, held, turn);
  }

  async function differ(shown, held, mine) {
    const name = `Difference: ${held.name} and ${shown.name}`, call = (text) => { at("full-name").textContent = differencePane.caption.textContent = text; };
    call(name);
    if (!shown.source || !held.source) { at("difference").textContent = "One of them is not drawn yet."; return; }
    const both = await Promise.all([load(held.source), load(shown.source)]).catch(() => null);
    if (mine !== turn) return;
    if (both === null) { at("difference").textContent = "A picture could not be loaded."; return; }
    const { mean, share, gain } = paintDifference(differencePane.canvas, both);
    if (gain > 1 && mean > 0) call(`${name}, ${gain} times as bright`);
    differencePane.canvas.setAttribute("aria-label", `Difference of ${held.name} and ${shown.name}`);
    at("difference").textContent = mean === 0
      ? "No difference: every pixel is the same."
      : `Mean difference ${mean.toFixed(1)} of 255; ${Math.round(share * 100)}% of the pixels differ by more than ${NOTICED}.`;
  }

  return {
    show,
    zoomIn: () => zoomBy(1.5),
    zoomOut: () => zoomBy(1 / 1.5),
    fit: () => move(1, 0, 0),
  };
}

function createPane(kind) {
  const image = h("img", { alt: "", draggable: "false", hidden: true });
  const over = h("img", { class: "over", alt: "", draggable: "false", hidden: true });
  const canvas = h("canvas", { role: "img", "aria-label": "Difference" });
  const empty = h("span", { class: "empty" });
  const inner = h("div", { class: "inner" }, ...(kind === "difference" ? [canvas] : [image, over]));
  const view = h("div", { class: "view" }, inner, empty);
  const caption = h("figcaption");
  return { figure: h("figure", { class: `pane ${kind}`, hidden: kind !== "shown" }, view, caption), view, inner, image, over, canvas, empty, caption };
}

const distance = ([ax, ay], [bx, by]) => Math.hypot(ax - bx, ay - by);

async function load(source) {
  const image = new Image();
  image.src = source;
  await image.decode();
  return image;
}

/** Paints |a - b| of two pictures; gives the mean over all channels, the share of pixels that one notices, and the gain. */
function paintDifference(canvas, [a, b]) {
  const width = a.naturalWidth, height = a.naturalHeight;
  canvas.width = width;
  canvas.height = height;
  const brush = canvas.getContext("2d", { willReadFrequently: true });
  const [first, second] = [a, b].map((image) => {
    brush.drawImage(image, 0, 0, width, height);
    return brush.getImageData(0, 0, width, height);
  });
  const data = first.data, counts = new Uint32Array(256);
  let noticed = 0;
  for (let i = 0; i < data.length; i += 4) {
    let most = 0;
    for (let c = i; c < i + 3; c += 1) {
      data[c] = Math.abs(data[c] - second.data[c]);
      counts[data[c]] += 1;
      most = Math.max(most, data[c]);
    }
    if (most > NOTICED) noticed += 1;
  }
  const gain = brightest(counts);
  for (let i = 0; i < data.length; i += 1) if (i % 4 !== 3) data[i] = Math.min(255, data[i] * gain);
  brush.putImageData(first, 0, 0);
  const values = width * height * 3;
  return { mean: counts.reduce((sum, count, value) => sum + count * value, 0) / values, share: noticed / (width * height), gain };
}

/** The largest gain that drives no more than a hundredth of the values into white. */
function brightest(counts) {
  const all = counts.reduce((sum, count) => sum + count, 0);
  return GAINS.find((gain) => counts.slice(Math.floor(255 / gain) + 1).reduce((sum, count) => sum + count, 0) <= all * BURNT) ?? 1;
}
