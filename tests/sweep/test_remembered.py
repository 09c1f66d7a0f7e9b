"""An answer that advise keeps is taken by later pictures of the same files, and said."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from clipskip.doors.cli import app
from clipskip.errors import SpecError
from clipskip.spec import ClipSkip, LoraRef, Request
from clipskip.sweep import load_model, resolve, warnings_of
from clipskip.weights import Library
from clipskip.weights.library import STARTER
from clipskip.weights.remembered import answers_file, remember, remembered_for

ASKED = Request(prompt="a frog", steps=1, width=64, height=64, seed=1, model="mine")


@pytest.fixture
def library(tmp_path: Path) -> Library:
    shutil.copy(STARTER / "starter.safetensors", tmp_path / "mine.safetensors")
    return Library((tmp_path, STARTER))


def test_what_was_found_for_these_files_is_used_and_said(library: Library) -> None:
    model = load_model(library.folders[0] / "mine.safetensors")
    with_lora = replace(ASKED, loras=(LoraRef(name="ogre"),))
    render, extras = resolve(with_lora, model.facts, library)
    assert render.clip_skip == ClipSkip(2), "the file's own value, before there is an answer"
    path = remember(model.facts.source, extras.loras, clip_skip=4, sure=0.9, why="measured")
    assert path.name == "mine.clipskip.json"
    render, extras = resolve(with_lora, model.facts, library)
    assert render.clip_skip == ClipSkip(4)
    assert any("Clip Skip 4 is used, as advise found" in line for line in warnings_of(with_lora, extras))
    assert resolve(ASKED, model.facts, library)[0].clip_skip == ClipSkip(2), "not for other LoRAs"
    named = replace(with_lora, clip_skip=ClipSkip(1))
    render, extras = resolve(named, model.facts, library)
    assert render.clip_skip == ClipSkip(1) and not any("advise" in w for w in warnings_of(named, extras))


def test_a_newer_answer_takes_the_place_of_the_older(library: Library) -> None:
    source = load_model(library.folders[0] / "mine.safetensors").facts.source
    for skip in (3, 5):
        remember(source, ["b" * 12, "a" * 12], clip_skip=skip, sure=0.5, why="")
    remember(source, [], clip_skip=1, sure=0.5, why="")
    content = json.loads(answers_file(source).read_text())
    assert [(answer["loras"], answer["clip_skip"]) for answer in content["answers"]] == [
        ([], 1),
        (["a" * 12, "b" * 12], 5),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"format": "clipskip 2", "answers": []}',
        '{"format": "clipskip 1", "answers": [{"model": 1}, 3]}',
    ],
)
def test_a_file_that_is_not_understood_says_nothing(library: Library, text: str) -> None:
    source = load_model(library.folders[0] / "mine.safetensors").facts.source
    answers_file(source).write_text(text)
    assert remembered_for(source, []) is None


def test_the_embedded_model_has_nothing_to_remember() -> None:
    with pytest.raises(SpecError, match="embedded model"):
        remember(load_model(STARTER / "starter.safetensors").facts.source, [], clip_skip=2, sure=1, why="")


@pytest.mark.slow
def test_advise_keeps_its_answer(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "tiny.safetensors", tmp_path / "mine.safetensors")
    words = [
        "advise",
        "a frog",
        "--model",
        "mine",
        "--models-folder",
        str(tmp_path),
        "--remember",
        "--clip-skip",
        "1-2",
    ]
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    (answer,) = json.loads((tmp_path / "mine.clipskip.json").read_text())["answers"]
    assert answer["clip_skip"] == 2 and answer["loras"] == []
