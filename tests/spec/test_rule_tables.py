"""Every cell of what each tool reads at each of its numbers, on SDXL and on SD 2.x, written out as hidden states.

h[0] is the embeddings and h[k] what layer k gives out, as in transformers' `hidden_states`; LN is the final norm. SDXL's cells are
CLIP-L / OpenCLIP-bigG, read without the norm; SD 2.x' are read through it. A cell in quotes is what no Clip Skip is, in the words of
the error. Sources: AUTOMATIC1111 modules/sd_hijack_clip.py and sd_hijack_open_clip.py; Forge backend/diffusion_engine/sdxl.py, sd20.py;
reForge modules_forge/forge_clip.py; ComfyUI comfy/sdxl_clip.py, sd1_clip.py; SD.Next modules/prompt_parser_diffusers.py; diffusers
pipeline_stable_diffusion_xl.py; InvokeAI compel.py; stable-diffusion.cpp src/model/te/clip.hpp; kohya gen_img.py, train_util.py;
OneTrainer StableDiffusionXLModel.py; Draw Things TextEncoder.swift.
"""

from pathlib import Path

import pytest
import torch
from clip_reference import our_encoder, random_model, relative

from clipskip.doors.options import build_request
from clipskip.encode.layer import read_layer
from clipskip.errors import SkipOutOfRange, SpecError
from clipskip.networks import TextShape
from clipskip.spec import (
    ClipSkip,
    Dialect,
    Family,
    Skip,
    asked_skip,
    depths,
    from_dialect,
    request_from_text,
    skip_for,
    to_dialect,
    translate,
)  # fmt: skip
from clipskip.spec.dialect import dialects, full_note
from clipskip.spec.numbering import ROWS

Cell = str | tuple[str]
"""Hidden states, or in a tuple the words of the error."""

BARE = ("CLIP-L's bare token embeddings with layer 20 of OpenCLIP-bigG",)
FAILS = ("14 fails",)
DEFAULT = "h11/h31"
SAME = dict.fromkeys((None, 0, 1, 2, 3, 12, 13, 14), DEFAULT)
FORGE = {
    None: DEFAULT,
    1: DEFAULT,
    2: DEFAULT,
    3: "h10/h30",
    12: "h1/h21",
    13: BARE,
    14: FAILS,
    0: ("0 and below there mean 2",),
}
PARTED = ("-13 to -24 there are CLIP-L's last layer through the final norm with OpenCLIP-bigG's of that number",)
COMFY = {None: DEFAULT, -1: "h12/h32", -2: DEFAULT, -3: "h10/h30", -12: "h1/h21", -13: PARTED, -14: PARTED, -24: PARTED}

