// The LoRAs that are chosen: strength, what each was trained at, whether it fits, its trigger words.

import { at, h, sentence } from "./dom.js";
import { unfitLora } from "./fit.js";
import { advised, openPicker } from "./picker.js";

/** The list. `hear.changed()` when it changes, `hear.word(text)` when a trigger word is clicked, `hear.model()` what it is for. */
export function openLoras(hear) {
  let chosen = [], known = [], whole = false;
  const input = at("add-lora"), list = at("loras");
  const picker = openPicker(input, at("add-lora-list"), {
    name: () => "",
    facts: (file) => [file.alias && file.alias !== file.name ? file.alias : file.title, file.trained_clip_skip ? `trained at Clip Skip ${file.trained_clip_skip}` : null, ...advised(file), file.family, file.trigger_words.slice(0, 3).join(", ")].filter(Boolean).join(" · "),
    unfit: (file) => unfitLora(file, hear.model()),
    taken: (file) => add(file.name, { text_encoder: file.advised_weight ?? 1 }),
  });

  function offer(progress = null) {
    picker.set(known.filter((lora) => !chosen.some((one) => one.name === lora.name)), progress);
  }

  function show() {
    list.replaceChildren(...chosen.map(entry));
    offer();
  }

  function entry(one) {
    const lora = known.find((file) => file.name === one.name);
    const remove = h("button", {
      type: "button", class: "quiet", "aria-label": `Remove LoRA ${one.name}`, text: "×",
      on: { click: () => { chosen = chosen.filter((other) => other !== one); show(); hear.changed(); input.focus(); } },
    });
    const split = h("button", {
      type: "button", class: "quiet", "aria-pressed": String(one.split), text: "split", title: "Text encoder and U-Net apart",
      "aria-label": `Separate weights for text encoder and U-Net of ${one.name}`,
      on: { click: () => { one.split = !one.split; one.unet = one.split ? one.unet : one.text_encoder; show(); hear.changed(); } },
    });
    const weights = one.split
      ? [weight(one, "text_encoder", "text"), weight(one, "unet", "U-Net")]
      : [weight(one, "text_encoder", "weight")];
    return h("li", {},
      h("div", { class: one.split ? "row split" : "row" }, h("strong", { text: one.name }), ...weights, split, remove),
      lora ? about(lora) : whole ? h("p", { class: "error", text: "Not found in the folders." }) : null);
  }

  function weight(one, key, label) {
    const input = h("input", { type: "number", step: 0.05, value: one[key], "aria-label": `LoRA ${one.name}: ${label}` });
    input.addEventListener("input", () => {
      one[key] = input.value === "" ? null : Number(input.value);
      if (!one.split) one.unet = one.text_encoder;
      hear.changed();
    });
    return h("label", { class: "weight" }, h("span", { text: label, "aria-hidden": "true" }), input);
  }

  function about(lora) {
    const words = lora.trigger_words.slice(0, 12).map((word) => h("button", {
      type: "button", class: "word", text: word, "aria-label": `Add trigger word ${word} to the prompt`,
      on: { click: () => hear.word(word) },
    }));
    const unfit = unfitLora(lora, hear.model());
    const warnings = [unfit ? `It does not fit this model: it is ${unfit}` : null, ...lora.warnings].filter(Boolean).map((text) => h("p", { class: "warning", text: sentence(text) }));
    return h("div", {}, words.length ? h("p", { class: "words" }, "Trigger words: ", ...words) : null, ...warnings);
  }

  function add(name, { text_encoder = 1, unet = text_encoder } = {}) {
    chosen = chosen.filter((one) => one.name !== name);
    chosen.push({ name, text_encoder, unet, split: text_encoder !== unet });
    show();
    hear.changed();
  }

  return {
    add,
    values: () => chosen.map(({ name, text_encoder, unet }) => ({ name, text_encoder: text_encoder ?? 0, unet: unet ?? 0 })),
    set(loras) {
      chosen = loras.map((one) => ({ ...one, split: one.text_encoder !== one.unet }));
      show();
      hear.changed();
    },
    /** The LoRAs of the folders; `progress` says how far they are read, null when they all are. */
    setKnown(loras, progress) {
      known = loras;
      whole = progress === null;
      list.replaceChildren(...chosen.map(entry));
      offer(progress);
    },
    modelChanged: show,
  };
}
