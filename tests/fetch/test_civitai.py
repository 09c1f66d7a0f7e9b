"""A Civitai link to a verified file: the right folder, the description beside it, and each way to fail by name."""

import hashlib
import json
from pathlib import Path

import pytest
from fetch.stand_in import StandIn, serving

from clipskip.errors import ClipskipError, FetchError, NotFound, OutputError, UnsafeFile
from clipskip.fetch import Fetched, fetch
from clipskip.fetch import download as download_module
from clipskip.spec import by_hash, parse_link
from clipskip.weights import FileKind, Library
from clipskip.weights.beside import read_beside
from clipskip.weights.hints import read_hints

GUIDES_LINK = "https://civitai.com/models/16615"
VERSION = "https://civitai.com/models/16615?modelVersionId=19565"


def get(folder: Path, text: str = VERSION, *, waits: list[float] | None = None, **options: object) -> Fetched:
    link = parse_link(text)
    assert link is not None
    wait = (waits if waits is not None else []).append
    return fetch(link, library=Library((folder,)), kind=FileKind.LORA, wait=wait, **options)  # type: ignore[arg-type]


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_the_guides_own_lora_arrives_verified_with_its_trigger_words(civitai: StandIn, folder: Path) -> None:
    found = get(folder, GUIDES_LINK)
    assert found.path == folder / "models/Lora/shrek.safetensors"
    assert found.path.read_bytes() == civitai.content
    assert left(folder) == ["shrek.civitai.info", "shrek.safetensors"]
    assert read_beside(found.path, left(folder)).words == ("shrek", "ogre", "green skin")
    assert [(hint.clip_skip, hint.pictures) for hint in read_hints(found.path)] == [(2, 2), (2, 0)]


def test_what_is_here_is_not_fetched_again(civitai: StandIn, folder: Path) -> None:
    first = get(folder)
    count = len(civitai.requests)
    again = get(folder)
    assert again.path == first.path and again.was_here
    assert len(civitai.requests) == count, "a version whose file is here needs no request"
    assert get(folder, GUIDES_LINK).was_here
    assert len(civitai.downloads) == 1


@pytest.mark.parametrize("digits", [10, 12, 64])
def test_a_hash_finds_the_file(civitai: StandIn, folder: Path, digits: int) -> None:
    digest = hashlib.sha256(civitai.content).hexdigest()
    found = fetch(by_hash(digest[:digits]), library=Library((folder,)))
    assert found.path.read_bytes() == civitai.content


def test_another_file_of_that_name_is_left_alone(civitai: StandIn, folder: Path) -> None:
    other = folder / "models/Lora/shrek.safetensors"
    other.write_bytes(b"something else")
    assert get(folder).path.name == "shrek-19565.safetensors"
    assert other.read_bytes() == b"something else"


def test_a_broken_download_goes_on_where_it_stopped(civitai: StandIn, folder: Path) -> None:
    civitai.cut_at = 3000
    with pytest.raises(FetchError, match="run the same command to continue"):
        get(folder)
    assert left(folder) == ["shrek.safetensors.part"]
    assert get(folder).path.read_bytes() == civitai.content
    assert civitai.downloads[-1]["range"] == "bytes=3000-"


def test_a_download_that_was_complete_but_not_renamed_is_verified_and_kept(civitai: StandIn, folder: Path) -> None:
    (folder / "models/Lora/shrek.safetensors.part").write_bytes(civitai.content)
    assert get(folder).path.read_bytes() == civitai.content


def test_another_hash_is_refused_and_removed(civitai: StandIn, folder: Path) -> None:
    civitai.file["hashes"] = {"SHA256": "0" * 64}
    with pytest.raises(FetchError, match="hash"):
        get(folder)
    assert left(folder) == []


def test_a_file_without_a_hash_is_taken_and_said_to_be_unverified(civitai: StandIn, folder: Path) -> None:
    civitai.file["hashes"] = {}
    assert "cannot be verified" in get(folder).notes[0]


def test_a_page_in_the_place_of_the_file_is_refused(civitai: StandIn, folder: Path) -> None:
    civitai.page_instead = True
    with pytest.raises(FetchError, match="sign in"):
        get(folder)
    assert left(folder) == []


