"""diffusers' own pipeline on the same texts and noise; the worker's name ends in the dtype."""

import time
from itertools import pairwise

import torch
from common import CFG, STEPS, parse_task, twice
from diffusers import AutoencoderKL, EulerDiscreteScheduler, UNet2DConditionModel
from diffusers import StableDiffusionPipeline as SD1
from diffusers import StableDiffusionXLPipeline as SDXL

UNSAFE = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}


def main() -> None:
    task = parse_task()
    dtype = getattr(torch, task.name.rpartition("-")[2])
    folder, given = task.diffusers_folder, task.inputs()
    parts = {
        "unet": UNet2DConditionModel.from_pretrained(folder, subfolder="unet", torch_dtype=dtype),
        "vae": AutoencoderKL.from_pretrained(folder, subfolder="vae", torch_dtype=dtype),
        "scheduler": EulerDiscreteScheduler.from_pretrained(folder, subfolder="scheduler", timestep_spacing="linspace"),
        "text_encoder": None,
        "tokenizer": None,
    }
    texts = {"prompt_embeds": given["positive"].to(dtype), "negative_prompt_embeds": given["negative"].to(dtype)}
    if "pooled" in given:
        pipe = SDXL(**parts, text_encoder_2=None, tokenizer_2=None, add_watermarker=False)
        texts["pooled_prompt_embeds"] = given["pooled"].to(dtype)
        texts["negative_pooled_prompt_embeds"] = given["negative_pooled"].to(dtype)
    else:
        pipe = SD1(**parts, **UNSAFE)
    pipe.set_progress_bar_config(disable=True)
    stamps = []

    def stamp(*_: object) -> dict[str, object]:
        stamps.append(time.perf_counter())
        return {}

    latent = pipe(
        **texts, latents=given["noise"].to(dtype), num_inference_steps=STEPS, guidance_scale=CFG, output_type="latent",
        callback_on_step_end=stamp, height=task.size_px, width=task.size_px,
    ).images  # fmt: skip
    steps = [after - before for before, after in pairwise(stamps)]
    with torch.inference_mode():
        scaled = (latent / pipe.vae.config.scaling_factor).to(dtype)
        task.finish(steps, latent, decode_s=twice(lambda: pipe.vae.decode(scaled).sample))


if __name__ == "__main__":
    main()
