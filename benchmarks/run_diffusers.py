"""The peer: diffusers' own pipeline over the same weights, a loop of pictures with and without the LoRA.

diffusers 0.42 with transformers 5 cannot apply clip_skip on SD 1.x, so the text encoder's layer is read by hand, as a
user of diffusers must: hidden_states[-n] through the final norm. On SDXL it is read from both encoders, without the norm.
"""

import sys
import time
from itertools import pairwise
from pathlib import Path

import torch
from diffusers import AutoencoderKL, EulerAncestralDiscreteScheduler, UNet2DConditionModel
from diffusers import StableDiffusionPipeline as SD1
from diffusers import StableDiffusionXLPipeline as SDXL
from step_diffusers import UNSAFE
from torch import Tensor
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from clipskip.spec import parse_skips
from clipskip.weights import load_checkpoint, save_folder

IDS = torch.tensor([[49406, *range(1000, 1010), *[49407] * 66]])


def open_pipe(folder: Path, dtype: torch.dtype) -> SD1 | SDXL:
    """Return the pipeline of the folder's family, every part in the one dtype."""
    parts = {
        "unet": UNet2DConditionModel.from_pretrained(folder, subfolder="unet", torch_dtype=dtype),
        "vae": AutoencoderKL.from_pretrained(folder, subfolder="vae", torch_dtype=dtype),
        "text_encoder": CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=dtype),
        "tokenizer": None,
        "scheduler": EulerAncestralDiscreteScheduler.from_pretrained(folder, subfolder="scheduler"),
    }
    if not (folder / "text_encoder_2").exists():
        return SD1(**parts, **UNSAFE)
    second = CLIPTextModelWithProjection.from_pretrained(folder / "text_encoder_2", dtype=dtype)
    return SDXL(**parts, text_encoder_2=second, tokenizer_2=None, add_watermarker=False)


@torch.no_grad()
def read_texts(pipe: SD1 | SDXL, layer: int) -> dict[str, Tensor]:
    """Return the arguments that give the pipeline this layer, counted from the end, for both prompts."""
    hidden = pipe.text_encoder(IDS, output_hidden_states=True).hidden_states[-layer]
    if not isinstance(pipe, SDXL):
        embeds = pipe.text_encoder.final_layer_norm(hidden)
        return {"prompt_embeds": embeds, "negative_prompt_embeds": embeds}
    second = pipe.text_encoder_2(IDS, output_hidden_states=True)
    embeds = torch.cat([hidden, second.hidden_states[-layer]], -1)
    pooled = {"pooled_prompt_embeds": second.text_embeds, "negative_pooled_prompt_embeds": second.text_embeds}
    return {"prompt_embeds": embeds, "negative_prompt_embeds": embeds, **pooled}


def main() -> None:
    """Draws every Clip Skip without and with the LoRA, or with it alone; prints seconds per step after the first."""
    checkpoint, lora, steps, skips, size_px, dtype_name, *only = sys.argv[1:]
    folder = Path(checkpoint).with_suffix("")
    if not (folder / "model_index.json").exists():
        save_folder(load_checkpoint(Path(checkpoint), dtype=torch.float16), folder)
    pipe = open_pipe(folder, getattr(torch, dtype_name))
    pipe.set_progress_bar_config(disable=True)
    for with_lora in (True,) if only else (False, True):
        if with_lora:
            pipe.load_lora_weights(lora)
        for skip in parse_skips(skips):
            stamps = [time.perf_counter()]

            def stamp(*args: object, stamps: list[float] = stamps) -> dict[str, object]:
                stamps.append(time.perf_counter())
                return {}

            pipe(
                **read_texts(pipe, skip.shallow), num_inference_steps=int(steps), guidance_scale=7.0,
                height=int(size_px), width=int(size_px), generator=torch.Generator().manual_seed(5),
                callback_on_step_end=stamp,
            )  # fmt: skip
            print(*(f"step_s={b - a:.3f}" for a, b in pairwise(stamps[1:])), flush=True)


if __name__ == "__main__":
    main()
