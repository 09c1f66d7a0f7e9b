"""SDXL and SD 2.x from the command line, with tiny models made on the fly."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny_sdxl
import torch
from PIL import Image
from safetensors.torch import load_file

from clipskip.doors.cli import main
from clipskip.encode import encode_text, open_text_encoder
from clipskip.image import read_infotext
from clipskip.spec import ClipSkip, parse_skip
from clipskip.weights import hash_file

DRAW = ("--steps", "2", "--size", "64x64")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("families")
    tiny_sdxl.write(tiny_sdxl.sdxl(), folder / "pony.safetensors", dtype=torch.float16)
    marks = {"v_pred": torch.zeros(0), "ztsnr": torch.zeros(0)}
    tiny_sdxl.write(tiny_sdxl.sdxl(5), folder / "noob.safetensors", **marks)
    tiny_sdxl.write(tiny_sdxl.sd2(), folder / "sd21.safetensors")
    tiny_sdxl.write(tiny_sdxl.refiner(), folder / "refiner.safetensors")
    return folder


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], models: Path, tmp_path: Path):
    """Runs the command in an empty folder; gives exit code, output and errors."""
    monkeypatch.setenv("CLIPSKIP_MODELS", str(models))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["clipskip", *words])
        with pytest.raises(SystemExit) as stopped:
            main()
        out, err = capsys.readouterr()
        return int(stopped.value.code or 0), out, err

    return call


def test_a_sweep_has_a_clip_skip_for_each_encoder(run) -> None:
    code, _, err = run("sweep", "a red frog", "--model", "pony", "--clip-skip", "1,2,2/5", "--out", "o", *DRAW)
    assert code == 0, err
    pictures = sorted(Path("o").glob("row*.png"))
    texts = [read_infotext(path) for path in pictures]
    assert len(pictures) == 3 and len({path.read_bytes() for path in pictures}) == 3
    assert any("2/5" in text for text in texts) and all("Noise Schedule" not in text for text in texts)


def test_generate_draws_at_the_familys_own_clip_skip_and_size(run) -> None:
    code, out, err = run("generate", "a frog", "--model", "pony", "--steps", "1", "--seed", "1", "--out", "g")
    assert code == 0, err
    text = read_infotext(Path(out.split()[-1]))
    assert "Clip skip: 2" in text and "Size: 64x64" in text


def test_a_noise_schedule_goes_into_the_settings_and_comes_back(run) -> None:
    code, out, err = run("generate", "a frog", "--model", "noob", "--seed", "1", "--out", "g", *DRAW)
    assert code == 0, err
    first = Path(out.split()[-1])
    assert "Noise Schedule: Zero Terminal SNR" in read_infotext(first)
    code, out, err = run("generate", "--settings", str(first), "--out", "again")
    assert code == 0 and Path(out.split()[-1]).read_bytes() == first.read_bytes(), err


def test_sd2_is_drawn_at_all_24_clip_skips(run) -> None:
    code, _, err = run("sweep", "a frog", "--model", "sd21", "--clip-skip", "1,2,24", "--out", "o", *DRAW)
    assert code == 0 and len(list(Path("o").glob("row*.png"))) == 3, err
    code, _, err = run("sweep", "a frog", "--model", "sd21", "--clip-skip", "25", "--out", "p", *DRAW)
    assert code == 2 and "24 layers" in err
    code, _, err = run("sweep", "a frog", "--model", "sd21", "--clip-skip", "2/3", "--out", "p", *DRAW)
    assert code == 2 and "this model has one" in err


def test_encode_writes_both_encoders_side_by_side_and_the_pooled_vector(run, models: Path) -> None:
    code, out, err = run(
        "encode", "a (red:1.2) frog", "--model", "pony", "--clip-skip", "1,2,2/5", "--out", "e.safetensors"
    )
    assert code == 0, err
    written = load_file("e.safetensors")
    assert {name: tuple(tensor.shape) for name, tensor in written.items()} == {
        "clip_skip_1": (77, 72), "clip_skip_2": (77, 72), "clip_skip_2/5": (77, 72), "pooled": (40,),
    }  # fmt: skip
    reader, skip = open_text_encoder(models / "pony.safetensors"), parse_skip("2/5")
    expected = encode_text(reader, "a (red:1.2) frog", [ClipSkip(1), ClipSkip(2), skip])[skip]
    assert torch.equal(written["clip_skip_2/5"], expected.tokens) and torch.equal(written["pooled"], expected.pooled)
    assert "pooled  (40,)" in out


def test_encode_writes_one_encoder_alone_at_its_own_depth(run) -> None:
    both = ("a frog", "--model", "pony")
    assert run("encode", *both, "--clip-skip", "2", "--out", "b.safetensors")[0] == 0
    joined = load_file("b.safetensors")["clip_skip_2"]
    assert run("encode", *both, "--encoder", "G", "--clip-skip", "2,32", "--out", "g.safetensors")[0] == 0
    assert run("encode", *both, "--encoder", "l", "--clip-skip", "2", "--out", "l.safetensors")[0] == 0
    alone = [load_file(name)["clip_skip_2"] for name in ("l.safetensors", "g.safetensors")]
    assert torch.equal(torch.cat(alone, -1), joined) and "clip_skip_32" in load_file("g.safetensors")
    code, _, err = run("encode", "a frog", "--model", "sd21", "--encoder", "G", "--out", "x.safetensors")
    assert code == 2 and "SD 2.x has one text encoder" in err


def test_layers_reads_either_encoder(run) -> None:
    asked = ("layers", "red frog", "--model", "pony", "--encoder")
    code, out, err = run(*asked, "G", "--json")
    assert code == 0, err
    assert json.loads(out)["depth"] == 32 and len(json.loads(out)["skips"]) == 32
    first, second, *_ = run(*asked, "L")[1].splitlines()
    assert first.startswith("pony: 12 layers")
    assert "Clip Skip 1 on SDXL reads each encoder's last layer without" in second


def test_advise_measures_one_clip_skip_for_both_encoders(run) -> None:
    asked = ("advise", "a red frog, swamp", "--model", "noob", "--clip-skip")
    code, out, err = run(*asked, "1,2")
    assert code == 0, err
    assert "SDXL, 12 layers" in out
    for told in ("guidance kept", "conditioning moved", "guessed picture: changed", "  a red frog", "  swamp"):
        assert told in out
    assert "97%: SDXL, and so Pony, Illustrious and NoobAI, was trained on the layer before the last" in out
    assert "Clip Skip 1 on SDXL reads each encoder's last layer without the final norm" in out
    said = json.loads(run(*asked, "1-12", "--json")[1])
    prompted = said["prompted"]
    assert prompted["skips"] == list(range(1, 13)) and prompted["reference"] == 2
    assert prompted["guidance_kept"][1] == 1 and len(set(prompted["guidance_kept"])) == 12
    code, _, err = run(*asked, "13")
    assert code == 2 and "12 layers" in err


def test_advise_answers_from_the_header_where_nothing_is_asked_of_the_model(run) -> None:
    for model, note in (("noob", True), ("sd21", False)):
        code, out, err = run("advise", "--model", model)
        assert code == 0 and out.startswith("Clip Skip 2 in AUTOMATIC1111, 97% sure") and "with 0 UNet" in out, err
        assert ("without the final norm" in out) == note


def test_advise_measures_sd2(run) -> None:
    code, out, err = run("advise", "a red frog, swamp", "--model", "sd21", "--clip-skip", "1,2,24", "--json")
    assert code == 0, err
    said = json.loads(out)
    assert (said["prompted"]["skips"], said["prompted"]["reference"], said["depth"]) == ([1, 2, 24], 2, 24)
    assert said["notes"] == []


def test_what_advise_finds_for_sdxl_is_kept_for_later_pictures(run, models: Path) -> None:
    code, _, err = run("advise", "--model", "pony", "--remember")
    assert code == 0 and "Kept for pictures without a Clip Skip" in err
    kept = models / "pony.clipskip.json"
    assert json.loads(kept.read_text("utf-8"))["answers"][0]["clip_skip"] == 2
    kept.unlink()


def test_a_refiner_alone_is_refused(run) -> None:
    code, _, err = run("generate", "a frog", "--model", "refiner", *DRAW)
    assert code == 2 and err.count("\n") == 1 and "is SDXL's refiner" in err


def test_a_refiner_beside_a_hires_pass_takes_over_in_the_pass_that_is_asked_for(run) -> None:
    words = ("--refiner", "refiner", "--refiner-switch-at", "0.5", "--hires-scale", "2", "--seed", "1")
    pictures = set()
    for number, more in enumerate([(), ("--hires-refiner", "first pass"), ("--hires-refiner", "both passes")]):
        code, out, err = run("generate", "a frog", "--model", "pony", *words, *more, *DRAW, "--out", f"p{number}")
        assert code == 0, err
        made = Path(out.split()[-1])
        assert (f"Hires refiner: {more[1]}" if more else "Refiner switch at: 0.5") in read_infotext(made)
        pictures.add(np.asarray(Image.open(made)).tobytes())
    assert len(pictures) == 3
    code, _, err = run("generate", "a frog", "--model", "pony", *words, "--hires-refiner", "third", *DRAW)
    assert code == 2 and "use one of first pass, second pass, both passes" in err


def test_a_refiner_finishes_a_picture_and_its_settings_say_so(run, models: Path) -> None:
    asked = ("a red frog", "--model", "pony", "--seed", "1", "--steps", "4", "--size", "64x64")
    code, out, err = run("generate", *asked, "--refiner", "refiner", "--refiner-switch-at", "0.5", "--out", "r")
    assert code == 0, err
    refined = Path(out.split()[-1])
    digits = hash_file(models / "refiner.safetensors").sha256[:10]
    assert f"Refiner: refiner [{digits}], Refiner switch at: 0.5" in read_infotext(refined)
    code, out, err = run("generate", *asked, "--out", "p")
    assert code == 0 and not np.array_equal(*(Image.open(path) for path in (refined, Path(out.split()[-1])))), err
    code, out, err = run("generate", "--settings", str(refined), "--out", "again")
    assert code == 0 and Path(out.split()[-1]).read_bytes() == refined.read_bytes(), err
    code, _, err = run("generate", "a frog", "--model", "sd21", "--refiner", "refiner", *DRAW)
    assert code == 2 and "the refiner refiner.safetensors is SDXL and sd21 is SD 2.x" in err