REFUSALS = [
    (400, {"error": "Bad Request"}, FetchError, "does not understand"),
    (401, {"error": "Unauthorized", "message": "The creator requires you to be logged in"}, FetchError, "CIVITAI_API_TOKEN"),
    (401, {"error": "Unauthorized", "message": "The creator has disabled downloads"}, FetchError, "disabled downloads"),
    (403, {"error": "Early Access", "deadline": "2027-01-02"}, FetchError, "early access until 2027-01-02"),
    (403, {"error": "Forbidden"}, FetchError, "does not give"),
    (404, {"error": "File not found"}, NotFound, "have no"),
    (410, {"error": "Archived"}, FetchError, "archived"),
    (429, {"error": "unusual amount of downloading"}, FetchError, "limits your downloads"),
    (500, {}, FetchError, "500"),
]  # fmt: skip


@pytest.mark.parametrize(("status", "body", "error", "said"), REFUSALS, ids=lambda v: str(v)[:30])
def test_each_refusal_has_its_name_and_leaves_nothing(
    civitai: StandIn, folder: Path, status: int, body: dict[str, object], error: type[ClipskipError], said: str
) -> None:
    civitai.statuses = [(status, {}, body)] * 10
    with pytest.raises(error, match=said):
        get(folder)
    assert left(folder) == []


@pytest.mark.parametrize(("status", "body", "error", "said"), REFUSALS, ids=lambda v: str(v)[:30])
def test_each_refusal_of_the_description_has_its_name(
    civitai: StandIn, folder: Path, status: int, body: dict[str, object], error: type[ClipskipError], said: str
) -> None:
    civitai.api_statuses = [(status, {}, body)] * 10
    with pytest.raises(error, match=said):
        get(folder)
    assert left(folder) == []


@pytest.mark.parametrize("status", [500, 502, 503])
def test_a_host_that_fails_once_is_asked_again(civitai: StandIn, folder: Path, status: int) -> None:
    civitai.statuses, civitai.api_statuses, waits = [(status, {}, {})], [(status, {}, {})] * 2, []
    assert get(folder, waits=waits).path.read_bytes() == civitai.content
    assert waits == [1.0, 2.0, 1.0]


def test_redirects_in_circles_end_with_one_line(civitai: StandIn, folder: Path) -> None:
    civitai.redirect = f"{civitai.url}/circle"
    with pytest.raises(FetchError, match="in circles"):
        get(folder)
    assert left(folder) == [] and len(civitai.requests) < 10


@pytest.mark.parametrize("has_hash", [True, False])
def test_another_piece_than_the_rest_is_not_appended(civitai: StandIn, folder: Path, has_hash: bool) -> None:
    civitai.cut_at, civitai.wrong_range = 3000, True
    if not has_hash:
        civitai.file["hashes"] = {}
    with pytest.raises(FetchError, match="run the same command to continue"):
        get(folder)
    assert get(folder).path.read_bytes() == civitai.content
    assert "range" not in civitai.downloads[-1]


@pytest.mark.parametrize("has_hash", [True, False])
@pytest.mark.parametrize("rest", [b"", b"longer"])
def test_a_part_of_another_file_is_thrown_away(civitai: StandIn, folder: Path, rest: bytes, has_hash: bool) -> None:
    """Its size is the file's or larger, so that the host answers 416 to a request for the rest."""
    if not has_hash:
        civitai.file["hashes"] = {}
    part = folder / "models/Lora/shrek.safetensors.part"
    part.write_bytes(b"x" * len(civitai.content) + rest)
    if not rest and not has_hash:
        assert get(folder).notes, "of the same size and without a hash it cannot be told, which is said"
        return
    if not rest:
        with pytest.raises(FetchError, match="was removed"):
            get(folder)
    assert get(folder).path.read_bytes() == civitai.content
    assert left(folder) == ["shrek.civitai.info", "shrek.safetensors"]


@pytest.mark.parametrize("how", ["chunked", "gzipped"])
def test_a_file_may_come_in_chunks_or_compressed(civitai: StandIn, folder: Path, how: str) -> None:
    setattr(civitai, how, True)
    assert get(folder).path.read_bytes() == civitai.content


@pytest.mark.parametrize("how", ["chunked", "gzipped"])
def test_a_file_that_breaks_off_in_chunks_or_compressed_is_not_taken(civitai: StandIn, folder: Path, how: str) -> None:
    setattr(civitai, how, True)
    civitai.cut_at, civitai.file["hashes"] = 200, {}
    with pytest.raises(FetchError, match="run the same command to continue"):
        get(folder)
    assert not (folder / "models/Lora/shrek.safetensors").exists()
    assert get(folder).path.read_bytes() == civitai.content


