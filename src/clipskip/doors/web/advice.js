// What the model itself says of the Clip Skips: a verdict below the pictures, curves of what is left, each claim with its measurement.

import { ApiError, api } from "./api.js";
import { at, duration, h, say, svg } from "./dom.js";
import { wordsOf } from "./words.js";

const WIDTH = 520, HEIGHT = 120, LEFT = 44, TOP = 1.25, LOOK_MS = 700;

/** The place for advice on the sweep that is shown. `hear.choose(column)` shows a picture, `hear.status()` looks what the server is at. */
export function openAdvice(hear) {
  const known = new Map();
  let shown = null, timer = 0;

  /** Offers advice on a sweep that has ended, or shows how far it is, or what was said of it before. */
  function show(sweep, ended) {
    at("verdict").hidden = at("to-advice").hidden = !ended;
    if (shown === sweep.id && at("verdict").dataset.ended === String(ended)) return;
    shown = sweep.id;
    at("verdict").dataset.ended = ended;
    clearTimeout(timer);
    if (!ended) return;
    offer(sweep);
    if (known.has(sweep.id)) tell(sweep, known.get(sweep.id));
    else look(sweep, () => api.advice(sweep.id));
  }

  function offer(sweep, { error = "", progress = null } = {}) {
    const button = h("button", { type: "button", id: "find-advice", text: "Which of these should I use?", on: { click: () => { button.disabled = true; look(sweep, () => api.findAdvice(sweep.id)); } } });
    const stop = h("button", { type: "button", id: "stop-advice", text: "Cancel", on: { click: () => { stop.disabled = true; look(sweep, () => api.stopAdvice(sweep.id)); } } });
    const line = progress
      ? [h("progress", { max: 1, value: progress.progress, "aria-label": "Progress of the measurement" }), h("span", { text: progress.state === "queued" ? "Waiting for its turn" : `Asking the model${progress.eta_s ? `, about ${duration(progress.eta_s)} left` : "…"}` }), stop]
      : [button, h("span", { class: "about", text: "Asks the model itself; draws nothing." })];
    at("verdict").replaceChildren(h("div", { class: "row" }, ...line), h("p", { class: "error", role: "alert", text: error }), ...(progress ? [] : [wordsOf(sweep.prompt, sweep.model?.name)]));
  }

  /** Does something about the advice, shows how it stands, and looks again for as long as it is measured. */
  async function look(sweep, ask) {
    clearTimeout(timer);
    let now;
    try {
      now = await ask();
    } catch (problem) {
      if (!(problem instanceof ApiError)) throw problem;
      if (shown === sweep.id) offer(sweep, { error: problem.message });
      return;
    }
    if (shown !== sweep.id) return;
    const going = now.state === "queued" || now.state === "running";
    if (now.advice) {
      known.set(sweep.id, now.advice);
      tell(sweep, now.advice);
      say(at("verdict").querySelector(".said").textContent);
      hear.status();
    } else if (going) {
      const bar = at("verdict").querySelector("progress");
      if (bar && now.state === "running" && at("stop-advice")) {
        bar.value = now.progress;
        bar.nextElementSibling.textContent = `Asking the model${now.eta_s ? `, about ${duration(now.eta_s)} left` : "…"}`;
      } else {
        offer(sweep, { progress: now });
      }
      hear.status();
      timer = setTimeout(() => look(sweep, () => api.advice(sweep.id)), LOOK_MS);
    } else {
      offer(sweep, { error: now.error?.detail ?? "" });
      if (now.state === "cancelled") hear.status();
    }
  }

  function tell(sweep, advice) {
    const { verdict } = advice, column = sweep.columns.findIndex((one) => one.clip_skip === verdict.skip);
    const first = {
      value: `Clip Skip ${verdict.skip}, ${percent(Math.min(verdict.sure, 0.99))} sure.`,
      "no difference that matters": `No difference that matters: stay at Clip Skip ${verdict.skip}.`,
      "not known": `Not known: begin at Clip Skip ${verdict.skip}.`,
    }[verdict.answer];
    at("verdict").replaceChildren(
      h("div", { class: "row" }, h("p", { class: "said" }, h("strong", { text: first }), ` ${verdict.text}.`),
        column < 0 ? null : h("button", { type: "button", class: "quiet", text: `Show Clip Skip ${verdict.skip}`, on: { click: () => hear.choose(column) } })),
      advice.prompted ? curve(advice.prompted) : null,
      claim("Why, with every measurement", ...claims(advice)), wordsOf(sweep.prompt, sweep.model?.name));
  }

  return { show };
}

const percent = (share) => `${Math.round(100 * share)}%`;
/** A bar: how much of the guidance hangs on a phrase where that is most. */
const largest = ({ phrase, reaction }) => h("meter", { min: 0, max: 1, value: Math.min(1, Math.max(...reaction)), "aria-label": `Largest reaction to ${phrase}` });
const claim = (title, ...inside) => h("details", { class: "claim" }, h("summary", { text: title }), ...inside);

