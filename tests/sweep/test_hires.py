"""A second pass, against A1111's order of steps written out anew: enlarge, add the seed's noise at the larger size, go down."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from tiny_upscaler import esrgan_state, save_esrgan, spandrel
from tiny_upscaler import expected as expected_of
from torch import Tensor
from torch.nn.functional import interpolate

from clipskip.encode import Conditioning, condition
from clipskip.errors import DamagedFile, NotFound
from clipskip.sample import stable_diffusion
from clipskip.spec import Hires, LoraRef, Render, Request, parse_skips, render_infotext, request_from_text
from clipskip.sweep import (
    Advance,
    Drawn,
    Extras,
    Model,
    SweepFolder,
    doubts_of,
    draw_missing,
    open_model,
    plan_sweep,
    resolve,
)
from clipskip.weights import Library, hash_file

ASKED = Request(
    prompt="swamp, reeds", negative_prompt="blurry", steps=3, seed=5, width=64, height=96, sampler="Euler", cfg_scale=3,
    hires=Hires(scale=1.5, steps=4, strength=0.6),
)  # fmt: skip
TABLE = stable_diffusion()
MODEL = "4x-Sharp"
CELL_PX = 2
"""Of the tiny model's pictures."""


def drawn(asked: Request, model: Model, library: Library) -> tuple[Render, NDArray[np.uint8]]:
    render, extras = resolve(asked, model.facts, library)
    (found,) = (event for event in model.draw([render], extras) if isinstance(event, Drawn))
    return render, found.pixels


def levels(steps: int) -> list[float]:
    times = torch.linspace(999, 0, steps, dtype=torch.float64)
    logs = torch.tensor(TABLE.sigmas, dtype=torch.float64).log()
    low, share = times.long(), times - times.long()
    return [*(logs[low] * (1 - share) + logs[(low + 1).clamp(max=999)] * share).exp().tolist(), 0.0]


def went_down(model: Model, texts: Conditioning, x: Tensor, sigmas: list[float], *, cfg: float) -> Tensor:
    """Euler's steps with guidance, for a model that predicts v."""
    for i in range(len(sigmas) - 1):
        sigma = sigmas[i]
        unit = (1 + sigma**2) ** 0.5
        time = torch.tensor(TABLE.timestep(sigma))
        pair = [
            next(v.tokens for until, v in schedule if i <= until)
            for schedule in (texts.positive[0].schedule, texts.negative)
        ]
        with torch.no_grad():
            above, below = (
                model.unet((x / unit).to(model.unet.dtype), time, text[None].to(model.unet.dtype)).float()
                for text in pair
            )
        guessed = x / unit**2 - (below + cfg * (above - below)) * sigma / unit
        x = x + (x - guessed) / sigma * (sigmas[i + 1] - sigma)
    return x


def noise(height: int, width: int, seed: int = 5) -> Tensor:
    return torch.randn(4, height, width, generator=torch.Generator().manual_seed(seed))[None]


@torch.no_grad()
def pixels_of(model: Model, latent: Tensor) -> NDArray[np.uint8]:
    made = model.vae.decode((latent / model.vae.shape.scaling_factor).to(model.vae.dtype)).float()[0]
    return ((made.permute(1, 2, 0) / 2 + 0.5).clamp(0, 1) * 255).numpy().astype(np.uint8)


def reference(model: Model, upscaler: str) -> NDArray[np.uint8]:
    texts = condition(
        model.reader,
        Render(
            prompt="swamp, reeds",
            negative_prompt="blurry",
            model=model.facts.ref,
            clip_skip=model.facts.default_clip_skip,
        ),
    )
    first = went_down(model, texts, noise(12, 8) * levels(3)[0], levels(3), cfg=3)
    if upscaler.startswith("Latent"):
        kind = "bicubic" if "bicubic" in upscaler else "bilinear"
        larger = interpolate(first, size=(18, 12), mode=kind, antialias="antialiased" in upscaler)
    else:
        kind = Image.Resampling.NEAREST if upscaler == "Nearest" else Image.Resampling.LANCZOS
        picture = Image.fromarray(pixels_of(model, first))
        if upscaler == MODEL:
            fourfold = expected_of(esrgan_state(), np.asarray(picture))
            picture = Image.fromarray(np.rint(fourfold).astype(np.uint8))
        picture = picture.resize((12 * CELL_PX, 18 * CELL_PX), kind)
        whole = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() / 255 * 2 - 1
        with torch.no_grad():
            mean, log_variance = model.vae.quant_conv(model.vae.encoder(whole.to(model.vae.dtype))).float().chunk(2, 1)
        larger = (mean + (log_variance / 2).exp() * noise(18, 12)) * model.vae.shape.scaling_factor
    sigmas = levels(int(4 / 0.6))[-5:]
    return pixels_of(model, went_down(model, texts, larger + noise(18, 12) * sigmas[0], sigmas, cfg=3))