SDXL: dict[Dialect, dict[int | float | str | None, Cell]] = {
    Dialect.A1111: {**SAME, -1: DEFAULT, 99: DEFAULT},
    Dialect.A1111_L: {
        None: "h12/h31", 1: "h12/h31", 2: DEFAULT, 3: "h10/h31", 12: "h1/h31", 14: FAILS,
        13: ("0 and 13 there are CLIP-L's bare token embeddings",), 0: ("0 and 13 there",), -1: ("-1 its first layer",),
    },
    Dialect.FORGE: FORGE,
    Dialect.FORGE_NEO: FORGE,
    Dialect.REFORGE: {**FORGE, 13: ("its slider ends at 12",), 14: ("its slider ends at 12",), 0: ("slider",)},
    Dialect.FORGE_CLASSIC: SAME,
    Dialect.COMFYUI: COMFY,
    Dialect.SWARMUI: COMFY,
    Dialect.EASYUSE: COMFY,
    Dialect.EFFICIENCY: COMFY,
    Dialect.FOOOCUS: {
        None: DEFAULT, 1: "h12/h32", 2: DEFAULT, 3: "h10/h30", 12: "h1/h21",
        13: ("13 there is CLIP-L's last layer through the final norm; its slider ends at 12",), 14: ("ends at 12",),
    },
    Dialect.SDNEXT: {
        None: DEFAULT, 0: "h12/h32", 1: DEFAULT, 2: "h10/h30", 3: "h9/h29", 11: "h1/h21", 12: BARE, 13: ("13 fails",),
    },
    Dialect.DIFFUSERS: {
        None: DEFAULT, -1: "h12/h32", 0: DEFAULT, 1: "h10/h30", 2: "h9/h29", 3: "h8/h28", 10: "h1/h21", 11: BARE, 12: ("12 fails",),
    },
    Dialect.INVOKEAI: {
        None: DEFAULT, 0: DEFAULT, 1: "h10/h30", 2: "h9/h29", 3: "h8/h28", 10: "h1/h21", 11: BARE, 12: ("12 fails",),
        "0/30": "h11/h1", "3/0": "h8/h31",
    },
    Dialect.SDCPP: {
        None: DEFAULT, 0: DEFAULT, -1: DEFAULT, 1: "h12/h32", 2: DEFAULT, 3: "h10/h30", 12: "h1/h21", 13: BARE,
        14: "h12/h19", 32: "h12/h1", 33: ("33 is bigG's bare token embeddings",), 34: "h12/h32", 99: "h12/h32",
    },
    Dialect.GEN_IMG: {None: DEFAULT, 1: "h12/h32", 2: DEFAULT, 3: "h10/h30", 12: "h1/h21", 13: BARE, 14: FAILS},
    Dialect.KOHYA: SAME,
    Dialect.AITOOLKIT: SAME,
    Dialect.ONETRAINER: {
        None: DEFAULT, 0: DEFAULT, "0/0": DEFAULT, 1: "h10/h30", 2: "h9/h29", "1/3": "h10/h28", "L=2,G=30": "h9/h1",
        11: ("CLIP-L's bare token embeddings",), 12: ("12 fails",),
    },
    Dialect.DRAWTHINGS: {
        None: "h12/h31", 1: "h12/h31", 2: DEFAULT, 3: "h10/h30", 12: "h1/h21", 13: "h1/h20", 14: "h1/h19", 23: "h1/h10",
        24: ("its slider ends at 23",),
    },
    Dialect.COMPEL: {None: DEFAULT, "PENULTIMATE_HIDDEN_STATES_NON_NORMALIZED": DEFAULT},
    Dialect.EASYDIFFUSION: {None: DEFAULT, "off": DEFAULT, "on": DEFAULT},
    Dialect.LORAMANAGER: {None: DEFAULT, 1: "h12/h32", 2: DEFAULT},
    Dialect.CLIPSKIP: {
        None: DEFAULT, 1: "h12/h32", 2: DEFAULT, 12: "h1/h21", 13: ("CLIP-L has 12 layers",), "1/2": "h12/h31", "12/32": "h1/h1",
    },
}  # fmt: skip

