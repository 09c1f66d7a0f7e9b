"""Every row of the table of settings is checked, written into settings texts and read from them."""

from dataclasses import replace

import pytest

from clipskip.errors import SpecError
from clipskip.spec import FileRef, Hires, LoraRef, Mask, Render, Start, render_infotext, request_from_text
from clipskip.spec.table import HIRES, MASK, PICTURE, SETTINGS, START, Setting

BASE = Render(prompt="best quality, swamp", model=FileRef(name="m", hash="0123456789"), seed=5)
TEXTS = {
    "sampler": "DPM++ 2M",
    "scheduler": "Karras",
    "prompt": "swamp, (reeds:1.2)",
    "negative_prompt": "blurry, dark",
}
"""Values of rows that are free text."""


def another(row: Setting, value: object) -> object:
    """A value that the row allows, and is not this one."""
    if row.choices:
        return next(choice for choice in row.choices if choice not in (value, row.absent))
    if row.kind is str:
        return TEXTS.get(row.name, "Lanczos")
    low, high = max(row.low, 0), min(row.high, 1000)
    chosen = {"width": 704, "height": 768}.get(row.name, (low + high) / 4)
    return row.kind(chosen)


def holder(render: Render, part: str) -> object:
    """What holds the rows of a part."""
    start = render.start or Start(hash="ab" * 16)
    return {
        "": render,
        "hires": render.hires or Hires(),
        "start": start,
        "mask": start.mask or Mask(hash="cd" * 16),
    }[part]


def changed(row: Setting) -> Render:
    """A picture at another value of the row."""
    own = holder(BASE, row.part)
    more = {"variation_strength": 0.5} if row.name == "variation_seed" else {}
    new = replace(own, **{row.name: another(row, getattr(own, row.name))}, **more)  # type: ignore[type-var]  # dataclasses
    if isinstance(new, Render):
        return new
    if isinstance(new, Hires):
        return replace(BASE, hires=new)
    return replace(BASE, start=Start(hash="ab" * 16, mask=new) if isinstance(new, Mask) else new)


@pytest.mark.parametrize("row", SETTINGS, ids=lambda row: row.key)
def test_every_setting_comes_back_from_the_settings_of_a_picture(row: Setting) -> None:
    render = changed(row)
    asked = request_from_text(render_infotext(render))
    assert asked.unused == ()
    assert (asked.hires, asked.start) == (render.hires, render.start)
    for plain in PICTURE:
        assert getattr(asked, plain.name) == getattr(render, plain.name), plain.key


@pytest.mark.parametrize("row", SETTINGS, ids=lambda row: row.key)
def test_every_setting_makes_another_key(row: Setting) -> None:
    render = changed(row)
    plain = replace(render, start=replace(render.start, mask=None)) if row.part == "mask" and render.start else BASE
    assert render.key not in (BASE.key, plain.key)


@pytest.mark.parametrize("row", [row for row in SETTINGS if row.kind is not str], ids=lambda row: row.key)
def test_every_number_out_of_range_is_an_error_with_the_range(row: Setting) -> None:
    for value in (row.high + 1, row.low - 1, float("nan"), True):
        with pytest.raises(SpecError) as caught:
            replace(holder(BASE, row.part), **{row.name: value})  # type: ignore[type-var]  # dataclasses
        assert str(row.high) in str(caught.value) and caught.value.field == row.key


@pytest.mark.parametrize("row", [row for row in SETTINGS if row.choices], ids=lambda row: row.key)
def test_a_word_that_is_no_choice_is_an_error_with_the_choices(row: Setting) -> None:
    with pytest.raises(SpecError) as caught:
        replace(holder(BASE, row.part), **{row.name: "other"})  # type: ignore[type-var]  # dataclasses
    assert all(choice in str(caught.value) for choice in row.choices)


def test_no_two_settings_share_a_name_and_those_that_share_a_label_stand_in_no_text_together() -> None:
    assert len({row.key for row in SETTINGS}) == len(SETTINGS)
    labels = [row.label for rows in (PICTURE, HIRES, MASK) for row in rows] + [row.label for row in START[1:]]
    assert len(set(labels)) == len(labels)


