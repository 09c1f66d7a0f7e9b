"""A room imports only the rooms before it, by their faces, so that data flows one way; a name says which thing is meant."""

import ast
from collections import defaultdict
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
    "measures",
    "advise",
    "score",
    "doors",
]
PAST_A_FACE = {
    (
        "doors/options.py",
        "clipskip.image.metadata",
    ),  # the room's face loads torch, which reading settings does not need
    ("doors/work.py", "clipskip.sweep.cluster"),  # Ray is loaded for --ray alone
}
"""Imports of a module of another room instead of the room, with the reason."""
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


def test_rooms_are_imported_by_their_faces() -> None:
    past = set()
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("clipskip."):
                _, room, *rest = (node.module or "").split(".")
                is_module = SOURCE.joinpath(room, *rest).with_suffix(".py").exists()
                if rest and is_module and room != path.relative_to(SOURCE).parts[0]:
                    past.add((path.relative_to(SOURCE).as_posix(), node.module))
    assert past == PAST_A_FACE


def test_no_two_rooms_have_a_module_or_a_class_of_one_name() -> None:
    rooms = defaultdict(set)
    for path in MODULES:
        names = {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ClassDef)}
        for name in names | {path.stem} - {"__init__"}:
            rooms[name].add(path.relative_to(SOURCE).parts[0])
    assert {name: where for name, where in rooms.items() if len(where) > 1} == {}