@pytest.fixture
def exact(library: Library, monkeypatch: pytest.MonkeyPatch) -> Model:
    """The model in float32: in bfloat16 two halves of guidance in one call round otherwise than two calls."""
    monkeypatch.setattr("clipskip.sweep.run.best_dtype", lambda _: torch.float32)
    return open_model("tiny", library=library)


@pytest.mark.parametrize("upscaler", ["Latent", "Latent (bicubic antialiased)", "None", "Nearest", MODEL])
def test_a_second_pass_is_a1111s_order_of_steps(exact: Model, folder: Path, tmp_path: Path, upscaler: str) -> None:
    assert ASKED.hires
    if upscaler == MODEL:
        spandrel()
        save_esrgan(tmp_path / "ESRGAN" / f"{MODEL}.safetensors")
    library = Library((folder, tmp_path))
    _, found = drawn(replace(ASKED, hires=replace(ASKED.hires, upscaler=upscaler)), exact, library)
    expected = reference(exact, upscaler)
    assert found.shape == expected.shape == (18 * CELL_PX, 12 * CELL_PX, 3)
    # Whole values of 255, cut off: what is 1e-4 apart may fall on two sides of one.
    assert np.abs(found.astype(int) - expected.astype(int)).max() <= 1


def test_a_second_pass_changes_the_picture_it_enlarges(model: Model, library: Library) -> None:
    _, whole = drawn(ASKED, model, library)
    assert ASKED.hires
    _, only_enlarged = drawn(replace(ASKED, hires=replace(ASKED.hires, strength=0.0)), model, library)
    assert whole.shape == only_enlarged.shape and not np.array_equal(whole, only_enlarged)


def test_a_size_of_another_shape_cuts_what_sticks_out(model: Model, library: Library) -> None:
    _, found = drawn(replace(ASKED, hires=Hires(width=128, height=128, steps=2)), model, library)
    assert found.shape == (16 * CELL_PX, 16 * CELL_PX, 3)


def test_edits_go_on_counting_in_the_second_pass(model: Model, library: Library) -> None:
    """[a:b:1.5] changes half-way through the second pass; [a:b:0.5] is all b there (A1111 1.6)."""
    edited = replace(ASKED, prompt="[swamp:reeds:1.5]", steps=2, hires=Hires(steps=4, strength=0.5))
    plain = replace(edited, prompt="swamp", hires=replace(edited.hires, prompt="[swamp:reeds:0.5]"))  # type: ignore[type-var]  # set
    late = replace(edited, prompt="swamp", hires=replace(edited.hires, prompt="reeds"))  # type: ignore[type-var]  # set
    pictures = [drawn(one, model, library)[1] for one in (edited, plain, late)]
    assert np.array_equal(pictures[1], pictures[2])
    assert not np.array_equal(pictures[0], pictures[2])


def test_the_second_pass_has_its_own_sampler_prompts_and_loras(model: Model, library: Library) -> None:
    own = Hires(steps=2, sampler="DPM++ 2M Karras", prompt="reeds <lora:ogre:0.5>", negative_prompt="dark")
    render, picture = drawn(replace(ASKED, hires=own), model, library)
    hires = render.hires
    assert hires is not None and (hires.sampler, hires.scheduler, hires.prompt) == ("DPM++ 2M", "Karras", "reeds")
    assert [lora.name for lora in hires.loras or ()] == ["ogre"] and render.loras == ()
    _, without = drawn(replace(ASKED, hires=replace(own, prompt="reeds")), model, library)
    assert not np.array_equal(picture, without)
    asked = request_from_text(render_infotext(render))
    again, _ = resolve(asked, model.facts, library)
    assert again == render


def test_what_is_the_firsts_is_no_setting_of_the_second(model: Model, library: Library) -> None:
    same = Hires(sampler="Euler", scheduler="Automatic", negative_prompt="blurry")
    render, _ = resolve(replace(ASKED, hires=same), model.facts, library)
    assert render.hires == Hires()