def test_the_key_of_a_picture_without_later_settings_is_what_it_always_was() -> None:
    ogre = LoraRef(name="ogre", text_encoder=0.8, unet=0.8, hash="0123456789ab")
    render = replace(BASE, loras=(ogre,), clip_skip=replace(BASE.clip_skip, from_end=2), steps=30)
    assert render.key == "94866b06e2b3"
    assert replace(render, start=Start(hash="ab" * 16, strength=0.5)).key == "4e866d74ca93"
    assert Render(prompt="", model=FileRef(name="")).key == "0b15768c91cc"


def test_eta_of_ddim_has_a1111s_name_of_it() -> None:
    text = render_infotext(replace(BASE, sampler="DDIM", eta=0.5))
    assert "Eta DDIM: 0.5" in text and request_from_text(text).eta == 0.5


def test_a_second_pass_has_the_loras_of_its_own_prompt_as_tags() -> None:
    ogre = LoraRef(name="ogre", text_encoder=0.8, unet=0.8, hash="0123456789ab")
    text = render_infotext(replace(BASE, hires=Hires(prompt="swamp, reeds", loras=(ogre,))))
    assert 'Hires prompt: "swamp, reeds <lora:ogre:0.8>"' in text
    asked = request_from_text(text).hires
    assert asked is not None and asked.prompt == "swamp, reeds <lora:ogre:0.8>"


@pytest.mark.parametrize(
    ("first", "width", "height"),
    [("256x384", 256, 384), ("0x0", 448, 640)],
    ids=["given", "as near to 512 x 512 as may be"],
)
def test_a_text_from_before_hires_had_a_scale_names_the_first_pass(first: str, width: int, height: int) -> None:
    asked = request_from_text(
        f"a cat\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 5, Size: 768x1152, Denoising strength: 0.6, "
        f"First pass size: {first}"
    )
    assert (asked.width, asked.height, asked.unused) == (width, height, ())
    assert asked.hires == Hires(width=768, height=1152, strength=0.6)


def test_a_second_pass_with_the_first_ones_sampler_has_none_of_its_own() -> None:
    text = "a fox\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 5, Size: 512x512, Denoising strength: 0.5, Hires upscale: 2"
    same = f"{text}, Hires sampler: Use same sampler, Hires schedule type: Use same scheduler"
    assert request_from_text(text).hires is not None
    assert request_from_text(same) == request_from_text(text)


def test_a_denoising_strength_without_a_second_pass_or_a_picture_is_not_used() -> None:
    text = "a cat\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 5, Size: 64x64, Denoising strength: 0.6"
    assert request_from_text(text).unused == (("Denoising strength", "0.6"),)


@pytest.mark.parametrize(
    ("hires", "size", "cut"),
    [
        (Hires(scale=1.5), (768, 1152), (0, 0)),
        (Hires(scale=1.3), (665, 998), (0, 0)),
        (Hires(width=1024), (1024, 1536), (0, 0)),
        (Hires(height=1024), (682, 1024), (0, 0)),
        (Hires(width=1024, height=1024), (1024, 1536), (0, 64)),
        (Hires(width=512, height=1024), (682, 1024), (21, 0)),
    ],
)
def test_a_second_pass_is_as_large_as_a1111_makes_it(hires: Hires, size: tuple[int, int], cut: tuple[int, int]) -> None:
    assert (hires.size(512, 768), hires.cut(512, 768)) == (size, cut)


def test_a_second_pass_that_would_be_too_large_is_an_error_with_its_size() -> None:
    with pytest.raises(SpecError, match="8192 x 8192"):
        replace(BASE, width=2048, height=2048, hires=Hires(scale=4))


def test_a_picture_that_begins_at_another_has_no_second_pass() -> None:
    with pytest.raises(SpecError, match="not both"):
        replace(BASE, hires=Hires(), start=Start(hash="ab" * 16))
