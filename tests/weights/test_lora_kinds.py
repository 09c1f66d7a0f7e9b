"""Each kind of LoRA, in a file, merged by us, against other people's code; the figures are those of the docs."""

import re
from pathlib import Path

import pytest
from lora_cases import CASES, Case, difference
from lora_tools import tiny_models
from torch import nn

DOCS = Path(__file__).parents[2] / "docs" / "lora-kinds.md"
ROW = re.compile(r"^\| (?P<name>[^|]+) \| (?P<reference>[^|]+) \| (?P<stated>\d+e-\d+) \|$", re.MULTILINE)
SLACK = 4
"""Times the documented difference: other machines add in another order."""


@pytest.fixture(scope="module")
def models() -> dict[str, nn.Module]:
    return tiny_models()


@pytest.fixture(scope="module")
def stated() -> dict[str, tuple[str, float]]:
    return {row["name"]: (row["reference"], float(row["stated"])) for row in ROW.finditer(DOCS.read_text())}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_merged_weight_is_the_references_as_closely_as_the_docs_say(
    case: Case, models: dict[str, nn.Module], stated: dict[str, tuple[str, float]], tmp_path: Path
) -> None:
    reference, limit = stated[case.name]
    assert reference == case.reference
    assert limit < 1e-6  # float32 rounding; a wrong formula is off by 1e-2 or more
    assert difference(case, models, tmp_path) <= SLACK * limit


def test_the_docs_list_exactly_the_kinds_that_are_tested(stated: dict[str, tuple[str, float]]) -> None:
    assert set(stated) == {case.name for case in CASES}