def test_a_file_without_a_hash_that_is_shorter_than_described_is_not_taken(civitai: StandIn, folder: Path) -> None:
    civitai.file.update(hashes={}, sizeKB=99.0)
    with pytest.raises(FetchError, match="of 101,376 bytes"):
        get(folder)
    assert left(folder) == ["shrek.safetensors.part"]


def test_of_several_versions_with_one_hash_the_file_has_it(civitai: StandIn, folder: Path) -> None:
    """Civitai answers with the oldest version of all that list a hash, rightly or by mistake: the file itself decides."""
    digest, civitai.file["hashes"] = hashlib.sha256(civitai.content).hexdigest(), {}
    assert fetch(by_hash(digest[:10]), library=Library((folder,))).path.read_bytes() == civitai.content
    civitai.content = civitai.content[:-4] + b"\0\0\0\0"
    other = hashlib.sha256(civitai.content).hexdigest()
    civitai.content = civitai.content[:-4] + b"\1\1\1\1"
    civitai.by_hash = other[:10]
    with pytest.raises(FetchError, match=f"not {other[:10]}, and was removed"):
        fetch(by_hash(other[:10]), library=Library((folder / "new",)))


def test_a_download_link_says_which_of_several_files(civitai: StandIn, folder: Path) -> None:
    civitai.file["metadata"] = {"format": "SafeTensor", "size": "pruned", "fp": "fp16"}
    link = "https://civitai.com/api/download/models/19565?type=Model&format=SafeTensor&size={}&fp=fp16"
    assert get(folder, link.format("pruned")).path.exists()
    with pytest.raises(NotFound, match="no file with format safetensor, size full"):
        get(folder / "new", link.format("full"))


def test_a_429_names_a_time_by_its_own_clock(civitai: StandIn, folder: Path) -> None:
    """Its clock is a year behind ours."""
    told = {"retry-after": "Sat, 29 Nov 2025 10:00:09 GMT", "date": "Sat, 29 Nov 2025 10:00:00 GMT"}
    civitai.statuses, waits = [(429, told, {})], []
    assert get(folder, waits=waits).path.exists()
    assert waits == [9.0]


def test_a_429_without_a_time_is_waited_for_longer_each_time(civitai: StandIn, folder: Path) -> None:
    civitai.statuses, waits = [(429, {}, {})] * 2, []
    assert get(folder, waits=waits).path.exists()
    assert waits == [5.0, 10.0]


def test_a_404_that_passes_is_tried_again(civitai: StandIn, folder: Path) -> None:
    civitai.statuses = [(404, {}, {"error": "File not found"})]
    assert get(folder).path.exists()


def test_a_429_is_waited_for_as_long_as_it_asks(civitai: StandIn, folder: Path) -> None:
    civitai.statuses, waits = [(429, {"retry-after": "7"}, {})], []
    assert get(folder, waits=waits).path.exists()
    assert waits == [7.0]


def test_a_429_that_asks_for_an_hour_is_an_error(civitai: StandIn, folder: Path) -> None:
    civitai.statuses, waits = [(429, {"retry-after": "3600"}, {})], []
    with pytest.raises(FetchError, match="3600 s"):
        get(folder, waits=waits)
    assert waits == []


