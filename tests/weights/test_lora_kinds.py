"""Each kind of LoRA, in a file, merged by us, against other people's code; the figures are those of the docs."""

import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from lora_cases import CASES, TARGETS, Case, difference
from lora_tools import family_models
from torch import nn

from clipskip.spec import Family

DOCS = Path(__file__).parents[2] / "docs" / "lora-kinds.md"
ROW = re.compile(
    r"^\| (?P<name>[^|]+) \| (?P<reference>[^|]+) \| (?P<stated>\d+e-\d+ \| \d+e-\d+ \| \d+e-\d+) \|$", re.MULTILINE
)
SLACK = 4
"""Times the documented difference: other machines add in another order."""

Stated = Mapping[str, tuple[str, Mapping[Family, float]]]


@pytest.fixture(scope="module")
def models() -> Mapping[Family, Mapping[str, nn.Module]]:
    return {family: family_models(family) for family in TARGETS}


@pytest.fixture(scope="module")
def stated() -> Stated:
    rows = ROW.finditer(DOCS.read_text())
    return {
        row["name"]: (row["reference"], dict(zip(TARGETS, map(float, row["stated"].split(" | ")), strict=True)))
        for row in rows
    }


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_merged_weight_is_the_references_as_closely_as_the_docs_say(
    case: Case, models: Mapping[Family, Mapping[str, nn.Module]], stated: Stated, tmp_path: Path
) -> None:
    reference, limits = stated[case.name]
    assert reference == case.reference
    for family, limit in limits.items():
        assert limit < 1e-6  # float32 rounding; a wrong formula is off by 1e-2 or more
        assert difference(case, models[family], tmp_path, family=family) <= SLACK * limit, family


def test_the_docs_list_exactly_the_kinds_that_are_tested(stated: Stated) -> None:
    assert set(stated) == {case.name for case in CASES}
