"""What a package index and a type checker see."""

import re
import tomllib
from pathlib import Path

import pytest

import clipskip

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_every_link_of_the_readme_is_absolute_on_a_package_index() -> None:
    text = (ROOT / "README.md").read_text()
    for rule in PROJECT["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]["substitutions"]:
        text = re.sub(rule["pattern"], rule["replacement"], text)
    targets = re.findall(r"\]\(([^)]*)\)", text)
    assert len(targets) > 10
    assert [target for target in targets if not target.startswith("https://")] == []
    assert all("raw.githubusercontent.com" in target for target in re.findall(r"!\[[^\]]*\]\(([^)]*)\)", text))


def test_every_link_of_the_readme_leads_to_a_file() -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]*)", (ROOT / "README.md").read_text())
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_the_version_has_one_source() -> None:
    assert "version" in PROJECT["project"]["dynamic"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", clipskip.__version__)


def test_the_package_says_that_it_is_typed() -> None:
    assert (ROOT / "src/clipskip/py.typed").exists()


@pytest.mark.parametrize("name", clipskip.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(clipskip, name) is not None


def test_the_public_names_are_these_and_documented() -> None:
    """A name that goes breaks somebody's program: take one from this list in a major version only."""
    assert set(clipskip.__all__) == {
        "__version__", "ClipSkip", "EncoderSettings", "EncoderSkips", "Family", "Hires", "LoraRef", "Mask",
        "Request", "Start", "TextReader",
        "draw_one", "draw_sweep", "encode_layers", "open_model", "open_text_encoder", "parse_skip", "parse_skips",
        "prompt_embeds", "read_encoders",
    }  # fmt: skip
    reference = (ROOT / "docs/reference.md").read_text()
    undocumented = [name for name in clipskip.__all__ if name != "__version__" and f".{name}\n" not in reference]
    assert undocumented == []
    assert all(getattr(clipskip, name).__doc__ for name in clipskip.__all__ if name != "__version__")
