"""The starter through plain diffusers and transformers, and through this package: the same picture."""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import EulerDiscreteScheduler, StableDiffusionPipeline
from torch import Tensor

from clipskip.spec import ClipSkip, Request
from clipskip.sweep import Model, draw_one
from clipskip.weights import load_checkpoint, save_folder

STARTER = Path(__file__).parents[2] / "src" / "clipskip" / "starter" / "starter.safetensors"
PROMPT, NEGATIVE, STEPS, CFG, SEED = "beach, red car, best quality", "blurry", 10, 4.0, 3
MOST = 1
"""Of 255: float32 sums in another order move a value over a rounding edge."""

# diffusers' schedulers hand tensors to numpy in a way that numpy 2 has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def penultimate(pipe: StableDiffusionPipeline, text: str) -> Tensor:
    """Clip Skip 2 by transformers alone."""
    ids = pipe.tokenizer(text, padding="max_length", max_length=77, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        states = pipe.text_encoder(ids, output_hidden_states=True).hidden_states
        return pipe.text_encoder.final_layer_norm(states[-2])


def test_a_folder_in_plain_diffusers_draws_the_single_files_picture(tmp_path: Path) -> None:
    checkpoint = load_checkpoint(STARTER, dtype=torch.float32)
    save_folder(checkpoint, tmp_path / "folder")
    pipe = StableDiffusionPipeline.from_pretrained(tmp_path / "folder")
    pipe.set_progress_bar_config(disable=True)
    # 10 steps from 999 to 0 are 111 apart: whole timesteps, so that both take the same sigmas.
    pipe.scheduler = EulerDiscreteScheduler.from_config(pipe.scheduler.config, timestep_spacing="linspace")
    theirs = pipe(
        prompt_embeds=penultimate(pipe, PROMPT), negative_prompt_embeds=penultimate(pipe, NEGATIVE),
        latents=torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(SEED)),
        guidance_scale=CFG, num_inference_steps=STEPS, height=128, width=128, output_type="np",
    ).images[0]  # fmt: skip
    model = Model(checkpoint, device=torch.device("cpu"), dtype=torch.float32)
    request = Request(
        prompt=PROMPT, negative_prompt=NEGATIVE, steps=STEPS, sampler="Euler", cfg_scale=CFG, seed=SEED, clip_skip=ClipSkip(2)
    )  # fmt: skip
    ours = draw_one(request, model).pixels
    difference = np.abs(ours.astype(float) - np.round(theirs * 255))
    assert difference.max() <= MOST
