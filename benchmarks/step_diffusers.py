"""diffusers' own pipeline on the same texts and noise; the worker's name ends in the dtype."""

import time
from itertools import pairwise

import torch
from common import CFG, STEPS, parse_task, twice
from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionPipeline, UNet2DConditionModel


def main() -> None:
    task = parse_task()
    dtype = getattr(torch, task.name.rpartition("-")[2])
    folder, given = task.diffusers_folder, task.inputs()
    pipe = StableDiffusionPipeline(
        unet=UNet2DConditionModel.from_pretrained(folder, subfolder="unet", torch_dtype=dtype),
        vae=AutoencoderKL.from_pretrained(folder, subfolder="vae", torch_dtype=dtype),
        text_encoder=None, tokenizer=None,
        scheduler=EulerDiscreteScheduler.from_pretrained(folder, subfolder="scheduler", timestep_spacing="linspace"),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipe.set_progress_bar_config(disable=True)
    stamps = []

    def stamp(*_: object) -> dict[str, object]:
        stamps.append(time.perf_counter())
        return {}

    latent = pipe(
        prompt_embeds=given["positive"].to(dtype), negative_prompt_embeds=given["negative"].to(dtype),
        latents=given["noise"].to(dtype), num_inference_steps=STEPS, guidance_scale=CFG, output_type="latent",
        callback_on_step_end=stamp, height=task.size_px, width=task.size_px,
    ).images  # fmt: skip
    steps = [after - before for before, after in pairwise(stamps)]
    with torch.inference_mode():
        scaled = (latent / pipe.vae.config.scaling_factor).to(dtype)
        task.finish(steps, latent, decode_s=twice(lambda: pipe.vae.decode(scaled).sample))


if __name__ == "__main__":
    main()