FIXED = dict.fromkeys((None, 0, 1, 2, 3, 12, 13, 24), "LN(h23)")
COMFY_SD2 = {None: "LN(h23)", -1: "LN(h24)", -2: "LN(h23)", -3: "LN(h22)", -24: "LN(h1)", -25: ("beyond -24",)}
FROM_0 = {
    None: "LN(h23)", 0: "LN(h23)", 1: "LN(h22)", 2: "LN(h21)", 22: "LN(h1)",
    23: ("23 there is the bare token embeddings",), 24: ("24 fails",),
}  # fmt: skip
SD2: dict[Dialect, dict[int | float | str | None, Cell]] = {
    Dialect.A1111: FIXED,
    Dialect.A1111_L: FIXED,
    Dialect.FORGE_CLASSIC: FIXED,
    Dialect.FORGE: {
        None: "LN(h23)", 1: "LN(h23)", 2: "LN(h22)", 3: "LN(h21)", 12: "LN(h12)",
        24: ("by its API 24 is the bare token embeddings",), 25: ("25 fails",),
    },
    Dialect.REFORGE: {
        None: "LN(h23)", 1: "LN(h23)", 2: "LN(h23)", 3: "LN(h22)", 12: "LN(h13)", 13: ("slider",),
    },
    Dialect.COMFYUI: COMFY_SD2,
    Dialect.SWARMUI: COMFY_SD2,
    Dialect.EASYUSE: COMFY_SD2,
    Dialect.EFFICIENCY: COMFY_SD2,
    Dialect.SDNEXT: {
        None: "LN(h23)", 1: "LN(h23)", 2: "LN(h22)", 3: "LN(h21)", 12: "LN(h12)", 0: ("0 there is the bare token embeddings",),
    },
    Dialect.DIFFUSERS: FROM_0,
    Dialect.INVOKEAI: {**FROM_0, 24: ("24, where its slider ends, fails",)},
    Dialect.ONETRAINER: FROM_0,
    Dialect.SDCPP: {
        None: "LN(h23)", 0: "LN(h23)", -1: "LN(h23)", 1: "LN(h24)", 2: "LN(h23)", 3: "LN(h22)", 24: "LN(h1)",
        25: ("25 there is the bare token embeddings",), 26: "LN(h24)", 99: "LN(h24)",
    },
    Dialect.KOHYA: {None: "LN(h23)", 1: "LN(h23)", 2: "LN(h22)", 3: "LN(h21)", 23: "LN(h1)", 24: ("24 there is the bare",)},
    Dialect.GEN_IMG: {None: "LN(h22)", 1: "LN(h23)", 2: "LN(h22)", 23: "LN(h1)", 25: ("25 fails",)},
    Dialect.DRAWTHINGS: {None: "LN(h23)", 1: "LN(h23)", 2: "LN(h22)", 23: "LN(h1)", 24: ("its slider ends at 23",)},
    Dialect.COMPEL: {
        None: "LN(h23)", "LAST_HIDDEN_STATES_NORMALIZED": "LN(h23)", "PENULTIMATE_HIDDEN_STATES_NORMALIZED": "LN(h22)",
    },
    Dialect.CLIPSKIP: {None: "LN(h23)", 1: "LN(h24)", 2: "LN(h23)", 24: "LN(h1)", 25: ("not one of the 24 layers",)},
}  # fmt: skip

BARE_SD1 = ("13 there is the bare token embeddings",)
WEBUI = {
    None: "LN(h12)",
    1: "LN(h12)",
    2: "LN(h11)",
    12: "LN(h1)",
    0: ("0 and below there mean 1",),
    13: BARE_SD1,
    14: FAILS,
}
COMFY_SD1 = {
    None: "LN(h12)",
    -1: "LN(h12)",
    -2: "LN(h11)",
    -12: "LN(h1)",
    -13: ("-13 to -24 silently mean the last layer there",),
}
FROM_0_SD1 = {
    None: "LN(h12)",
    0: "LN(h12)",
    1: "LN(h11)",
    11: "LN(h1)",
    12: ("12 there is the bare token embeddings",),
    13: ("13 fails",),
}
KOHYA_SD1 = {None: "LN(h12)", 1: "LN(h12)", 2: "LN(h11)", 12: "LN(h1)", 13: BARE_SD1, 14: FAILS}
SD1: dict[Dialect, dict[int | float | str | None, Cell]] = {
    **dict.fromkeys(
        (Dialect.A1111, Dialect.A1111_L, Dialect.FORGE, Dialect.FORGE_NEO, Dialect.FORGE_CLASSIC, Dialect.REFORGE), WEBUI
    ),
    **dict.fromkeys((Dialect.COMFYUI, Dialect.SWARMUI, Dialect.EASYUSE, Dialect.EFFICIENCY), COMFY_SD1),
    **dict.fromkeys((Dialect.INVOKEAI, Dialect.ONETRAINER), FROM_0_SD1),
    **dict.fromkeys((Dialect.KOHYA, Dialect.GEN_IMG), KOHYA_SD1),
    Dialect.DIFFUSERS: {**FROM_0_SD1, -1: ("-1 as well",)},
    Dialect.SDNEXT: {
        None: "LN(h12)", 1: "LN(h12)", 2: "LN(h11)", 12: "LN(h1)", 0: ("not normed",), 0.5: ("not normed",), 13: ("13 fails",),
    },
    Dialect.SDCPP: {
        None: "LN(h12)", 0: "LN(h12)", -1: "LN(h12)", 1: "LN(h12)", 2: "LN(h11)", 12: "LN(h1)", 13: BARE_SD1, 14: ("from 14 on",),
    },
    Dialect.COMPEL: {
        None: "LN(h12)", "LAST_HIDDEN_STATES_NORMALIZED": "LN(h12)", "PENULTIMATE_HIDDEN_STATES_NORMALIZED": "LN(h11)",
    },
    Dialect.EASYDIFFUSION: {None: "LN(h12)", "off": "LN(h12)", "on": "LN(h11)"},
    Dialect.DRAWTHINGS: {None: "LN(h12)", 1: "LN(h12)", 2: "LN(h11)", 12: "LN(h1)", 13: "LN(h1)", 24: ("ends at 23",)},
    Dialect.LORAMANAGER: {1: "LN(h12)", 2: "LN(h11)"},
    Dialect.CLIPSKIP: {None: "LN(h12)", 1: "LN(h12)", 12: "LN(h1)", 13: ("not one of the 12 layers",)},
}  # fmt: skip

