"""The manual's tables are the program's own. `python tests/spec/test_dialect_page.py` writes them anew."""

import re
from pathlib import Path

from clipskip.spec import Dialect, Family
from clipskip.spec.dialect import markdown_table, nothing_table, which_number_table
from clipskip.spec.record_reader import SPELLINGS, plain_key
from clipskip.spec.settings import ENCODERS, FRACTION, NEGATIVE_SKIP

PAGE = Path(__file__).parents[2] / "docs" / "clip-skip-in-every-tool.md"


def filled(page: str) -> str:
    """The page with the tables that the rules make."""

    def table(found: re.Match[str]) -> str:
        make = which_number_table if found[2] else markdown_table
        return f"<!-- {found[1]}{found[2]} -->\n{make(Family.parse(found[1]))}<!-- end -->"

    page = re.sub(r"<!-- (sd1|sd2|sdxl)( numbers|) -->\n.*?<!-- end -->", table, page, flags=re.DOTALL)
    return re.sub(
        r"<!-- nothing -->\n.*?<!-- end -->", f"<!-- nothing -->\n{nothing_table()}<!-- end -->", page, flags=re.DOTALL
    )


def test_the_tables_are_those_of_the_rules() -> None:
    page = PAGE.read_text("utf-8")
    assert filled(page) == page and page.count("<!-- end -->") == 5


def test_every_tool_and_every_spelling_is_named() -> None:
    page = PAGE.read_text("utf-8")
    assert all(dialect.label in page for dialect in Dialect)
    assert all(
        name in page for name in (ENCODERS, FRACTION, NEGATIVE_SKIP, "Clip skip", "CLiP-skip", "Clip Skip", "clipSkip")
    )
    named = {plain_key(name) for name in re.findall(r"\w+", page)}
    assert set(SPELLINGS["clip_skip"]) <= named


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text("utf-8")), "utf-8")
