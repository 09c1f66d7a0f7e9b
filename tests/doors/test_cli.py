"""The command line: what it prints, and one line and exit code 2 for whatever the user can put right."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_sd1 import write_sdxl

from clipskip.doors.cli import main
from clipskip.image import read_infotext
from clipskip.spec import parse_infotext
from clipskip.weights import hash_file, read_header

Run = "tuple[int, str, str]"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path, tmp_path: Path):
    """Runs the command in an empty folder; gives exit code, output and errors."""
    monkeypatch.setenv("CLIPSKIP_MODELS", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["clipskip", *words])
        try:
            main()
            code = 0
        except SystemExit as stopped:
            code = int(stopped.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    return call


TINY = ("--model", "tiny", "--steps", "1", "--size", "64x64")


def test_help_needs_no_torch() -> None:
    code = "import sys, clipskip.doors.cli; print('torch' in sys.modules, 'PIL' in sys.modules, 'numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"] * 3


def test_a_sweep_draws_the_grid_without_and_with_the_lora(run) -> None:
    code, out, err = run("sweep", "swamp, ogre", "--lora", "ogre:0.8", "--clip-skip", "1-3", "--out", "o", *TINY)
    assert code == 0, err
    assert [line.split()[0] for line in out.splitlines()] == ["grid", "page"]
    pictures = sorted(Path("o").glob("row*.png"))
    assert len(pictures) == 6 and Path("o/grid.png").exists() and Path("o/index.html").exists()
    assert "<lora:ogre:0.8>" in read_infotext(pictures[3]) and "Clip skip: 1," in read_infotext(pictures[3])


def test_generate_counts_seeds_up(run) -> None:
    code, out, err = run("generate", "swamp", "--count", "2", "--seed", "5", "--out", "o", *TINY)
    assert code == 0, err
    texts = [read_infotext(Path(line)) for line in out.splitlines()]
    assert ["Seed: 5," in texts[0], "Seed: 6," in texts[1]] == [True, True]
    assert all("Clip skip: 2," in text for text in texts), "the tiny model was trained at 2"


def test_a_picture_is_a_settings_block_and_typed_options_win(run) -> None:
    first = run(
        "generate", "swamp, (ogre:1.2)", "--negative", "blurry", "--clip-skip", "3", "--seed", "7", "--out", "o", *TINY
    )[1]
    again = run("generate", "--settings", first.strip(), "--out", "o")[1]
    assert Image.open(first.strip()).tobytes() == Image.open(again.strip()).tobytes()
    other = run("generate", "--settings", first.strip(), "--clip-skip", "4", "--out", "o")[1]
    assert "Clip skip: 4," in read_infotext(Path(other.strip())) and "Seed: 7," in read_infotext(Path(other.strip()))


def test_a_sweep_of_schedules_has_a_column_for_each_and_goes_on_where_it_stopped(run) -> None:
    words = ("sweep", "swamp, (red frog:1.2)", "--clip-skip", "1,[1:3:0.4],[1|3],1.5", "--negative-clip-skip", "[2:4:1]",
             "--phrase-skip", "Red frog=6", "--seed", "5", "--out", "o", "--model", "tiny", "--steps", "5", "--size", "64x64")  # fmt: skip
    code, _, err = run(*words)
    assert code == 0, err
    names = sorted(path.name.split("-seed")[0] for path in Path("o").glob("row*.png"))
    assert names == ["row0-clipskip01", "row0-clipskip01-3-0.4", "row0-clipskip01.5", "row0-clipskip01_3"]
    pictures = {path.name.split("-seed")[0]: path for path in Path("o").glob("row*.png")}
    text = read_infotext(pictures["row0-clipskip01-3-0.4"])
    assert (
        'Clip skip: 1, Clip skip schedule: "[1:3:0.4]", Negative clip skip: "[2:4:1]", Phrase clip skips: red frog=6'
        in text
    )
    assert len({Image.open(path).tobytes() for path in pictures.values()}) == 4, "each column is a picture of its own"
    assert "Phrase clip skips: red frog=6" in read_infotext(Path("o/grid.png"))
    pictures["row0-clipskip01_3"].unlink()
    before = {path: path.stat().st_mtime_ns for path in Path("o").glob("row*.png")}
    assert run(*words)[0] == 0 and pictures["row0-clipskip01_3"].exists()
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.parametrize("picture", [True, False])
def test_settings_come_on_standard_input(run, monkeypatch: pytest.MonkeyPatch, picture: bool) -> None:
    run("generate", "swamp", "--seed", "7", "--out", "first", *TINY)
    (first,) = Path("first").glob("*.png")
    content = first.read_bytes() if picture else read_infotext(first).encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    code, out, err = run("generate", "--settings", "-", "--out", "again")
    assert code == 0 and Path(out.strip()).name == first.name, err


def test_standard_input_without_end_is_given_up(run, monkeypatch: pytest.MonkeyPatch) -> None:
    class Endless(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def readinto(self, buffer: memoryview) -> int:
            buffer[:] = b"y" * len(buffer)
            return len(buffer)

    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(Endless())))
    code, _, err = run("generate", "--settings", "-")
    assert code == 2 and "standard input has more than 10,485,760 bytes" in err


def test_a_picture_of_a_schedule_is_repeated_from_its_settings(run) -> None:
    first = run("generate", "swamp, red frog", "--clip-skip", "[1:6:1]", "--phrase-skip", "frog=3", "--seed", "7", "--out",
                "o", "--model", "tiny", "--steps", "4", "--size", "64x64")[1].strip()  # fmt: skip
    again = run("generate", "--settings", first, "--out", "o")[1].strip()
    assert again != first and Image.open(first).tobytes() == Image.open(again).tobytes()
    other = run("generate", "--settings", first, "--phrase-skip", "Frog=4", "--phrase-skip", "swamp=2", "--out", "o")[1]
    assert 'Phrase clip skips: "frog=4\\nswamp=2"' in read_infotext(Path(other.strip()))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--clip-skip", "[1:2]"), "cannot be read"),
        (("--clip-skip", "[1:13:0.5]"), "1 to 12"),
        (("--clip-skip", "1,[1:2:40]"), "never reaches 2"),
        (("--clip-skip", "[1:2:1.5]"), "share"),
        (("--negative-clip-skip", "[1|13]"), "1 to 12"),
        (("--phrase-skip", "swamp"), "no clip skip"),
        (("--phrase-skip", "goblin=4"), "does not contain the phrase 'goblin'"),
        (("--phrase-skip", "swamp=13"), "1 to 12"),
        (("--phrase-skip", "swamp=[2:3:40]"), "never reaches 3"),
    ],
)
def test_a_schedule_or_phrase_that_cannot_be_is_one_line(run, words: tuple[str, ...], said: str) -> None:
    code, out, err = run("sweep", "swamp", "--out", "o", "--model", "tiny", "--steps", "8", "--size", "64x64", *words)
    assert (code, out, Path("o").exists()) == (2, "", False)
    assert err.startswith("clipskip: ") and err.count("\n") == 1 and said in err, err


def test_prompt_shows_which_steps_read_which_layer(run) -> None:
    _, text, _ = run("prompt", "a", "--steps", "10", "--clip-skip", "[1:2.5:0.3]")
    assert text.splitlines()[:2] == ["steps 1-4: Clip Skip 1", "steps 5-10: Clip Skip 2.5"]
    found = json.loads(run("prompt", "a", "--steps", "4", "--clip-skip", "[1|2]", "--json")[1])["clip_skips"]
    assert found == [
        {"clip_skip": 1, "steps": [1, 2]},
        {"clip_skip": 2, "steps": [3, 3]},
        {"clip_skip": 1, "steps": [4, 4]},
    ]


def test_encode_writes_one_tensor_for_each_clip_skip(run) -> None:
    code, _, err = run("encode", "a swamp", "--model", "tiny", "-o", "layers.safetensors")
    assert code == 0, err
    layers = load_file("layers.safetensors")
    assert sorted(layers) == sorted(f"clip_skip_{n}" for n in range(1, 13))
    assert {tuple(layer.shape) for layer in layers.values()} == {(77, 64)}


def test_encode_says_where_it_cannot_write(run, tmp_path: Path) -> None:
    code, _, err = run("encode", "a frog", "--model", "tiny", "--out", "no/where.safetensors")
    assert (
        code == 2
        and err == "clipskip: cannot write no/where.safetensors: the folder no does not exist; make it first\n"
    )
    (tmp_path / "taken.safetensors").mkdir()
    code, _, err = run("encode", "a frog", "--model", "tiny", "--out", "taken.safetensors")
    assert code == 2 and err.startswith("clipskip: cannot write taken.safetensors: ")
    assert not list(tmp_path.glob("*.partial")) and not list(tmp_path.glob(".*"))


def test_inspect_tells_a_checkpoint_and_a_lora(run, folder: Path) -> None:
    _, text, _ = run("inspect", str(folder / "tiny.safetensors"))
    assert "SD 1.x" in text and "12 layers x 64" in text and "Clip Skip 2" in text
    facts = json.loads(run("inspect", str(folder / "loras" / "ogre.safetensors"), "--json")[1])
    assert facts["identity"]["kind"] == "LoRA" and facts["lora"]["trained_clip_skip"] == 2
    assert facts["lora"]["text_dead_from"] == 10, "it changes layer 4 of 12 alone"


def test_inspect_opens_pickles_where_they_are_allowed(run, folder: Path, tmp_path: Path) -> None:
    torch.save({"state_dict": load_file(folder / "tiny.safetensors")}, tmp_path / "tiny.ckpt")
    torch.save(load_file(folder / "loras" / "ogre.safetensors"), tmp_path / "ogre.pt")
    torch.save({"string_to_param": {"*": torch.ones(3, 768)}, "name": "bad"}, tmp_path / "bad.pt")
    for name, said in (("tiny.ckpt", "12 layers x 64"), ("ogre.pt", "LoRA x 1"), ("bad.pt", "3 x 768, for SD 1.x")):
        code, _, err = run("inspect", name)
        assert code == 2 and "--allow-pickle" in err
        code, out, err = run("inspect", name, "--allow-pickle")
        assert code == 0 and said in out, (out, err)


def test_encode_reads_a_pickle_where_it_is_allowed(run, folder: Path, tmp_path: Path) -> None:
    tensors = load_file(folder / "tiny.safetensors")
    save_file(tensors, tmp_path / "bare.safetensors")  # without the metadata that a pickle cannot have
    torch.save({"state_dict": tensors}, tmp_path / "pickled.ckpt")
    asked = ("encode", "a frog", "--clip-skip", "1-3")
    assert run(*asked, "--model", "bare.safetensors", "--out", "plain.safetensors")[0] == 0
    code, _, err = run(*asked, "--model", "pickled.ckpt", "--out", "refused.safetensors")
    assert code == 2 and "--allow-pickle" in err and not Path("refused.safetensors").exists()
    code, _, err = run(*asked, "--model", "pickled.ckpt", "--out", "pickled.safetensors", "--allow-pickle")
    assert code == 0, err
    plain, pickled = load_file("plain.safetensors"), load_file("pickled.safetensors")
    assert plain.keys() == pickled.keys() and all(plain[name].equal(pickled[name]) for name in plain)


def test_advise_says_a_value_in_the_tools_numbers_and_what_it_rests_on(run) -> None:
    words = ("advise", "swamp, ogre", "--lora", "ogre", "--clip-skip", "1,2", "--model", "tiny", "--for", "comfyui")
    code, out, err = run(*words)
    assert code == 0, err
    assert out.startswith("Clip Skip -2 in ComfyUI")
    assert 'ss_clip_skip = "2"' in out
    code, out, err = run(*words, "--json")
    assert json.loads(out)["prompted"]["loras"][0]["name"] == "ogre", err


def test_advise_knows_a_family_that_has_one_clip_skip_for_all_from_its_header(run, tmp_path: Path) -> None:
    pony = tmp_path / "ponyDiffusionV6XL.safetensors"
    write_sdxl(pony)
    code, out, _ = run("advise", "--model", str(pony))
    assert code == 0
    assert out.startswith("Clip Skip 2 in AUTOMATIC1111, 97% sure\n")
    assert "leave the setting alone" in out and "ponyDiffusionV6XL, SDXL, 12 layers" in out
    code, out, _ = run("advise", "--model", str(pony), "--for", "comfyui", "--json")
    said = json.loads(out)
    assert (said["verdict"]["skip"], said["rows"], said["prompted"]) == (2, 0, None)
    assert {row["tool"]: row["number"] for row in said["tools"]}["comfyui"] == "-2"
    assert "without the final norm" in said["notes"][0]


@pytest.mark.parametrize(
    ("words", "said"),
    [(("--clip-skip", "1.5"), "lies between two layers"), (("--clip-skip", "13"), "1 to 12"), (("--for", "paint"), "use one of a1111"),
     (("--images", "nowhere"), "nowhere is not a folder"), (("--lora", "none"), "none")],
)  # fmt: skip
def test_what_advise_cannot_use_is_one_line(run, words: tuple[str, ...], said: str) -> None:
    code, out, err = run("advise", "swamp", "--model", "tiny", *words)
    assert (code, out) == (2, "")
    assert said in err and len(err.strip().splitlines()) == 1


def test_layers_prints_tables_and_draws_them(run, tmp_path: Path) -> None:
    code, out, err = run("layers", "a red frog", "--model", "tiny", "--out", str(tmp_path / "layers.svg"))
    assert code == 0, err
    assert out.startswith("tiny: 12 layers; Clip Skip 1 reads layer 12. 3 tokens, 4 words and ends.")
    assert (tmp_path / "layers.svg").read_text().startswith("<svg ")
    found = json.loads(run("layers", "a red frog", "--model", "tiny", "--json")[1])
    assert [word["text"] for word in found["words"]] == ["a", "red", "frog", "(end)"]


@pytest.mark.parametrize(
    ("words", "said"),
    [(("frog AND owl",), "only a sampler"), (("frog", "--model", "none"), "none"), (("frog", "--out", "no/where.svg"), "cannot write")],
)  # fmt: skip
def test_what_layers_cannot_do_is_one_line(run, words: tuple[str, ...], said: str) -> None:
    code, out, err = run("layers", "--model", "tiny", *words)
    assert (code, out) == (2, "")
    assert said in err and len(err.strip().splitlines()) == 1


def test_dialect_says_the_same_layer_in_every_tools_number(run) -> None:
    assert run("dialect", "2", "--from", "a1111", "--to", "diffusers")[1].strip() == "1"
    assert run("dialect", "-2", "--from", "comfy", "--to", "a1111")[1].strip() == "2"
    rows = {row["tool"]: row["number"] for row in json.loads(run("dialect", "2", "--json")[1])}
    assert rows["comfyui"] == "-2" and rows["invokeai"] == "1" and rows["kohya"] == "2"


def test_dialect_explains_a_number_that_reads_another_layer_and_takes_two(run) -> None:
    code, out, err = run("dialect", "1", "--from", "forge", "--to", "comfyui", "--family", "sdxl")
    assert (code, out) == (0, "-2\n") and "note: Forge 1 on SDXL reads Clip Skip 2: it silently reads 1 as 2" in err
    _, out, err = run("dialect", "2/5", "--family", "pony")
    assert (
        out.startswith("Clip Skip 2/5 on SDXL: layer 11 of 12 of CLIP-L, layer 28 of 32 of OpenCLIP-bigG\n") and not err
    )
    assert run("dialect", "2", "--family", "sd1")[1].startswith("Clip Skip 2 on SD 1.x: layer 11 of 12\n")
    assert run("dialect", "4->2", "--from", "reforge", "--to", "clipskip")[1] == "[4>3>2]\n"
    assert run("dialect", "[6:2:0.5]", "--to", "reforge", "--steps", "8")[1] == "6,6,6,6,6,2\n"
    code, out, err = run("dialect", "2", "--from", "comfyui", "--family", "z-image")
    assert (code, out) == (2, "") and "means nothing on Z-Image" in err and "is noise" in err


def test_prompt_shows_how_it_is_read(run) -> None:
    _, text, _ = run("prompt", "a (red:1.3) [cat:dog:0.5]", "--steps", "10")
    assert "1.3" in text and "steps 1-6" in text
    assert json.loads(run("prompt", "a", "--json")[1])["parts"]


@pytest.mark.parametrize("skip", ["0", "13", "1e9", "two", "-1", "12.5", "nan", ""])
def test_a_clip_skip_that_does_not_exist_is_one_line(run, skip: str) -> None:
    code, out, err = run("sweep", "swamp", "--clip-skip", skip, "--out", "o", *TINY)
    assert (code, out, Path("o").exists()) == (2, "", False)
    assert err.startswith("clipskip: ") and err.count("\n") == 1 and "1" in err


BAD_FILES = {
    "empty": (b"", "0 bytes"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 4265380512\n", "lfs"),
    "html": (b"<!DOCTYPE html><html><body>404</body></html>", "page"),
    "pickle": (b"\x80\x02}q\x00.", "pickle"),
    "cut": (None, "download"),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_a_file_that_is_no_model_is_one_line(run, folder: Path, tmp_path: Path, kind: str) -> None:
    content, word = BAD_FILES[kind]
    path = tmp_path / "bad.safetensors"
    path.write_bytes((folder / "tiny.safetensors").read_bytes()[:5000] if content is None else content)
    code, out, err = run("sweep", "swamp", "--model", str(path), "--out", "o")
    assert (code, out, Path("o").exists()) == (2, "", False)
    assert err.startswith("clipskip: ") and err.count("\n") == 1 and word in err


def test_files_of_another_kind_say_what_they_are(run, folder: Path, tmp_path: Path) -> None:
    lora, model = folder / "loras" / "ogre.safetensors", folder / "tiny.safetensors"
    write_sdxl(tmp_path / "xl.safetensors")
    (tmp_path / "old.ckpt").write_bytes(b"\x80\x02}q\x00.")
    for words, said in (
        (("--model", str(lora)), "LoRA"),
        (("--model", "tiny", "--lora", str(model)), "checkpoint"),
        (("--model", str(tmp_path / "xl.safetensors")), "it lacks the text encoder"),
        (("--model", str(tmp_path / "old.ckpt")), "--allow-pickle"),
    ):
        code, _, err = run("sweep", "swamp", "--out", "o", *words)
        assert code == 2 and err.count("\n") == 1 and said in err, err


def test_a_lora_that_does_nothing_is_applied_and_said(run, folder: Path, tmp_path: Path) -> None:
    ogre = load_file(folder / "loras" / "ogre.safetensors")
    dead = {name: torch.zeros(()) if name.endswith("alpha") else tensor for name, tensor in ogre.items()}
    save_file(dead, tmp_path / "dead.safetensors")
    for command in ("sweep", "generate"):
        code, _, err = run(command, "swamp", "--lora", str(tmp_path / "dead.safetensors"), "--out", command, *TINY)
        assert code == 0 and "dead: alpha or scale is 0 in 1 modules" in err.replace("\n", " "), err


def test_files_that_are_not_those_of_the_settings_are_said(run, folder: Path) -> None:
    hashes = hash_file(folder / "tiny.safetensors"), hash_file(folder / "loras" / "ogre.safetensors")
    block = "swamp <lora:ogre:1>\nSteps: 1, Seed: 5, Size: 64x64, Model hash: {}, Model: tiny, Lora hashes: {}"
    Path("same.txt").write_text(block.format(hashes[0].autov2, f'"ogre: {hashes[1].autov3}"'))
    Path("other.txt").write_text(block.format("0123456789", '"ogre: 0123456789ab"'))
    for command in ("sweep", "generate"):
        _, _, err = run(command, "--settings", "same.txt", "--out", f"same-{command}")
        assert "another file" not in err
        code, _, err = run(command, "--settings", "other.txt", "--out", f"other-{command}")
        assert code == 2 and "--yes" in err and not Path(f"other-{command}").exists(), "nobody is there to be asked"
        code, _, err = run(command, "--settings", "other.txt", "--out", f"other-{command}", "--yes")
        lines = " ".join(err.split())
        assert code == 0 and f"its hash is {hashes[0].autov2}, not 0123456789" in lines, err
        assert f"ogre is another file than these settings were made with: its hash is {hashes[1].autov3}" in lines


@pytest.mark.parametrize(
    ("lora", "said"), [("huge:1:1e30", "contains NaN or infinity"), ("huge:3e38:0", "contain NaN or infinity")]
)
def test_a_lora_that_leaves_no_numbers_is_an_error_and_not_a_black_picture(
    run, folder: Path, tmp_path: Path, lora: str, said: str
) -> None:
    text, unet = "lora_te_text_model_encoder_layers_3_self_attn_q_proj", "lora_unet_mid_block_attentions_0_proj_in"
    channels = load_file(folder / "tiny.safetensors")["model.diffusion_model.middle_block.1.proj_in.weight"].shape[1]
    ogre = load_file(folder / "loras" / "ogre.safetensors")
    down, up = torch.ones(1, channels, 1, 1), torch.ones(channels, 1, 1, 1)
    save_file(
        {name: tensor for name, tensor in ogre.items() if text in name}
        | {f"{unet}.lora_down.weight": down, f"{unet}.lora_up.weight": up * 1e15},
        tmp_path / "huge.safetensors",
    )
    code, _, err = run(
        "sweep", "swamp", "--lora", str(tmp_path / lora.replace("huge", "huge.safetensors")), "--out", "o", *TINY
    )
    assert code == 2 and said in err and "lower their weights" in err, err
    assert len(list(Path("o").glob("row0-*.png"))) == 5 and not list(Path("o").glob("row1-*.png"))
    assert Path("o/grid.png").is_file()


def test_a_variation_counts_its_own_seed_up(run) -> None:
    text = "swamp\nSteps: 1, Seed: 5, Size: 64x64, Variation seed: 8, Variation seed strength: 0.5"
    Path("s.txt").write_text(text)
    code, out, err = run("generate", "--settings", "s.txt", "--model", "tiny", "--count", "2", "--out", "o")
    fields = [parse_infotext(read_infotext(Path(line))).fields for line in out.split()]
    assert [(one["Seed"], one["Variation seed"]) for one in fields] == [("5", "8"), ("5", "9")], (code, err)


@pytest.mark.parametrize("damage", ["missing layer", "NaN"])
def test_a_checkpoint_that_is_not_whole_is_refused(run, folder: Path, tmp_path: Path, damage: str) -> None:
    tensors = load_file(folder / "tiny.safetensors")
    layer = "cond_stage_model.transformer.text_model.encoder.layers.5."
    if damage == "NaN":
        tensors[f"{layer}mlp.fc1.weight"][0, 0] = float("nan")
    else:
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(layer)}
    save_file(tensors, tmp_path / "bad.safetensors", metadata=dict(read_header(folder / "tiny.safetensors").metadata))
    code, _, err = run("sweep", "swamp", "--model", str(tmp_path / "bad.safetensors"), "--out", "o")
    assert code == 2 and err.count("\n") == 1 and ("5" in err if damage == "missing layer" else "NaN" in err), err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--size", "68x64"), "multiple of 8"),
        (("--size", "0x64"), "64 to 2048"),
        (("--size", "big"), "512x768"),
        (("--size", "100000x64"), "100000"),
        (("--steps", "0"), "steps"),
        (("--steps", "1000000000"), "steps"),
        (("--cfg", "nan"), "cfg"),
        (("--seed", "18446744073709551616"), "seed"),
        (("--sampler", "Best"), "Euler a"),
        (("--sampler", "DDIM", "--steps", "1"), "use 2 steps or more"),
        (("--lora", "ogre:much"), "ogre"),
        (("--lora", "shrek"), "shrek"),
        (("--rng", "TPU"), "CPU"),
        (("--settings", "nothing.txt"), "nothing.txt"),
        (("--model", "nothing"), "nothing"),
    ],
)
def test_a_setting_out_of_range_says_what_is_right(run, words: tuple[str, ...], said: str) -> None:
    base = {"--model": "tiny", "--steps": "1", "--size": "64x64"} | dict(zip(words[::2], words[1::2], strict=True))
    code, out, err = run("sweep", "swamp", "--out", "o", *(word for pair in base.items() for word in pair))
    assert (code, out, Path("o").exists()) == (2, "", False)
    assert err.count("\n") == 1 and said in err, err


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ("swamp\nSteps: many, Sampler: Euler a, CFG scale: 7", "many"),
        ("swamp\nSteps: 2, Sampler: Euler a, CFG scale: x, Seed: 1", "CFG scale"),
        ("swamp\nSteps: 2, Sampler: Nonsense, CFG scale: 7, Seed: 1", "Nonsense"),
        ("swamp\nSteps: 2, Sampler: Euler a, CFG scale: 7, Seed: 1, Clip skip: 13", "13"),
        ("swamp\nSteps: 2, Sampler: Euler a, CFG scale: 7, Clip skip: two", "two"),
        ("", "empty"),
    ],
)
def test_nonsense_in_a_settings_block_is_named(run, tmp_path: Path, block: str, said: str) -> None:
    (tmp_path / "s.txt").write_text(block)
    code, _, err = run("generate", "--settings", "s.txt", "--model", "tiny", "--size", "64x64", "--out", "o")
    assert code == 2 and err.count("\n") == 1 and said in err, err
    assert not Path("o").exists()


def test_the_guides_own_block_draws_and_names_the_model_that_is_missing(run, tmp_path: Path) -> None:
    block = (
        "Positive Prompt: best quality, swamp, Shrek\n\nNegative Prompt: lowres\n\n"
        "Steps: 1, Sampler: Euler a, CFG scale: 7, Seed: 5, Size: 64x64, Model hash: 69528490df, Model: anything-v4.0-pruned\n"
    )
    (tmp_path / "guide.txt").write_text(block)
    code, _, err = run("sweep", "--settings", "guide.txt", "--clip-skip", "1-2", "--out", "o")
    assert code == 2 and "anything-v4.0-pruned" in err and "69528490df" in err
    code, _, err = run("sweep", "--settings", "guide.txt", "--model", "tiny", "--clip-skip", "1-2", "--out", "o")
    assert code == 0, err
    assert "Seed: 5, Size: 64x64" in read_infotext(next(Path("o").glob("row0*.png")))


def test_a_folder_that_cannot_be_written_is_one_line(run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code, _, err = run("sweep", "swamp", "--out", "file/o", *TINY)
    assert code == 2 and err.count("\n") == 1 and "--out" in err


@pytest.mark.parametrize("option", ["--model", "--vae", "--refiner"])
def test_an_empty_name_of_a_file_is_refused(run, option: str) -> None:
    code, _, said = run("generate", "a frog", option, " ")
    assert code != 0 and f"{option} is empty; name a file, or leave {option} out" in " ".join(said.split())
