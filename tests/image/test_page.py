"""The page of a sweep: one file, no network, nothing in a prompt can become code."""

import base64
import hashlib
import json
import re
import tempfile
from importlib.resources import files
from pathlib import Path

import numpy as np
from PIL import Image

from clipskip.image.page import PageCell, write_page

VIEWER = files("clipskip.image") / "viewer"
HOSTILE = '</script><script>alert(1)</script><img src=x onerror=alert(1)> & "quotes"'


def page() -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cell.png"
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path, "PNG")
        cell = PageCell(path=path, settings=f"{HOSTILE}\nSteps: 2, Clip skip: 1")
        return write_page([[cell, None]], columns=["Clip Skip 1", "Clip Skip 2"], rows=[HOSTILE], prompt=HOSTILE)


def test_hostile_text_stays_text() -> None:
    text = page()
    assert text.count("<script") == 2 and text.count("</script>") == 2 and "<img src=x" not in text


def test_the_page_carries_every_setting_and_a_gap_for_the_missing_cell() -> None:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page(), re.S)
    assert found is not None
    sweep = json.loads(found[1])
    assert sweep["cells"][0][0]["settings"].endswith("Clip skip: 1") and sweep["cells"][0][1]["image"] is None
    assert sweep["prompt"] == HOSTILE


def test_the_policy_allows_exactly_the_pages_own_script_and_no_network() -> None:
    text = page()
    script = re.findall(r"<script>(.*?)</script>", text, re.S)[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in text and "default-src 'none'" in text
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text)


def test_the_page_holds_the_viewer_that_the_server_has() -> None:
    text = page()
    for name in ("stage.js", "viewer.js", "sheet.js", "export.js"):
        source = (VIEWER / name).read_text()
        body = re.sub(r"^import .*\n", "", source, flags=re.MULTILINE).replace("export ", "")
        assert body.strip() in re.sub(r"^const \{.*\} = module_\w+;\n", "", text, flags=re.MULTILINE), name
    assert 'id="stage"' in text and "{{" not in text


def test_a_column_is_the_number_that_its_label_names() -> None:
    found = re.search(r'id="data">(.*?)</script>', page(), re.S)
    assert found is not None
    assert [one["clip_skip"] for one in json.loads(found[1])["columns"]] == [1, 2]
