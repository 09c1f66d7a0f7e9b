"""A room imports only the rooms before it, so that data flows one way."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "clipskip"
ORDER = [
    "errors",
    "heap",
    "spec",
    "prompt",
    "networks",
    "weights",
    "encode",
    "sample",
    "image",
    "sweep",
    "advise",
    "doors",
]
MODULES = [path for path in SOURCE.rglob("*.py") if path.parent != SOURCE or path.stem in ("errors", "heap")]


def rooms_imported(path: Path) -> set[str]:
    """The rooms that a module imports, at any depth of its code."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write imports from the package's root"
            names = [node.module or ""] if node.module != "clipskip" else [f"clipskip.{a.name}" for a in node.names]
        found |= {name.split(".")[1] for name in names if name.startswith("clipskip.")}
    return found & set(ORDER)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_a_room_imports_only_the_rooms_before_it(path: Path) -> None:
    room = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    if room not in ORDER:
        pytest.skip("data only")
    later = set(ORDER[ORDER.index(room) + 1 :])
    assert not rooms_imported(path) & later