def test_the_other_host_is_asked_where_the_first_has_nothing(
    civitai: StandIn, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving() as empty:
        empty.api_statuses = [(404, {}, {"error": "Model not found"})]
        monkeypatch.setenv("CLIPSKIP_CIVITAI", f"{empty.url} {civitai.url}")
        assert get(folder).path.exists()
        assert len(empty.requests) == 1


@pytest.mark.parametrize("to", ["http://10.0.0.1/x", "ftp://example.com/x", "http://169.254.169.254/latest"])
def test_a_redirect_to_elsewhere_is_refused(
    civitai: StandIn, folder: Path, monkeypatch: pytest.MonkeyPatch, to: str
) -> None:
    """As if Civitai, which is not on this machine, sent its download to a private address or in the clear."""
    monkeypatch.setattr("clipskip.fetch.web._is_private", lambda host: host.startswith(("10.", "169.254.")))
    civitai.redirect = to
    with pytest.raises(FetchError, match="not a host of models"):
        get(folder)


def test_a_redirect_to_the_sign_in_says_so(civitai: StandIn, folder: Path) -> None:
    civitai.redirect = f"{civitai.url}/login?returnUrl=x"
    with pytest.raises(FetchError, match="signed-in users"):
        get(folder)


def test_the_token_goes_to_civitai_alone(civitai: StandIn, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CIVITAI_API_TOKEN", "secret")
    with serving() as store:
        civitai.redirect = f"{store.url.replace('127.0.0.1', 'localhost')}/signed/7"
        found = get(folder)
        assert [headers.get("authorization") for _, headers in store.requests] == [None]
    assert all(headers["authorization"] == "Bearer secret" for _, headers in civitai.requests)
    assert all("secret" not in path for path, _ in civitai.requests)
    assert "secret" not in found.path.with_suffix(".civitai.info").read_text()


def test_no_browsers_name_is_sent(civitai: StandIn, folder: Path) -> None:
    get(folder)
    assert all(headers["user-agent"].startswith("clipskip/") for _, headers in civitai.requests)


@pytest.mark.parametrize("field", ["pickleScanResult", "virusScanResult"])
@pytest.mark.parametrize("result", ["Danger", "Error"])
def test_what_a_scan_warns_of_is_not_fetched(civitai: StandIn, folder: Path, field: str, result: str) -> None:
    civitai.file[field] = result
    with pytest.raises(UnsafeFile, match=result):
        get(folder)
    assert civitai.downloads == []


def test_a_pickle_needs_the_switch(civitai: StandIn, folder: Path) -> None:
    civitai.file["name"] = "shrek.pt"
    with pytest.raises(UnsafeFile, match="--allow-pickle"):
        get(folder)
    assert get(folder, allow_pickle=True).path.name == "shrek.pt"


def test_a_model_of_another_kind_is_refused_before_it_is_fetched(civitai: StandIn, folder: Path) -> None:
    civitai.version["model"]["type"] = "Checkpoint"  # type: ignore[index]
    with pytest.raises(FetchError, match="a checkpoint on Civitai"):
        get(folder)
    assert civitai.downloads == []


def test_a_type_that_is_not_drawn_with_is_refused(civitai: StandIn, folder: Path) -> None:
    civitai.version["model"]["type"] = "Workflows"  # type: ignore[index]
    with pytest.raises(FetchError, match="Workflows"):
        get(folder)


def test_an_archived_model_has_no_files(civitai: StandIn, folder: Path) -> None:
    civitai.version["files"] = []
    civitai.version["model"]["mode"] = "Archived"  # type: ignore[index]
    with pytest.raises(FetchError, match="archived"):
        get(folder)


def test_a_name_never_leads_out_of_the_folder(civitai: StandIn, folder: Path) -> None:
    civitai.file["name"] = "../../..\\evil/..\\x<y>.safetensors"
    assert get(folder).path == folder / "models/Lora/x_y_.safetensors"


def test_a_full_disk_is_said_before_anything_is_written(
    civitai: StandIn, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download_module.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10})())
    with pytest.raises(OutputError, match="free"):
        get(folder)
    assert left(folder) == []


def test_no_connection_is_one_clear_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIPSKIP_CIVITAI", "http://127.0.0.1:9")
    with pytest.raises(FetchError, match="cannot be reached"):
        get(folder)


def test_without_a_connection_the_version_that_is_here_is_used(
    civitai: StandIn, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = get(folder)
    monkeypatch.setenv("CLIPSKIP_CIVITAI", "http://127.0.0.1:9")
    again = get(folder, GUIDES_LINK)
    assert again.path == first.path and "cannot be reached" in again.notes[0]


def test_strange_answers_are_errors_of_ours(civitai: StandIn, folder: Path) -> None:
    for version in ({}, {"model": 3, "files": "x"}, {**civitai.version, "files": [None, 3]}):
        civitai.version = version  # type: ignore[assignment]
        with pytest.raises(ClipskipError):
            get(folder)


def test_a_new_folder_is_made_where_there_is_none(civitai: StandIn, tmp_path: Path) -> None:
    assert get(tmp_path).path == tmp_path / "Lora/shrek.safetensors"
    assert json.loads((tmp_path / "Lora/shrek.civitai.info").read_text())["id"] == 19565
