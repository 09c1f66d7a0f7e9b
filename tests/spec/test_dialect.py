"""Every tool's Clip Skip, both ways: each expected value is read off that tool's own rule."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipskip.errors import SkipOutOfRange, SpecError
from clipskip.spec import ClipSkip, Dialect, Family, conversion_table, from_dialect, parse_skip, to_dialect
from clipskip.spec.dialect import dialects
from clipskip.spec.numbering import numbering

CALM = settings(deadline=None, derandomize=True, max_examples=100)

FAMILIES = [Family.SD1, Family.SD2, Family.SDXL]
ROWS = [(dialect, family) for family in FAMILIES for dialect in dialects(family)]

SAME_LAYER = {
    (Family.SD1, 2): "a1111 2, a1111-l-skip 2, forge 2, forge-neo 2, forge-classic 2, reforge 2, comfyui -2, swarmui -2, "
    "efficiency -2, easy-use -2, sdnext 2, diffusers 1, invokeai 1, stable-diffusion.cpp 2, kohya 2, gen_img 2, "
    "compel PENULTIMATE_HIDDEN_STATES_NORMALIZED, easydiffusion on, onetrainer 1, draw-things 2, lora-manager 2, clipskip 2",
    (Family.SD1, 12): "a1111 12, a1111-l-skip 12, forge 12, forge-neo 12, forge-classic 12, reforge 12, comfyui -12, "
    "swarmui -12, efficiency -12, easy-use -12, sdnext 12, diffusers 11, invokeai 11, stable-diffusion.cpp 12, kohya 12, gen_img 12, "
    "compel -, easydiffusion -, onetrainer 11, draw-things 12, lora-manager 12, clipskip 12",
    (Family.SD2, 2): "a1111 2, a1111-l-skip 2, forge 1, forge-classic 2, reforge 2, comfyui -2, swarmui -2, efficiency -2, "
    "easy-use -2, sdnext 1, diffusers 0, invokeai 0, stable-diffusion.cpp 2, kohya 1, gen_img 1, "
    "compel LAST_HIDDEN_STATES_NORMALIZED, onetrainer 0, draw-things 1, clipskip 2",
    (Family.SDXL, 2): "a1111 2, a1111-l-skip 2, forge 2, forge-neo 2, forge-classic 2, reforge 2, comfyui -2, swarmui -2, "
    "efficiency -2, easy-use -2, sdnext 1, diffusers 0, invokeai 0, stable-diffusion.cpp 2, kohya 2, gen_img 2, "
    "compel PENULTIMATE_HIDDEN_STATES_NON_NORMALIZED, easydiffusion off, onetrainer 0, ai-toolkit 2, fooocus 2, draw-things 2, "
    "lora-manager 2, clipskip 2",
    (Family.SDXL, 1): "a1111 -, a1111-l-skip -, forge -, forge-neo -, forge-classic -, reforge -, comfyui -1, swarmui -1, "
    "efficiency -1, easy-use -1, sdnext 0, diffusers -1, invokeai -, stable-diffusion.cpp 1, kohya -, gen_img 1, compel -, "
    "easydiffusion -, onetrainer -, ai-toolkit -, fooocus 1, draw-things -, lora-manager 1, clipskip 1",
}  # fmt: skip
PAIRS = {
    "1/2": {"clipskip": "1/2", "a1111-l-skip": "1", "draw-things": "1"},
    "5/2": {"clipskip": "5/2", "a1111-l-skip": "5", "invokeai": "3/0", "onetrainer": "3/0"},
    "2/5": {"clipskip": "2/5", "invokeai": "0/3", "onetrainer": "0/3"},
    "12/20": {"clipskip": "12/20", "invokeai": "10/18", "onetrainer": "10/18", "draw-things": "20"},
    "2.5/5": {"clipskip": "2.5/5"},
    "[1:2:3]/5": {"clipskip": "[1:2:3]/5"},
    "[4>3>2]": {"clipskip": "[4>3>2]", "reforge": "4,3,2"},
}


@pytest.mark.parametrize(("text", "expected"), PAIRS.items())
def test_two_encoders_or_steps_are_said_by_the_tools_that_can(text: str, expected: dict[str, str]) -> None:
    table = conversion_table(parse_skip(text), family=Family.SDXL)
    assert {row.dialect.value: row.number for row in table if row.number != "-"} == expected


@pytest.mark.parametrize(("where", "expected"), SAME_LAYER.items(), ids=lambda v: str(v)[:24])
def test_one_layer_in_every_tools_words(where: tuple[Family, int], expected: str) -> None:
    family, n = where
    table = conversion_table(ClipSkip(n), family=family)
    assert ", ".join(f"{row.dialect.value} {row.number}" for row in table) == expected


@pytest.mark.parametrize(("dialect", "family"), ROWS, ids=str)
def test_what_a_tool_is_told_reads_back_as_the_same_layer(dialect: Dialect, family: Family) -> None:
    row = numbering(dialect, family)
    for n in range(row.first, row.last + 1):
        skip = from_dialect(row.spell(n), dialect, family=family)
        told = to_dialect(skip, dialect, family=family)
        assert from_dialect(told, dialect, family=family) == from_dialect(str(told), dialect, family=family) == skip


@CALM
@given(st.sampled_from(FAMILIES), st.floats(2, 12))
def test_a_fraction_survives_sdnext(family: Family, n: float) -> None:
    told = to_dialect(ClipSkip(n), Dialect.SDNEXT, family=family)
    back = from_dialect(told, Dialect.SDNEXT, family=family)
    assert isinstance(back, ClipSkip)
    assert back.from_end == pytest.approx(n, abs=1e-11)  # numbers are rounded to 12 places, so that 2.3 - 1 reads 1.3


def test_the_named_constructors_agree_on_the_layer_before_the_last() -> None:
    assert {
        ClipSkip.from_a1111(2),
        ClipSkip.from_comfy(-2),
        ClipSkip.from_diffusers(1),
        ClipSkip.from_invoke(1),
        ClipSkip.from_sdnext(2),
        ClipSkip.from_kohya(2),
        ClipSkip.from_sdcpp(2),
        ClipSkip.from_diffusers(None, family=Family.SDXL),
        ClipSkip.from_kohya(None, family=Family.SD2),
        ClipSkip.from_sdcpp(-1, family=Family.SDXL),
    } == {ClipSkip(2)}


def test_what_is_left_out_is_the_familys_default() -> None:
    assert ClipSkip.from_diffusers(None) == ClipSkip.from_kohya(None) == ClipSkip.from_sdcpp(0) == ClipSkip(1)
    skip = from_dialect("None", Dialect.DIFFUSERS, family=Family.SDXL)
    assert to_dialect(skip, Dialect.A1111, family=Family.SDXL) == 2


@pytest.mark.parametrize(
    ("value", "source", "target", "family", "message"),
    [
        ("13", "a1111", "diffusers", "sd1", "not one of the 12 layers .*use 1 to 12"),
        ("0", "a1111", "diffusers", "sd1", "not one of the 12 layers"),
        ("-13", "comfyui", "a1111", "sd1", "silently mean the last layer there.*use -1 to -12"),
        ("2", "comfyui", "a1111", "sd1", "use -1 to -12"),
        ("14", "sdcpp", "a1111", "sd1", "from 14 on all layers run"),
        ("12", "diffusers", "a1111", "sd1", "12 layers .*use 0 to 11"),
        ("25", "comfyui", "a1111", "sd2", "24 layers"),
        ("1.5", "a1111", "sdnext", "sd1", "AUTOMATIC1111 has none"),
        ("1.5", "sdnext", "diffusers", "sd1", "no fractions; near it are 0 and 1"),
        ("3", "a1111", "easydiffusion", "sd1", "it is a switch"),
        ("5", "a1111", "compel", "sd1", "these two alone"),
        ("3", "comfyui", "a1111", "sdxl", "use -1 to -12"),
        ("-3", "comfyui", "a1111", "sdxl", "ignores Clip Skip on SDXL"),
        ("-1", "comfyui", "forge", "sdxl", "reads 1 as 2"),
        ("-1", "comfyui", "diffusers", "sd2", "23 layers has no last one"),
        ("two", "a1111", "comfyui", "sd1", "not a number"),
        ("two", "diffusers", "comfyui", "sd1", "not a number"),
        ("nan", "sdnext", "comfyui", "sd1", "not a number"),
        ("1e999", "sdnext", "comfyui", "sd1", "not a number"),
        ("maybe", "easydiffusion", "comfyui", "sd1", "use off or on"),
        ("2", "a1111", "comfyui", "flux", "means nothing on Flux: its T5 encoder"),
        ("2", "a1111", "comfyui", "sd3.5", "means nothing on SD 3"),
        ("2", "a1111", "comfyui", "pixart", "no CLIP encoder"),
        ("2", "fooocus", "comfyui", "sd1", "Fooocus has no known Clip Skip on SD 1.x"),
    ],
)  # fmt: skip
def test_what_a_tool_cannot_say_is_an_error_in_its_words(
    value: str, source: str, target: str, family: str, message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        read = from_dialect(value, Dialect.parse(source), family=Family.parse(family))
        to_dialect(read, Dialect.parse(target), family=Family.parse(family))


def test_deeper_than_the_family_is_out_of_range() -> None:
    with pytest.raises(SkipOutOfRange, match="12 layers"):
        list(conversion_table(ClipSkip(13)))


@pytest.mark.parametrize(
    "name", ["SD.Next", "sd.next", "sdnext", "Comfy", "stable-diffusion.cpp", "AUTOMATIC1111", "invoke"]
)
def test_a_tool_is_known_by_the_names_people_type(name: str) -> None:
    assert Dialect.parse(name) in Dialect


def test_an_unknown_tool_or_family_lists_those_that_are_known() -> None:
    with pytest.raises(SpecError, match="comfyui"):
        Dialect.parse("photoshop")
    with pytest.raises(SpecError, match="sdxl"):
        Family.parse("dalle")


@pytest.mark.parametrize(("name", "family"), [("SD 1.5", Family.SD1), ("pony", Family.SDXL), ("SD 2.x", Family.SD2)])
def test_a_family_is_known_by_the_names_people_type(name: str, family: Family) -> None:
    assert Family.parse(name) is family
