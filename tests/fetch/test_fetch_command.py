"""Links as arguments: fetched once, drawn with, refused clearly without a connection or permission."""

import hashlib
from pathlib import Path

import pytest
from fetch.stand_in import StandIn
from PIL import Image
from typer.testing import CliRunner

from clipskip.doors.cli import app
from clipskip.errors import ClipskipError
from clipskip.spec import LoraRef

LINK = "https://civitai.com/models/16615"
SMALL = ["--steps", "1", "--size", "64x64", "--seed", "1"]


def run(*words: str) -> str:
    """What the command prints; its error is raised."""
    result = CliRunner().invoke(app, list(words), catch_exceptions=True)
    if isinstance(result.exception, ClipskipError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_guides_link_is_fetched_listed_and_drawn_with(civitai: StandIn, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run("generate", "swamp", "--lora", f"{LINK}:0.5", *SMALL, "--models-folder", str(folder), "--out", str(out))
    assert (folder / "models/Lora/shrek.safetensors").read_bytes() == civitai.content
    text = Image.open(next(out.glob("*.png"))).text["parameters"]  # type: ignore[attr-defined]
    assert "<lora:shrek:0.5>" in text


@pytest.mark.parametrize(("option", "kind"), [("--model", "Checkpoint"), ("--vae", "VAE"), ("--refiner", "Checkpoint")])
def test_models_vaes_and_refiners_may_be_links(civitai: StandIn, folder: Path, option: str, kind: str) -> None:
    """What arrives here is a LoRA, which is said once it is looked into: the link was followed."""
    civitai.version["model"]["type"] = kind  # type: ignore[index]
    with pytest.raises(ClipskipError, match="LoRA"):
        run("generate", "swamp", option, LINK, *SMALL, "--models-folder", str(folder))
    assert len(civitai.downloads) == 1


def test_a_link_without_a_connection_is_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIPSKIP_CIVITAI", "http://127.0.0.1:9")
    monkeypatch.setattr("clipskip.fetch.web.time.sleep", lambda _: None)
    with pytest.raises(ClipskipError, match="cannot be reached"):
        run("generate", "swamp", "--lora", LINK, *SMALL, "--models-folder", str(folder))


def test_a_settings_text_is_fetched_for_only_when_asked(civitai: StandIn, folder: Path, tmp_path: Path) -> None:
    autov3 = hashlib.sha256(civitai.content).hexdigest()[:12]
    settings = tmp_path / "settings.txt"
    settings.write_text(
        f"swamp <lora:renamed:1>\nSteps: 1, Sampler: Euler a, CFG scale: 7, Seed: 5, Size: 64x64, "
        f'Lora hashes: "renamed: {autov3}"'
    )
    with pytest.raises(ClipskipError, match="--fetch"):
        run("generate", "--settings", str(settings), "--models-folder", str(folder), "--out", str(tmp_path / "a"))
    assert civitai.requests == []
    run("fetch", "--settings", str(settings), "--models-folder", str(folder))
    assert (folder / "models/Lora/shrek.safetensors").exists()
    run("generate", "--settings", str(settings), "--models-folder", str(folder), "--out", str(tmp_path / "b"))


def test_fetch_prints_where_the_files_are(civitai: StandIn, folder: Path) -> None:
    printed = run("fetch", LINK, "urn:air:sd1:lora:civitai:16615@19565", "--models-folder", str(folder))
    assert printed.split() == [str(folder / "models/Lora/shrek.safetensors")] * 2


def test_a_failure_does_not_keep_the_others_from_being_fetched(civitai: StandIn, folder: Path) -> None:
    with pytest.raises(ClipskipError, match="999"):
        run("fetch", "https://civitai.com/models/999", LINK, "--models-folder", str(folder))
    assert (folder / "models/Lora/shrek.safetensors").exists()


@pytest.mark.parametrize("name", ["https://example.com/x.safetensors", "http://127.0.0.1/x"])
def test_a_link_to_another_host_is_never_followed(civitai: StandIn, folder: Path, name: str) -> None:
    with pytest.raises(ClipskipError, match="download the file yourself"):
        run("generate", "swamp", "--model", name, *SMALL, "--models-folder", str(folder))


@pytest.mark.parametrize(
    ("text", "name", "strengths"),
    [
        ("urn:air:sd1:lora:civitai:16615@19565:0.8", "urn:air:sd1:lora:civitai:16615@19565", (0.8, 0.8)),
        ("air:sd1:lora:civitai:16615:0.8:0.2", "air:sd1:lora:civitai:16615", (0.8, 0.2)),
        (f"{LINK}:0.8", LINK, (0.8, 0.8)),
        ("https://civitai.com/models/1?modelVersionId=2", "https://civitai.com/models/1?modelVersionId=2", (1, 1)),
    ],
)
def test_a_link_may_carry_strengths(text: str, name: str, strengths: tuple[float, float]) -> None:
    ref = LoraRef.parse(text)
    assert (ref.name, ref.text_encoder, ref.unet) == (name, *strengths)
