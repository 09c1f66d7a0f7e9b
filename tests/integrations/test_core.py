"""The core, which other programs install: no command line, no server."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
WEB = {"typer", "rich", "fastapi", "uvicorn", "pydantic", "python-multipart", "httpx2", "huggingface_hub"}
"""What the command line, the server and fetching need, and nothing else of the package."""
TRIED = ("tests/integrations/test_comfyui.py", "tests/test_diffusers.py")
THESE = "own_layer or settings_of_any or sweep_gives or (leaves_no_trace and sd1)"


def dependencies(file: str) -> dict[str, str]:
    """What a distribution requires, by name."""
    project = tomllib.loads((ROOT / file).read_text())["project"]
    return {re.split(r"[<>=]", line)[0]: line for line in project["dependencies"]}


def test_the_core_requires_what_the_package_does_but_for_the_web_parts() -> None:
    whole, core = dependencies("pyproject.toml"), dependencies("packaging/core/pyproject.toml")
    assert core == {name: line for name, line in whole.items() if name not in WEB}
    assert set(whole) >= WEB
    assert dependencies("integrations/comfyui/pyproject.toml").keys() == {"clipskip-core"}
    assert (ROOT / "integrations/comfyui/requirements.txt").read_text().split() == ["clipskip-core"]


@pytest.mark.slow
def test_nodes_and_pipelines_work_without_the_web_parts() -> None:
    """Their own tests once more, where these libraries cannot be imported."""
    command = [sys.executable, "-m", "pytest", "-p", "without_web", "-p", "no:cacheprovider", *TRIED, "-k", THESE]
    environment = ENVIRONMENT | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900, check=False)
    assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-2000:]
    assert int(re.search(r"(\d+) passed", ran.stdout)[1]) >= 5  # type: ignore[index]  # it has passed


def test_every_room_but_fetch_is_imported_without_the_web_parts() -> None:
    code = (
        "import importlib, pkgutil, clipskip, clipskip.diffusers\n"
        "for room in pkgutil.iter_modules(clipskip.__path__, 'clipskip.'):\n"
        "    room.name in ('clipskip.fetch', 'clipskip.__main__') or importlib.import_module(room.name)\n"
        "import clipskip.doors.advice_text, clipskip.doors.layers_text"
    )
    command = [sys.executable, "-c", f"import without_web\n{code}"]
    ran = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stderr[-2000:]
