// Whether a file fits the chosen model, as far as headers tell.

/** Why a LoRA does not fit a model, in a few words; null where it may. */
export function unfitLora(lora, model) {
  if (!model) return null;
  if (lora.family && model.family && lora.family !== model.family) return `for ${lora.family}, not ${model.family}`;
  if (lora.width && model.width && lora.width !== model.width) return `for a text encoder of ${lora.width}, not ${model.width}`;
  return null;
}
