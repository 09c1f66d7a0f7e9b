"""A sweep's manifest has every setting of the table, so that the sweep goes on as it began."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from spec.test_table import changed

from clipskip.spec import ClipSkip, Hires, LoraRef
from clipskip.spec.table import PICTURE, SETTINGS, Setting
from clipskip.sweep import Sweep
from clipskip.sweep.manifest import read_manifest, request_of, write_manifest

LATER = ("vae", "start", "hires", "eta", "s_churn", "s_tmin", "s_tmax", "s_noise")


@pytest.mark.parametrize("row", SETTINGS, ids=lambda row: row.key)
def test_every_setting_comes_back_from_a_manifest(row: Setting, tmp_path: Path) -> None:
    base = changed(row)
    write_manifest(tmp_path, Sweep(base=base, skips=(ClipSkip(1), ClipSkip(2))))
    manifest = read_manifest(tmp_path)
    assert manifest is not None
    asked, skips = request_of(manifest)
    assert skips == (ClipSkip(1), ClipSkip(2)) and asked.prompt == base.prompt
    assert (asked.hires, asked.start) == (base.hires, base.start)
    for plain in PICTURE:
        assert getattr(asked, plain.name) == getattr(base, plain.name), plain.key


def test_a_manifest_from_before_these_settings_is_still_read(tmp_path: Path) -> None:
    base = changed(PICTURE[0])
    write_manifest(tmp_path, Sweep(base=base, skips=(ClipSkip(1),)))
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    for name in LATER:
        del manifest["request"][name]
    asked, _ = request_of(manifest)
    assert (asked.steps, asked.eta, asked.s_noise, asked.hires, asked.vae) == (base.steps, None, 1.0, None, None)


def test_the_loras_of_a_second_pass_come_back_as_tags_with_their_hashes(tmp_path: Path) -> None:
    ogre = LoraRef(name="ogre", text_encoder=0.8, unet=0.8, hash="0123456789ab")
    base = replace(changed(PICTURE[0]), hires=Hires(prompt="swamp", loras=(ogre,)))
    write_manifest(tmp_path, Sweep(base=base, skips=(ClipSkip(1),)))
    manifest = read_manifest(tmp_path)
    assert manifest is not None
    asked, _ = request_of(manifest)
    assert asked.hires == Hires(prompt="swamp <lora:ogre:0.8>") and asked.lora_hashes == (("ogre", "0123456789ab"),)
