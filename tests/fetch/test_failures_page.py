"""The table of failures in docs/fetching.md: what is said, and what is left on disk, is what happens."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from fetch.stand_in import StandIn

from clipskip.errors import ClipskipError
from clipskip.fetch import fetch
from clipskip.spec import by_hash, parse_link
from clipskip.weights import FileKind, Library

VERSION = "https://civitai.com/models/16615?modelVersionId=19565"
PAGE = Path(__file__).parents[2] / "docs/fetching.md"
ROWS = dict(re.findall(r"^\| ([^|]+) \| ([^|]+ \| [^|]+) \|$", PAGE.read_text(), re.MULTILINE))
NOTHING, PART, FILE = "nothing", ".part", "the file"


def answers(status: int, *, headers: dict[str, str] | None = None, **body: object) -> Callable[[StandIn], None]:
    def change(civitai: StandIn) -> None:
        civitai.statuses = [(status, headers or {}, body)] * 10

    return change


def change(**values: object) -> Callable[[StandIn], None]:
    return lambda civitai: [setattr(civitai, name, value) for name, value in values.items()] and None


def with_file(**values: object) -> Callable[[StandIn], None]:
    return lambda civitai: civitai.file.update(values)


CASES = [
    ("400", answers(400, error="Bad Request"), "does not understand", NOTHING),
    ("401", answers(401, message="The creator requires you to be logged in"), "CIVITAI_API_TOKEN", NOTHING),
    ("401, downloads disabled", answers(401, message="The creator has disabled downloads"), "disabled downloads", NOTHING),
    ("403, early access", answers(403, error="Early Access", deadline="2027-01-02"), "in early access until", NOTHING),
    ("403", answers(403, error="Forbidden"), "Civitai does not give", NOTHING),
    ("404", answers(404, error="File not found"), "have no", NOTHING),
    ("410, archived, no files", answers(410, error="Archived"), "look for another copy by its hash", NOTHING),
    ("429, with a time", answers(429, headers={"retry-after": "3600"}), "asks to wait", NOTHING),
    ("429, without a time", answers(429), "try again later", NOTHING),
    ("a page instead of a file", change(page_instead=True), "asks to sign in", NOTHING),
    ("the connection breaks, or the file is too short", change(cut_at=3000), "run the same command to continue", PART),
    ("the hash differs", with_file(hashes={"SHA256": "0" * 64}), "was removed", NOTHING),
    ("Civitai lists no hash", with_file(hashes={}), "cannot be verified", FILE),
    ("a redirect to a private address, or without TLS", change(redirect="ftp://example.com/x"), "not a host of models", NOTHING),
    ("a scan says Danger or Error", with_file(virusScanResult="Danger"), "not fetched", NOTHING),
    ("a pickle", with_file(name="shrek.pt"), "add --allow-pickle", NOTHING),
]  # fmt: skip


@pytest.mark.parametrize(("row", "misbehave", "said", "kept"), CASES, ids=[case[0] for case in CASES])
def test_what_the_page_says_of_a_failure_happens(
    civitai: StandIn, folder: Path, row: str, misbehave: Callable[[StandIn], None], said: str, kept: str
) -> None:
    misbehave(civitai)
    try:
        told = " ".join(get(folder))
    except ClipskipError as error:
        told = str(error)
    words, _, left = ROWS[row].partition(" | ")
    assert said in told and said in words.replace("`", "")
    names = [path.name for path in folder.rglob("*") if path.is_file()]
    there = FILE if any(name.endswith(".safetensors") for name in names) else PART if names else NOTHING
    assert there == kept and (kept in left or left.startswith("what arrived before"))


def test_several_versions_of_one_hash_and_the_hash_of_nothing(civitai: StandIn, folder: Path) -> None:
    civitai.file["hashes"], civitai.by_hash = {}, "0123456789"
    with pytest.raises(ClipskipError, match="not 0123456789, and was removed"):
        fetch(by_hash("0123456789"), library=Library((folder,)))
    assert not any(path.is_file() for path in folder.rglob("*"))
    count = len(civitai.requests)
    with pytest.raises(ClipskipError) as error:
        fetch(by_hash("e3b0c44298fc"), library=Library((folder,)))
    assert len(civitai.requests) == count, "it is not looked up"
    for row, said in (
        ("several versions have one hash", "removed"), ("the hash of an empty file (`e3b0c44298fc`)", "many files"),
    ):  # fmt: skip
        assert said in ROWS[row]
    assert "many files" in str(error.value)


def get(folder: Path) -> tuple[str, ...]:
    link = parse_link(VERSION)
    assert link is not None
    return fetch(link, library=Library((folder,)), kind=FileKind.LORA, wait=lambda _: None).notes
