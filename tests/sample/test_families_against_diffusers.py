"""Whole pictures of SDXL and SD 2.x against diffusers' pipelines, on the same weights, vectors and noise."""

from typing import Any

import pytest
import tiny_sdxl
import torch
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from torch import Tensor

from clipskip.encode import TextReader, condition
from clipskip.networks import TextShape, UNetShape, VAEShape, build_text_encoder, build_unet, build_vae
from clipskip.sample import Picture, Refiner, free_bytes, sample, stable_diffusion
from clipskip.spec import ZERO_TERMINAL_SNR, Family, FileRef, Render, parse_skip
from clipskip.weights import EncoderFacts

# diffusers' schedulers hand tensors to numpy in a way that numpy 2 has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

TOLERANCE = 1e-4
"""Of pixels in 0..1: float32, sums in another order, ten guided steps and a decoder."""


def close(ours: Tensor, theirs: Tensor) -> bool:
    assert ours.shape == theirs.shape and ours.std() > 0.05, "a picture, not one colour"
    return torch.allclose(ours, theirs, rtol=0, atol=TOLERANCE)


def scheduler(prediction: str, *, zero: bool) -> EulerDiscreteScheduler:
    """Euler at our own noise levels: diffusers' rescaling ends at another last level than A1111's."""
    kept = 1 / (1 + torch.tensor(stable_diffusion(zero_terminal_snr=zero).sigmas, dtype=torch.float64) ** 2)
    betas = 1 - kept / torch.cat([torch.ones(1, dtype=torch.float64), kept[:-1]])
    levels = {"trained_betas": betas.numpy(), "timestep_spacing": "linspace", "steps_offset": 1}
    return EulerDiscreteScheduler(**levels, prediction_type=prediction)


@torch.no_grad()
def ours(parts: tiny_sdxl.Parts, family: Family, render: Render, prediction: str) -> tuple[Tensor, Any]:
    """Our picture, and what its texts were to the UNet."""
    states, shapes = parts.states, parts.shapes
    networks = [
        build_text_encoder(states[part], shapes[part]) for part in ("text_encoder", "text_encoder_2") if part in states
    ]
    given = condition(TextReader.of(*networks, family=family), render)
    unet = build_unet(dict(states["unet"]), shapes["unet"], dtype=torch.float32, device="cpu")
    *_, step = sample(unet, [Picture(render=render, conditioning=given)], prediction=prediction)
    pixels = build_vae(states["vae"], shapes["vae"]).decode(step.latent / shapes["vae"].scaling_factor)
    return (pixels / 2 + 0.5).clamp(0, 1), given


