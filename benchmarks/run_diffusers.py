"""The peer: diffusers' own pipeline over the same weights, a loop of pictures with and without the LoRA.

diffusers 0.42 with transformers 5 cannot apply clip_skip on SD 1.x, so the text encoder's layer is read by hand, as a
user of diffusers must: hidden_states[-n] through the final norm.
"""

import sys
import time
from itertools import pairwise
from pathlib import Path

import torch
from diffusers import AutoencoderKL, EulerAncestralDiscreteScheduler, StableDiffusionPipeline
from diffusers import UNet2DConditionModel as UNet
from transformers import CLIPTextModel

from clipskip.spec import parse_skips
from clipskip.weights import load_checkpoint, save_folder


def main() -> None:
    """Draws every Clip Skip without and with the LoRA; prints seconds per step."""
    checkpoint, lora, steps, skips, dtype_name = sys.argv[1:]
    dtype = getattr(torch, dtype_name)
    folder = Path(checkpoint).with_suffix("")
    if not (folder / "model_index.json").exists():
        save_folder(load_checkpoint(Path(checkpoint), dtype=torch.float16), folder)
    pipe = StableDiffusionPipeline(
        unet=UNet.from_pretrained(folder, subfolder="unet", torch_dtype=dtype),
        vae=AutoencoderKL.from_pretrained(folder, subfolder="vae", torch_dtype=dtype),
        text_encoder=CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=dtype),
        tokenizer=None, scheduler=EulerAncestralDiscreteScheduler.from_pretrained(folder, subfolder="scheduler"),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipe.set_progress_bar_config(disable=True)
    ids = torch.tensor([[49406, *range(1000, 1010), *[49407] * 66]])
    for with_lora in (False, True):
        if with_lora:
            pipe.load_lora_weights(lora)
        for skip in parse_skips(skips):
            hidden = pipe.text_encoder(ids, output_hidden_states=True).hidden_states[-skip.shallow]
            embeds = pipe.text_encoder.final_layer_norm(hidden).detach()
            stamps = [time.perf_counter()]

            def stamp(*args: object, stamps: list[float] = stamps) -> dict[str, object]:
                stamps.append(time.perf_counter())
                return {}

            pipe(
                prompt_embeds=embeds, negative_prompt_embeds=embeds, num_inference_steps=int(steps), guidance_scale=7.0,
                generator=torch.Generator().manual_seed(5), callback_on_step_end=stamp,
            )  # fmt: skip
            print(*(f"step_s={b - a:.3f}" for a, b in pairwise(stamps[1:])))


if __name__ == "__main__":
    main()