function claims(advice) {
  const made = [claim("What the files say, and what was measured of their training", files(advice), ...advice.measured.map(([name, trained]) => scores(name, trained)))];
  const { prompted } = advice;
  if (prompted) {
    const heads = ["", ...prompted.skips.map((skip) => `${skip}`)], rows = (pairs) => pairs.map(([name, values]) => [name, ...values.map(percent)]);
    made.push(claim("Is it broken?", table(heads, rows([
      ["guidance kept", prompted.guidance_kept], ["guidance length", prompted.guidance_size], ["conditioning moved", prompted.conditioning_distance],
      ["guessed picture changed", prompted.change], ["its contrast", prompted.contrast], ["its detail", prompted.detail],
    ])), h("p", { class: "about", text: "A picture is likely to be broken where two of three hold: less than 50% of the guidance kept, the conditioning moved by more than 100% of its distance from the negative prompt, more than 100% of the guessed picture changed." }),
      prompted.broken_from === null ? null : h("p", { class: "warning", text: `The picture is likely to fall apart from Clip Skip ${prompted.broken_from} on.` })));
    for (const lora of prompted.loras) {
      made.push(claim(`Is ${lora.name} ignored?`, table(heads, rows([
        ["taken up", lora.uptake], ["its effect, of the guidance", lora.whole], ["by the text encoder", lora.by_text], ["by the UNet", lora.by_unet],
      ])), lora.text_dead_from === null ? null : h("p", { class: "warning", text: `Its text part cannot act from Clip Skip ${lora.text_dead_from} on: every layer that it changes is skipped there.` })));
    }
    const ignored = prompted.phrases.filter((one) => one.ignored).map((one) => one.phrase);
    made.push(claim("Is each phrase followed?", table(["", "largest", ...heads.slice(1)], prompted.phrases.map((one) => [one.phrase, largest(one), ...one.reaction.map(percent)])),
      ignored.length ? h("p", { class: "warning", text: `Nothing reacts to: ${ignored.join(", ")}.` }) : null));
    if (prompted.pulls.length) {
      made.push(claim("Who pulls against whom", h("p", { class: "about", text: "1 together, 0 apart, -1 against each other." }),
        table(heads, prompted.pulls.flatMap((one) => [[`${one.one} / ${one.other}`, one.cosine], ...(one.in_conditioning ? [["in the conditioning", one.in_conditioning]] : [])])
          .map(([name, values]) => [name, ...values.map((value) => value.toFixed(2))]))));
    }
  }
  made.push(h("p", { class: "about", text: `${advice.rows} UNet evaluations, ${duration(advice.seconds)}. A guided step of a picture takes two.` }));
  return made;
}

function files(advice) {
  if (!advice.evidence.length) return h("p", { class: "about", text: "No file says anything." });
  return h("ul", { class: "evidence" },
    ...advice.evidence.map((one) => h("li", {}, h("strong", { text: `${one.about}: ${one.skip}` }), ` ${percent(one.weight)}. ${one.source}. Doubt: ${one.doubt}.`)),
    ...advice.contradictions.map((one) => h("li", { class: "warning", text: `Contradiction. ${one}.` })));
}

function scores(name, trained) {
  const chances = new Map(trained.chances);
  return h("div", {}, h("p", { class: "about", text: `${name}, on ${trained.way}, ${trained.looks} looks: how much worse than the best, and the chance to be it.` }),
    table(["", ...trained.scores.map(([skip]) => `${skip}`)], [["worse by", ...trained.scores.map(([, score]) => score.toFixed(4))], ["chance", ...trained.scores.map(([skip]) => percent(chances.get(skip)))]]));
}

function table(heads, rows) {
  return h("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": "Measurement" }, h("table", { class: "numbers" },
    h("thead", {}, h("tr", {}, ...heads.map((text, i) => (i ? h("th", { scope: "col", text }) : h("td", { text: "Clip Skip" }))))),
    h("tbody", {}, ...rows.map(([name, ...cells]) => h("tr", {}, h("th", { scope: "row", text: name }), ...cells.map((cell) => (typeof cell === "string" ? h("td", { text: cell }) : h("td", {}, cell))))))));
}

/** How much of the guidance and of each LoRA is left at each Clip Skip, with both axes. */
function curve(prompted) {
  const lines = [["guidance kept", prompted.guidance_kept], ...prompted.loras.map((lora) => [`${lora.name} taken up`, lora.uptake])];
  const x = (i) => LEFT + (prompted.skips.length > 1 ? (i * (WIDTH - LEFT - 12)) / (prompted.skips.length - 1) : 0);
  const y = (share) => 8 + HEIGHT * (1 - Math.min(Math.max(share, 0), TOP) / TOP);
  const word = (text, at_x, at_y, anchor) => { const made = svg("text", { x: at_x, y: at_y, "text-anchor": anchor }); made.textContent = text; return made; };
  const picture = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT + 40}`, role: "img", "aria-label": lines.map(([name, values]) => `${name}: ${prompted.skips.map((skip, i) => `${percent(values[i])} at ${skip}`).join(", ")}`).join("; ") },
    ...[0, 0.5, 1].flatMap((share) => [svg("line", { class: "whole", x1: LEFT, x2: WIDTH - 12, y1: y(share), y2: y(share) }), word(percent(share), LEFT - 8, y(share) + 4, "end")]),
    ...prompted.skips.map((skip, i) => word(`${skip}`, x(i), HEIGHT + 24, "middle")), word("Clip Skip", (LEFT + WIDTH) / 2, HEIGHT + 38, "middle"),
    ...lines.map(([, values], i) => svg("polyline", { class: `curve curve-${i % 4}`, points: values.map((value, c) => `${x(c)},${y(value)}`).join(" ") })));
  const legend = lines.map(([name], i) => h("span", { class: `key key-${i % 4}`, text: name }));
  return h("div", { id: "curve" }, h("p", { class: "about keys" }, ...legend), picture);
}
