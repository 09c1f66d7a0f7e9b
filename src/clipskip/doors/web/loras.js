// The LoRAs that are chosen: strength, what each was trained at, its trigger words.

import { at, h, sentence } from "./dom.js";

/** The list. `hear.changed()` when it changes, `hear.word(text)` when a trigger word is clicked. */
export function openLoras(hear) {
  let chosen = [], known = [], passing = false;
  const picker = at("add-lora"), take = at("take-lora"), list = at("loras");

  function offer() {
    const left = known.filter((lora) => !chosen.some((one) => one.name === lora.name));
    picker.replaceChildren(
      h("option", { value: "", text: left.length ? "Add a LoRA…" : known.length ? "All are chosen" : "None found in the folders" }),
      ...left.map((lora) => h("option", { value: lora.name, text: lora.alias && lora.alias !== lora.name ? `${lora.name} (${lora.alias})` : lora.name })),
    );
    picker.disabled = left.length === 0;
    take.hidden = true;
  }

  function show() {
    list.replaceChildren(...chosen.map(entry));
    offer();
  }

  function entry(one) {
    const lora = known.find((file) => file.name === one.name);
    const remove = h("button", {
      type: "button", class: "quiet", "aria-label": `Remove LoRA ${one.name}`, text: "×",
      on: { click: () => { chosen = chosen.filter((other) => other !== one); show(); hear.changed(); picker.focus(); } },
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
      lora ? about(lora) : h("p", { class: "error", text: "Not found in the folders." }));
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
    const warnings = lora.warnings.map((text) => h("p", { class: "warning", text: sentence(text) }));
    return h("div", {}, words.length ? h("p", { class: "words" }, "Trigger words: ", ...words) : null, ...warnings);
  }

  function add(name, { text_encoder = 1, unet = text_encoder } = {}) {
    chosen = chosen.filter((one) => one.name !== name);
    chosen.push({ name, text_encoder, unet, split: text_encoder !== unet });
    show();
    hear.changed();
  }

  function taken() {
    if (!picker.value) return;
    add(picker.value);
    (picker.disabled ? list.querySelector("li:last-child input") : picker).focus();
  }

  /** A key on a closed list fires change for every name that it passes: those wait for Enter or the button. */
  picker.addEventListener("keydown", (event) => {
    passing = !["Enter", " "].includes(event.key);
    if (event.key !== "Enter" || event.ctrlKey || event.metaKey || !picker.value) return;
    event.preventDefault();
    taken();
  });
  picker.addEventListener("pointerdown", () => { passing = false; });
  picker.addEventListener("change", () => {
    if (!passing) { taken(); return; }
    take.hidden = !picker.value;
    take.textContent = picker.value ? `Add ${picker.value}` : "";
  });
  take.addEventListener("click", taken);

  return {
    add,
    values: () => chosen.map(({ name, text_encoder, unet }) => ({ name, text_encoder: text_encoder ?? 0, unet: unet ?? 0 })),
    set(loras) {
      chosen = loras.map((one) => ({ ...one, split: one.text_encoder !== one.unet }));
      show();
      hear.changed();
    },
    setKnown(loras) {
      known = loras;
      show();
    },
  };
}