TABLES = {Family.SD1: SD1, Family.SD2: SD2, Family.SDXL: SDXL}
CELLS = [
    (family, dialect, value, cell)
    for family, table in TABLES.items()
    for dialect, row in table.items()
    for value, cell in row.items()
]


def states_of(skip: Skip, family: Family) -> str:
    """The cell of a Clip Skip."""
    layers = [depth + 1 - skip_for(skip, number).first.from_end for number, depth in enumerate(depths(family))]
    states = "/".join(f"h{layer}" for layer in layers)
    return f"LN({states})" if family.value.final_norm else states


@pytest.mark.parametrize(("family", "dialect", "value", "cell"), CELLS, ids=str)
def test_a_tool_reads_at_its_number_what_the_table_says(
    family: Family, dialect: Dialect, value: str, cell: Cell
) -> None:
    for said in {value, value if value is None else str(value)}:
        if isinstance(cell, tuple):
            with pytest.raises(SpecError) as caught:
                from_dialect(said, dialect, family=family)
            assert cell[0] in str(caught.value) and "; use " in str(caught.value)
        else:
            assert states_of(from_dialect(said, dialect, family=family), family) == cell


@pytest.mark.parametrize(("family", "dialect", "value", "cell"), CELLS, ids=str)
def test_what_a_tool_reads_is_said_back_to_it_by_a_number_that_reads_it(
    family: Family, dialect: Dialect, value: str, cell: Cell
) -> None:
    if not isinstance(cell, tuple):
        skip = from_dialect(value, dialect, family=family)
        told = to_dialect(skip, dialect, family=family)
        assert states_of(from_dialect(told, dialect, family=family), family) == cell


@pytest.mark.parametrize("family", TABLES, ids=lambda family: family.label)
def test_every_tool_has_its_row(family: Family) -> None:
    assert set(TABLES[family]) == set(dialects(family)) == set(ROWS[family])


def test_a_fraction_of_sdnext_lies_between_the_same_two_layers() -> None:
    assert from_dialect(1.25, Dialect.SDNEXT, family=Family.SDXL) == ClipSkip(2.25)  # .75 h11 + .25 h10
    assert from_dialect(0.5, Dialect.SDNEXT, family=Family.SDXL) == ClipSkip(1.5)
    assert from_dialect(1.25, Dialect.SDNEXT, family=Family.SD1) == ClipSkip(1.25)


def test_which_encoders_a_number_moves_on_sdxl() -> None:
    def moved(dialect: Dialect) -> str:
        first, second = (-3, -4) if ROWS[Family.SDXL][dialect].sign == -1 else (3, 4)
        skips = [from_dialect(value, dialect, family=Family.SDXL) for value in (first, second)]
        return "".join(
            letter for number, letter in enumerate("LG") if len({skip_for(skip, number) for skip in skips}) > 1
        )

    numbered = [dialect for dialect in dialects(Family.SDXL) if not ROWS[Family.SDXL][dialect].words]
    none = {Dialect.A1111, Dialect.FORGE_CLASSIC, Dialect.KOHYA, Dialect.AITOOLKIT}
    expected = {dialect: "" if dialect in none else "LG" for dialect in numbered} | {Dialect.A1111_L: "L"}
    assert {dialect: moved(dialect) for dialect in numbered} == expected


