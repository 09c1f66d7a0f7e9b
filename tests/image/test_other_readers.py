"""Our pictures in other people's readers: sd-parsers, and sd-prompt-reader where it is installed (`make` does)."""

import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sd_parsers import ParserManager

from clipskip.image import write_png
from clipskip.spec import ClipSkip, FileRef, LoraRef, PhraseSkip, Render, parse_skip, render_infotext

RENDER = Render(
    prompt="best quality, (swamp:1.2), fireflies\nNegative prompt: is only a word here\nSteps: are wet",
    negative_prompt="lowres, blurry\nSteps: none",
    model=FileRef(name="anything-v4.0-pruned", hash="69528490df"),
    loras=(
        LoraRef(name="shrek", text_encoder=0.8, unet=0.8, hash="0123456789ab"),
        LoraRef(name="ink, wash", text_encoder=-0.5, unet=1, hash="ba9876543210"),
    ),
    embeddings=(FileRef(name="bad-hands", hash="112233445566"),),
    clip_skip=ClipSkip(2),
    steps=30,
    seed=2**32 + 5,
    width=512,
    height=768,
    version="0.1.0",
)
PROMPT = (
    "best quality, (swamp:1.2), fireflies\nnegative prompt: is only a word here\nsteps: are wet "
    "<lora:shrek:0.8> <lora:ink wash:-0.5:1>"
)
NEGATIVE = "lowres, blurry\nsteps: none"
IN_FULL = replace(
    RENDER,
    clip_skip=parse_skip("[2:4.5:0.5]"),
    negative_clip_skip=parse_skip("[1|2]"),
    phrase_skips=(PhraseSkip.parse('the "swamp", {wet}: steps: 1=6'), PhraseSkip.parse("fireflies=[1:3:5]")),
)
"""With all that A1111's Clip skip cannot say."""
BARE = replace(RENDER, prompt="", negative_prompt="", loras=(), embeddings=())


def saved(folder: Path, render: Render) -> Path:
    """The render's picture, of no particular pixels."""
    path = folder / "picture.png"
    write_png(path, np.zeros((8, 8, 3), np.uint8), render_infotext(render))
    return path


@pytest.mark.parametrize("render", [RENDER, IN_FULL])
def test_sd_parsers_reads_every_setting(tmp_path: Path, render: Render) -> None:
    info = ParserManager().parse(saved(tmp_path, render))
    assert info is not None
    (sampler,) = info.samplers
    assert [p.value for p in sampler.prompts] == [PROMPT]
    assert [p.value for p in sampler.negative_prompts] == [NEGATIVE]
    assert sampler.name == "Euler a" and sampler.parameters["seed"] == str(2**32 + 5)
    assert sampler.parameters["steps"] == "30" and sampler.parameters["cfg_scale"] == "7"
    assert sampler.model is not None and (sampler.model.name, sampler.model.hash) == (
        "anything-v4.0-pruned",
        "69528490df",
    )
    assert info.metadata["Clip skip"] == "2" and info.metadata["Size"] == "512x768"
    assert info.metadata["Hashes"] == {
        "model": "69528490df",
        "lora:shrek": "0123456789ab",
        "lora:ink wash": "ba9876543210",
        "embed:bad-hands": "112233445566",
    }


def test_sd_parsers_reads_an_empty_prompt(tmp_path: Path) -> None:
    info = ParserManager().parse(saved(tmp_path, BARE))
    assert info is not None and info.samplers[0].prompts == [] and info.metadata["Clip skip"] == "2"


@pytest.fixture
def prompt_reader() -> Any:  # a class of a package without types
    """sd-prompt-reader's reading part: it needs piexif beside Pillow, and nothing of its window."""
    pytest.importorskip("piexif")
    pytest.importorskip("sd_prompt_reader")
    return importlib.import_module("sd_prompt_reader.image_data_reader").ImageDataReader


@pytest.mark.parametrize("render", [RENDER, IN_FULL])
def test_sd_prompt_reader_reads_every_setting(tmp_path: Path, prompt_reader: Any, render: Render) -> None:
    found = prompt_reader(str(saved(tmp_path, render)))
    assert found.status.name == "READ_SUCCESS" and found.tool == "A1111 webUI"
    assert (found.positive, found.negative) == (PROMPT, NEGATIVE)
    assert (found.width, found.height) == ("512", "768")
    wanted = {"model": "anything-v4.0-pruned", "sampler": "Euler a", "seed": str(2**32 + 5), "cfg": "7", "steps": "30"}
    assert {key: found.parameter[key] for key in wanted} == wanted
    assert "Clip skip: 2," in found.setting and '"shrek: 0123456789ab, ink wash: ba9876543210"' in found.setting


@pytest.mark.parametrize("negative", ["", "lowres"])
def test_sd_prompt_reader_reads_an_empty_prompt(tmp_path: Path, prompt_reader: Any, negative: str) -> None:
    found = prompt_reader(str(saved(tmp_path, replace(BARE, negative_prompt=negative))))
    assert (found.positive, found.negative, found.parameter["seed"]) == ("", negative, str(2**32 + 5))
