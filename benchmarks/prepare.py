"""The checkpoint as a diffusers folder, and the texts and the noise that every peer takes."""

from pathlib import Path

import torch
from common import CLIP_SKIP, INPUTS, NEGATIVE, PROMPT, parse_task, write_inputs

from clipskip.encode import open_text_encoder, prompt_embeds
from clipskip.spec import ClipSkip
from clipskip.weights import load_checkpoint, save_folder


def main() -> None:
    task = parse_task()
    folder: Path = task.diffusers_folder
    if not (folder / "model_index.json").exists():
        save_folder(load_checkpoint(task.checkpoint, dtype=torch.float16), folder)
    made = prompt_embeds(open_text_encoder(task.checkpoint), PROMPT, NEGATIVE, clip_skip=ClipSkip(CLIP_SKIP))
    texts = {"positive": made["prompt_embeds"], "negative": made["negative_prompt_embeds"]}
    if "pooled_prompt_embeds" in made:
        texts |= {"pooled": made["pooled_prompt_embeds"], "negative_pooled": made["negative_pooled_prompt_embeds"]}
    write_inputs(task.folder / INPUTS, {name: text.float().contiguous() for name, text in texts.items()}, task.size_px)


if __name__ == "__main__":
    main()