def test_notes_say_whose_pooled_vector_and_negative_prompt_are_not_as_the_others() -> None:
    notes = {dialect: full_note(dialect, Family.SDXL) for dialect in dialects(Family.SDXL)}
    assert {dialect for dialect, note in notes.items() if "pooled vector" in note} == {
        Dialect.INVOKEAI,
        Dialect.DRAWTHINGS,
    }
    assert {dialect for dialect, note in notes.items() if "negative prompt ignores it" in note} == {Dialect.DIFFUSERS}


@pytest.mark.parametrize(
    ("dialect", "value", "said"),
    [
        (Dialect.FORGE, 1, "Forge 1 on SDXL reads Clip Skip 2: it silently reads 1 as 2"),
        (Dialect.A1111, 3, "AUTOMATIC1111 3 on SDXL reads Clip Skip 2: it ignores Clip Skip on SDXL"),
        (Dialect.A1111_L, 1, "reads CLIP-L at 1 and OpenCLIP-bigG at 2: the option moves CLIP-L alone"),
        (Dialect.A1111_L, 1, "Below 2 it is the last layer without its final norm"),
        (Dialect.COMFYUI, -1, "Below 2 it is the last layer without its final norm"),
        (Dialect.SDNEXT, 0, "SD.Next 0 on SDXL reads Clip Skip 1. Below 2 it is the last layer"),
        (Dialect.SDNEXT, 2, "SD.Next 2 on SDXL reads Clip Skip 3"),
        (Dialect.DRAWTHINGS, 13, "reads CLIP-L at 12 and OpenCLIP-bigG at 13"),
        (Dialect.KOHYA, 1, "its SDXL trainers always read Clip Skip 2"),
        (Dialect.INVOKEAI, "0/3", "InvokeAI 3 on SDXL reads Clip Skip 5"),
        (Dialect.SDCPP, 14, "reads CLIP-L at 1 and OpenCLIP-bigG at 14: from 14 on it runs all of CLIP-L's layers"),
        (
            Dialect.SDCPP,
            34,
            "stable-diffusion.cpp 34 on SDXL reads Clip Skip 1: from 14 on it runs all of CLIP-L's layers",
        ),
    ],
)
def test_a_number_that_reads_another_layer_than_it_says_is_explained_in_a_line(
    dialect: Dialect, value: int | str, said: str
) -> None:
    remark = translate(value, dialect, family=Family.SDXL).remark
    assert said in remark and "\n" not in remark


@pytest.mark.parametrize(
    ("dialect", "value"), [(Dialect.FORGE, 2), (Dialect.COMFYUI, -3), (Dialect.GEN_IMG, 2)], ids=str
)
def test_a_number_that_reads_what_it_says_needs_no_remark(dialect: Dialect, value: int) -> None:
    assert translate(value, dialect, family=Family.SDXL).remark == ""


@pytest.mark.parametrize("family", [family for family in Family if not family.usable], ids=lambda family: family.label)
def test_where_clip_skip_means_nothing_the_error_says_what_comfyui_moves_and_that_the_number_is_noise(
    family: Family,
) -> None:
    with pytest.raises(SpecError) as caught:
        from_dialect(2, Dialect.COMFYUI, family=family)
    said = str(caught.value)
    assert f"Clip Skip means nothing on {family.label}" in said and "CLIPSetLastLayer would move the layer of" in said
    assert "`Clip skip: 2` in such a picture's settings is noise" in said


@pytest.mark.parametrize(
    ("name", "moves"),
    [
        ("flux", "T5"), ("SD 3.5", "T5"), ("Lumina 2", "Gemma 2"), ("Qwen-Image", "Qwen2.5-VL"), ("z-image", "Qwen3"),
        ("Anima", "Qwen3"), ("chroma", "T5"), ("HiDream", "LLaMA"),
    ],
)  # fmt: skip
def test_a_family_without_clip_skip_is_known_by_name(name: str, moves: str) -> None:
    assert moves in Family.parse(name).value.moves and not Family.parse(name).usable