def test_a_batch_of_second_passes_gives_what_single_ones_give(model: Model, library: Library) -> None:
    renders, extras = [], Extras(loras={})
    for seed in (1, 2):
        render, extras = resolve(replace(ASKED, seed=seed), model.facts, library)
        renders.append(render)
    together = [event for event in model.draw(renders, extras) if isinstance(event, Drawn)]
    for event in together:
        (alone,) = (one for one in model.draw([renders[event.index]], extras) if isinstance(one, Drawn))
        assert np.abs(alone.pixels.astype(int) - event.pixels.astype(int)).max() <= 1
    assert sorted(event.index for event in together) == [0, 1]


def test_progress_counts_both_passes(model: Model, library: Library) -> None:
    render, extras = resolve(ASKED, model.facts, library)
    steps = [(e.step, e.steps) for e in model.draw([render], extras) if isinstance(e, Advance)]
    assert steps == [(i, 7) for i in range(1, 8)]


def test_a_sweep_has_second_passes_and_is_found_again(model: Model, library: Library, tmp_path: Path) -> None:
    asked = replace(ASKED, prompt="swamp <lora:ogre:0.8>", hires=Hires(steps=2, prompt="reeds <lora:ogre:0.5>"))
    sweep, extras = plan_sweep(asked, parse_skips("1-2"), model.facts, library)
    passes = [sweep.cell(row, 0).hires for row in (0, 1)]
    assert [[lora.unet for lora in second.loras or ()] for second in passes if second] == [[], [0.5]]
    folder = SweepFolder.create(tmp_path, sweep)
    list(draw_missing(model, folder, extras))
    assert all(folder.has(row, column) for row in (0, 1) for column in (0, 1))
    with Image.open(folder.place(1, 1)) as picture:
        assert picture.size == (16 * CELL_PX, 24 * CELL_PX)


def test_an_upscaler_that_is_not_here_is_an_error_with_those_that_are(model: Model, library: Library) -> None:
    with pytest.raises(NotFound, match=r"4x-UltraSharp.*Latent.*Lanczos"):
        resolve(replace(ASKED, hires=Hires(upscaler="4x-UltraSharp")), model.facts, library)


def test_the_settings_note_an_upscaler_model_and_its_hash_and_find_it_again(
    model: Model, folder: Path, tmp_path: Path
) -> None:
    spandrel()
    path = save_esrgan(tmp_path / "models/ESRGAN/4x-Sharp.safetensors")
    library = Library((folder, tmp_path))
    render, _ = resolve(replace(ASKED, hires=Hires(upscaler="4x-Sharp.safetensors")), model.facts, library)
    text = render_infotext(render)
    digits = hash_file(path).autov2
    assert f"Hires upscaler: 4x-Sharp, Hires upscaler hash: {digits}" in text
    again = request_from_text(text)
    assert again.hires and (again.hires.upscaler, again.hires.upscaler_hash) == ("4x-Sharp", digits)
    path.rename(path.with_name("renamed.safetensors"))
    assert resolve(again, model.facts, library)[1].upscalers[digits].path.stem == "renamed"
    save_esrgan(path, esrgan_state(seed=9))
    render, extras = resolve(again, model.facts, library)
    (doubt,) = [one for one in doubts_of(again, render, model.facts, extras) if one.field == "hires_upscaler"]
    assert f"not {digits}" in doubt.text


def test_an_upscaler_model_that_is_damaged_is_an_error_before_the_first_step(
    model: Model, folder: Path, tmp_path: Path
) -> None:
    spandrel()
    state = esrgan_state()
    del state["body.0.rdb2.conv3.weight"]
    save_esrgan(tmp_path / "ESRGAN/half.safetensors", state)
    asked = replace(ASKED, hires=Hires(upscaler="half"))
    render, extras = resolve(asked, model.facts, Library((folder, tmp_path)))
    with pytest.raises(DamagedFile, match=r"half\.safetensors does not contain a whole"):
        next(model.draw([render], extras))


def test_the_first_passs_loras_are_not_the_seconds_where_it_has_a_prompt_without_any(
    model: Model, library: Library
) -> None:
    asked = replace(ASKED, prompt="swamp <lora:ogre:0.8>", hires=Hires(prompt="reeds"))
    render, _ = resolve(asked, model.facts, library)
    assert [lora.name for lora in render.loras] == ["ogre"] and render.hires and render.hires.loras == ()
    beside = replace(asked, prompt="swamp", loras=(LoraRef(name="ogre"),))
    render, _ = resolve(beside, model.facts, library)
    assert render.hires and render.hires.loras is None, "one that is named beside the prompts counts in both"
