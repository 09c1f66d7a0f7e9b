"""A sweep as a value: its cells, names and key."""

from dataclasses import replace

import pytest

from clipskip.errors import SpecError
from clipskip.spec import ClipSkip, FileRef, LoraRef, PhraseSkip, Render, parse_columns, parse_skip, parse_skips
from clipskip.sweep.plan import MAX_CELLS, Sweep, file_name, footer, name_row, with_and_without

OGRE = LoraRef(name="ogre", text_encoder=0.8, unet=0.8)
BASE = Render(prompt="swamp, ogre", negative_prompt="blurry", model=FileRef(name="m", hash="0" * 10), seed=5)
SWEEP = Sweep(base=BASE, skips=parse_skips("1-5"), rows=with_and_without((OGRE,)))


def test_the_guides_grid_is_two_rows_of_five() -> None:
    assert SWEEP.columns == ("Clip Skip 1", "Clip Skip 2", "Clip Skip 3", "Clip Skip 4", "Clip Skip 5")
    assert SWEEP.row_names == ("without LoRA", "ogre 0.8")


def test_cells_differ_from_the_base_in_clip_skip_and_loras_alone() -> None:
    cell = SWEEP.cell(1, 2)
    assert (cell.clip_skip, cell.loras) == (ClipSkip(3), (OGRE,))
    assert replace(cell, clip_skip=BASE.clip_skip, loras=BASE.loras) == BASE


def test_every_cell_has_a_file_of_its_own_that_sorts_as_the_grid_reads() -> None:
    sweep = replace(SWEEP, skips=parse_skips("1-3:0.5,12"))
    names = [file_name(sweep.cell(r, c), row=r) for r in range(2) for c in range(len(sweep.skips))]
    assert len(set(names)) == len(names) and sorted(names) == names


def test_schedules_are_columns_with_labels_and_file_names_of_their_own() -> None:
    sweep = replace(SWEEP, skips=parse_columns("1,[1:2:0.5],[1:2:5],[1|2],[[1:2:3]:4:6],2"))
    assert sweep.columns[1:4] == ("Clip Skip [1:2:0.5]", "Clip Skip [1:2:5]", "Clip Skip [1|2]")
    names = [file_name(sweep.cell(0, c)) for c in range(len(sweep.skips))]
    starts = [name.partition("-seed")[0] for name in names]
    assert starts == [f"clipskip{s}" for s in ("01", "01-2-0.5", "01-2-5", "01_2", "01-2-3-4-6", "02")]
    assert len(set(names)) == len(names) and all(len(name) < 120 for name in names)


def test_the_longest_schedule_still_makes_a_file_name() -> None:
    skip = parse_skip("[" + "|".join(["1.23456789012"] * 14) + "]")
    assert len(file_name(BASE.at(skip), row=999)) < 120


@pytest.mark.parametrize(
    "change",
    [
        {"phrase_skips": (PhraseSkip.parse("ogre=4"),)},
        {"seed": 6},
        {"prompt": "x"},
        {"width": 520},
        {"steps": 21},
        {"rng": "NV"},
    ],
)
def test_any_other_setting_is_another_sweep(change: dict[str, object]) -> None:
    assert replace(SWEEP, base=replace(BASE, **change)).key != SWEEP.key


def test_rows_are_named_as_users_name_them() -> None:
    assert (
        name_row((OGRE, LoraRef(name="ink", text_encoder=1, unet=0.5), LoraRef(name="b"))) == "ogre 0.8 + ink 1/0.5 + b"
    )
    assert with_and_without(()) == ((),) and name_row(()) == "without LoRA"


def test_a_sweep_too_large_is_refused() -> None:
    with pytest.raises(SpecError, match=str(MAX_CELLS)):
        Sweep(base=BASE, skips=tuple(ClipSkip(1 + i / 100) for i in range(MAX_CELLS + 1)))


def test_the_footer_says_what_all_cells_share() -> None:
    text = footer(SWEEP)
    assert "swamp, ogre" in text and "Seed: 5" in text and "Clip skip" not in text and "ogre 0.8" not in text


def test_the_footer_says_the_negative_prompts_and_the_phrases_skip() -> None:
    base = replace(BASE, negative_clip_skip=parse_skip("[1|2]"), phrase_skips=(PhraseSkip.parse("ogre=4"),))
    text = footer(replace(SWEEP, base=base))
    assert "Negative clip skip: [1|2], Phrase clip skips: ogre=4" in text