@pytest.mark.parametrize("depth", [12, 24, 32])
@pytest.mark.parametrize("normed", [True, False])
def test_h_k_is_transformers_hidden_state_k(depth: int, normed: bool) -> None:
    shape = TextShape(depth=depth, width=16, heads=2, mlp_width=24, vocabulary=50)
    theirs = random_model(shape)
    ours, ids = our_encoder(theirs, shape), torch.randint(0, 50, (2, 7), generator=torch.Generator().manual_seed(1))
    states, expected = ours.layers(ids), theirs(ids, output_hidden_states=True).hidden_states
    norm = ours.final_layer_norm if normed else None
    for from_end in range(1, depth + 1):
        layer = expected[depth + 1 - from_end]
        layer = theirs.final_layer_norm(layer) if normed else layer
        read = read_layer(states, ClipSkip(from_end), depth=depth, final_norm=norm)
        assert relative(read, layer) < 1e-5  # float32, summed in another order


def test_numbers_of_hostile_tools_are_refused_in_few_words() -> None:
    for value in (10**400, "9" * 5000, "1e999", float("nan"), True, "\x1d", "2\x1d3", "x" * 10**6, "1/2/3", "=/="):
        for dialect in dialects(Family.SDXL):
            try:
                from_dialect(value, dialect, family=Family.SDXL)
            except SpecError as error:
                assert len(str(error)) < 600


def test_two_numbers_for_a_tool_that_has_one_are_refused() -> None:
    with pytest.raises(SpecError, match="ComfyUI has one number on SDXL, not one for each encoder; use -1 to -12"):
        from_dialect("-2/-5", Dialect.COMFYUI, family=Family.SDXL)
    with pytest.raises(
        SpecError, match="ComfyUI cannot select Clip Skip 2/5 on SDXL: it has one number for both encoders"
    ):
        to_dialect(from_dialect("2/5", Dialect.CLIPSKIP, family=Family.SDXL), Dialect.COMFYUI, family=Family.SDXL)
    with pytest.raises(SkipOutOfRange, match="32"):
        from_dialect("2/33", Dialect.CLIPSKIP, family=Family.SDXL)


@pytest.mark.parametrize(
    ("noted", "family", "expected"),
    [
        ("Clip skip: 1, Version: v1.9.4", Family.SDXL, "2"),
        ("Version: v1.10.1", Family.SDXL, "2"),
        ("Clip skip: 3, Version: v1.10.1", Family.SDXL, "2"),
        ("Clip skip: 3, Version: f2.0.1v1.10.1-previous-665-gae278f79", Family.SDXL, "3"),
        ("Version: f2.0.1v1.10.1", Family.SDXL, "2"),
        ("Version: f2.0.1v1.10.1", Family.SD2, "2"),
        ("Clip skip: 2, Version: f2.0.1v1.10.1", Family.SD2, "3"),
        ("Clip skip: 2, Version: neo", Family.SDXL, "2"),
        ("CLiP-skip: 1, App: SD.Next, Version: 3b7a0e5", Family.SDXL, "2"),
        ("Size: 512x512", Family.SDXL, "2"),
        ("Clip skip: 3", Family.SDXL, "3"),
        ("Clip skip: 1, Version: clipskip 0.1", Family.SDXL, "1"),
        ("Clip skip: 2, Clip skip per encoder: 2/5, Version: clipskip 0.1", Family.SDXL, "2/5"),
        ("Clip skip: 2, Version: v1.9.4", Family.SD1, "2"),
        ("Version: v1.9.4", Family.SD1, "1"),
    ],
)
def test_a_settings_text_is_drawn_at_the_layer_that_its_tool_read_on_the_models_family(
    noted: str, family: Family, expected: str
) -> None:
    asked = request_from_text(f"a frog\nSteps: 20, Sampler: Euler a, CFG scale: 7, {noted}")
    found = asked_skip(asked, family)
    assert found is not None and str(found.skip) == expected


def test_a_clip_skip_that_is_typed_beside_a_settings_text_is_ours(tmp_path: Path) -> None:
    settings = tmp_path / "a.txt"
    settings.write_text("a frog\nSteps: 20, Sampler: Euler a, CFG scale: 7, Clip skip: 1, Version: v1.9.4")
    asked = build_request(None, settings=str(settings), loras=None, phrase_skips=None, size=None, clip_skip="1")
    found = asked_skip(asked, Family.SDXL)
    assert found is not None and found.skip == ClipSkip(1)