def theirs(
    parts: tiny_sdxl.Parts,
    kind: Any,
    given: Any,
    schedule: EulerDiscreteScheduler,
    *,
    side_px: int = 64,
    steps: int = 10,
    **settings: Any,
) -> Tensor:
    """Their picture, by networks that share our weights."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(**parts.shapes["unet"].config()).eval()
        vae = AutoencoderKL(**parts.shapes["vae"].config()).eval()
    unet.load_state_dict(parts.states["unet"], assign=True)
    vae.load_state_dict(parts.states["vae"], assign=True)
    absent = {"text_encoder": None, "tokenizer": None, "feature_extractor": None}
    if kind is StableDiffusionXLPipeline:
        more: dict[str, Any] = {"text_encoder_2": None, "tokenizer_2": None}
    else:
        more = {"safety_checker": None, "requires_safety_checker": False}
    pipe = kind(vae=vae, unet=unet, scheduler=schedule, **absent, **more)
    pipe.set_progress_bar_config(disable=True)
    above, below = given.positive[0].schedule[0][1], given.negative[0][1]
    pooled = (
        {}
        if above.pooled is None
        else {"pooled_prompt_embeds": above.pooled[None], "negative_pooled_prompt_embeds": below.pooled[None]}
    )
    return pipe(
        prompt_embeds=above.tokens[None],
        negative_prompt_embeds=below.tokens[None],
        **pooled,
        latents=torch.randn(1, 4, side_px // 8, side_px // 8, generator=torch.Generator().manual_seed(5)),
        guidance_scale=7.0,
        num_inference_steps=steps,
        height=side_px,
        width=side_px,
        output_type="pt",
        **settings,
    ).images


def render(**settings: Any) -> Render:
    base = {"steps": 10, "sampler": "Euler", "cfg_scale": 7.0, "seed": 5, "width": 64, "height": 64}
    return Render(prompt="a (red:1.2) frog", model=FileRef(name="m"), **base | settings)


@pytest.mark.parametrize(
    ("skip", "negative"),
    [
        ("2", ""),
        ("1", "blurry"),
        ("3/7", "blurry"),
        *(pytest.param(*both, marks=pytest.mark.slow) for both in (("2", "blurry"), ("1", ""), ("3/7", ""))),
    ],
)
def test_sdxl_draws_what_diffusers_draws(skip: str, negative: str) -> None:
    parts = tiny_sdxl.sdxl()
    drawn, given = ours(parts, Family.SDXL, render(clip_skip=parse_skip(skip), negative_prompt=negative), "epsilon")
    assert close(drawn, theirs(parts, StableDiffusionXLPipeline, given, scheduler("epsilon", zero=False)))


def test_sdxl_is_told_its_crop_as_in_diffusers() -> None:
    parts = tiny_sdxl.sdxl()
    drawn, given = ours(parts, Family.SDXL, render(clip_skip=parse_skip("2"), crop_top=16, crop_left=200), "epsilon")
    crop = {"crops_coords_top_left": (16, 200)}
    expected = theirs(parts, StableDiffusionXLPipeline, given, scheduler("epsilon", zero=False), **crop)
    assert close(drawn, expected)
    assert not close(drawn, theirs(parts, StableDiffusionXLPipeline, given, scheduler("epsilon", zero=False)))


def test_sdxl_with_v_prediction_and_zero_terminal_snr_draws_what_diffusers_draws() -> None:
    parts = tiny_sdxl.sdxl()
    asked = render(clip_skip=parse_skip("2"), negative_prompt="blurry", noise_schedule=ZERO_TERMINAL_SNR)
    drawn, given = ours(parts, Family.SDXL, asked, "v")
    assert close(drawn, theirs(parts, StableDiffusionXLPipeline, given, scheduler("v_prediction", zero=True)))
    usual, _ = ours(parts, Family.SDXL, render(clip_skip=parse_skip("2"), negative_prompt="blurry"), "v")
    assert not torch.allclose(drawn, usual, atol=0.05), "the levels make a difference"


@pytest.mark.parametrize(("prediction", "name"), [("epsilon", "epsilon"), ("v", "v_prediction")])
def test_sd2_draws_what_diffusers_draws(prediction: str, name: str) -> None:
    parts = tiny_sdxl.sd2()
    drawn, given = ours(parts, Family.SD2, render(clip_skip=parse_skip("2"), negative_prompt="blurry"), prediction)
    assert close(drawn, theirs(parts, StableDiffusionPipeline, given, scheduler(name, zero=False)))


FULL_VAE = VAEShape(block_out_channels=(128, 256, 512, 512), layers_per_block=2, scaling_factor=0.13025)
FULL_SIZE = {
    Family.SD2: {
        "text_encoder": TextShape(depth=1, width=1024, heads=16, mlp_width=4096, activation="gelu"),
        "unet": UNetShape(
            block_out_channels=(320, 640, 1280, 1280),
            layers_per_block=2,
            cross_attention_dim=1024,
            attention=(1, 1, 1, 0),
            attention_heads=(5, 10, 20, 20),
            use_linear_projection=True,
        ),
        "vae": FULL_VAE,
    },
    Family.SDXL: {
        "text_encoder": TextShape(depth=1, width=768, heads=12, mlp_width=3072),
        "text_encoder_2": TextShape(
            depth=1, width=1280, heads=20, mlp_width=5120, activation="gelu", projection=1280
        ),
        "unet": UNetShape(
            block_out_channels=(320, 640, 1280),
            layers_per_block=2,
            cross_attention_dim=2048,
            attention=(0, 2, 10),
            middle_attention=10,
            attention_heads=(5, 10, 20),
            use_linear_projection=True,
            added_width=2816,
        ),
        "vae": FULL_VAE,
    },
}  # fmt: skip
"""Networks of full size; of the text encoders, which give both sides the same vectors, the first layer is enough."""
FULL_BYTES = {Family.SD2: 5e9, Family.SDXL: 13e9}
PIPELINES = {Family.SD2: StableDiffusionPipeline, Family.SDXL: StableDiffusionXLPipeline}
FULL_PX = 256


@pytest.mark.slow
@pytest.mark.parametrize(("family", "skip"), [(Family.SD2, "24"), (Family.SDXL, "12/32")], ids=str)
def test_networks_of_full_size_draw_what_diffusers_draws(family: Family, skip: str) -> None:
    if free_bytes(torch.device("cpu")) < FULL_BYTES[family]:
        pytest.skip(f"{family.label} in float32 needs {FULL_BYTES[family] / 1e9:.0f} GB of free memory")
    parts, kind = tiny_sdxl.make(**FULL_SIZE[family]), PIPELINES[family]
    weights = parts.states["unet"]
    for at, tensor in weights.items():  # as our networks lay them out, so that both sides have the same tensors
        weights[at] = tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor
    # From a level of 4519 two steps leave the rounding of numbers so large in the picture: 4e-4; five do not.
    for prediction, name, zero, steps in (("epsilon", "epsilon", False, 2), ("v", "v_prediction", True, 5)):
        asked = render(
            clip_skip=parse_skip(skip), negative_prompt="blurry", width=FULL_PX, height=FULL_PX, steps=steps,
            noise_schedule=ZERO_TERMINAL_SNR if zero else "Default",
        )  # fmt: skip
        drawn, given = ours(parts, family, asked, prediction)
        expected = theirs(parts, kind, given, scheduler(name, zero=zero), side_px=FULL_PX, steps=steps)
        assert close(drawn, expected)


@torch.no_grad()
@pytest.mark.parametrize("switch_at", [0.4, pytest.param(0.75, marks=pytest.mark.slow)])
def test_a_refiner_takes_over_at_its_share_of_the_noise(switch_at: float) -> None:
    # The same with diffusers' UNets and scheduler: timestep 999 - 1000 x share is the first that the refiner is asked at.
    base, second = tiny_sdxl.sdxl(), tiny_sdxl.refiner()
    asked = render(clip_skip=parse_skip("2"), negative_prompt="blurry", refiner_switch_at=switch_at)
    networks = [build_text_encoder(base.states[part], base.shapes[part]) for part in ("text_encoder", "text_encoder_2")]
    reader = TextReader.of(*networks, family=Family.SDXL)
    g = EncoderFacts(part="text_encoder_2", shape=second.shapes["text_encoder_2"], rule=Family.SDXL.value.encoders[1])
    alone = TextReader.build([second.states["text_encoder_2"]], [g], family=Family.SDXL)
    texts = [condition(one, asked) for one in (reader, alone)]
    built = [
        build_unet(dict(parts.states["unet"]), parts.shapes["unet"], dtype=torch.float32, device="cpu")
        for parts in (base, second)
    ]
    finish = Refiner(unet=built[1], prediction="epsilon", conditionings=[texts[1]])
    *_, drawn = sample(built[0], [Picture(render=asked, conditioning=texts[0])], refiner=finish)

    unets = []
    for parts in (base, second):
        unets.append(UNet2DConditionModel(**parts.shapes["unet"].config()).eval())
        unets[-1].load_state_dict(parts.states["unet"])
    schedule = scheduler("epsilon", zero=False)
    schedule.set_timesteps(10)
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(5)) * schedule.init_noise_sigma
    asked_of = []
    for timestep in schedule.timesteps:
        which = int((999 - timestep) / 1000 >= switch_at)
        asked_of.append(which)
        above, below = texts[which].positive[0].schedule[0][1], texts[which].negative[0][1]
        size = [64, 64, 0, 0]
        ends = ([6.0], [2.5]) if which else ([64, 64], [64, 64])
        out = [
            unets[which](
                schedule.scale_model_input(x, timestep), timestep, encoder_hidden_states=side.tokens[None],
                added_cond_kwargs={"text_embeds": side.pooled[None], "time_ids": torch.tensor([[*size, *end]])},
            ).sample
            for side, end in ((above, ends[0]), (below, ends[1]))
        ]  # fmt: skip
        x = schedule.step(out[1] + 7.0 * (out[0] - out[1]), timestep, x).prev_sample
    assert {0, 1} == set(asked_of)
    assert torch.allclose(drawn.latent, x, rtol=0, atol=TOLERANCE * x.abs().max().item())
