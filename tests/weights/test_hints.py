"""Clip Skips in the notes beside a model file."""

import json
from pathlib import Path

import pytest

from clipskip.weights.hints import read_hints

SPELLINGS = (("Clip skip", "2"), ("clipSkip", 2), ("clip_skip", 1.0))


@pytest.mark.parametrize(
    ("ending", "note", "hints"),
    [
        (".metadata.json", {"usage_tips": '{"clip_skip": -2, "strength": 0.8}'}, [(2, 0)]),
        (".metadata.json", {"usage_tips": {"clip_skip": "3"}}, [(3, 0)]),
        (".metadata.json", {"usage_tips": "{not json"}, []),
        (".metadata.json", {"usage_tips": '{"clip_skip": 0}'}, []),
        (".metadata.json", [1], []),
        (".civitai.info", {"images": [{"meta": {name: skip}} for name, skip in SPELLINGS]}, [(1, 1), (2, 2)]),
        (".civitai.info", {"images": [None, {"meta": []}, {"meta": {"Clip skip": {}}}, {"meta": {"Clip skip": True}}]}, []),
        (".civitai.info", {"description": "<p>Use <b>CLIP</b>-Skip: 2</p>"}, [(2, 0)]),
        (".civitai.info", {"description": "works with Clip Skip -2 and others"}, [(2, 0)]),
        (".civitai.info", {"description": "<p>Clip skip: 2</p><p>Sampler: Euler a</p>"}, [(2, 0)]),
        (".civitai.info", {"description": "<li>Clip skip 1</li><li>2 LoRAs</li>"}, [(1, 0)]),
        (".civitai.info", {"description": "Clip&nbsp;Skip：２"}, [(2, 0)]),
        (".civitai.info", {"description": "Clip skip 1-2"}, []),
        (".civitai.info", {"description": "Clip skip 1 or 2; I use clip skip 2."}, [(2, 0)]),
        (".civitai.info", {"description": "clip skip 99", "images": "x"}, []),
    ],
)  # fmt: skip
def test_what_a_note_says_of_clip_skip(tmp_path: Path, ending: str, note: object, hints: list[tuple[int, int]]) -> None:
    model = tmp_path / "x.safetensors"
    model.with_suffix(ending).write_text(json.dumps(note))
    assert [(hint.clip_skip, hint.pictures) for hint in read_hints(model)] == hints


def test_without_notes_nothing_is_said(tmp_path: Path) -> None:
    assert read_hints(tmp_path / "x.safetensors") == ()
