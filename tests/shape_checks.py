"""Checks while the tests run that arrays have the shapes that their annotations say.

jaxtyping's own import hook wraps every function of a package and has every annotation checked: seconds of every start. This one
wraps only functions and dataclasses whose annotations hold one of jaxtyping's arrays, has only those annotations checked (mypy
checks the others), and checks calls of the same sizes once.
"""

import ast
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from functools import update_wrapper
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from inspect import get_annotations, signature
from types import CodeType, FunctionType, ModuleType
from typing import Any, get_args, get_origin

from beartype.door import die_if_unbearable
from jaxtyping import AbstractArray, jaxtyped

ROOMS = tuple(
    f"clipskip.{room}"
    for room in ("networks", "weights", "encode", "sample", "image", "sweep", "measures", "advise", "score")
)
UNSEEN = (Callable, Iterator)
"""What gives its arrays only later."""
NAME = "check_shapes_"
"""The name that checked modules find the decorator by."""


def install() -> None:
    """Have the rooms that are imported from here on checked."""
    sys.meta_path.insert(0, ShapeFinder())


class ShapeFinder:
    """Has the rooms' modules loaded by `ShapeLoader`."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path, target) if name.startswith(ROOMS) else None
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = ShapeLoader(spec.loader.name, spec.loader.path)
        return spec


class ShapeLoader(SourceFileLoader):
    """Compiles a module with `check_shapes` next to every function and around every class, and keeps no bytecode."""

    def get_code(self, fullname: str) -> CodeType:
        tree = ast.parse(self.get_data(self.path), self.path)
        for node in ast.walk(tree):
            for child in node.body if isinstance(node, ast.Module | ast.ClassDef) else ():
                mark = ast.Name(NAME, ast.Load())
                if isinstance(child, ast.FunctionDef):
                    child.decorator_list.append(ast.copy_location(mark, child))
                elif isinstance(child, ast.ClassDef):
                    child.decorator_list.insert(0, ast.copy_location(mark, child))
        code: CodeType = compile(tree, self.path, "exec", dont_inherit=True)
        return code

    def exec_module(self, module: ModuleType) -> None:
        setattr(module, NAME, check_shapes)
        super().exec_module(module)


def check_shapes(wrapped: Any) -> Any:
    """The function or dataclass, with the arrays checked that it takes and gives; what has none as it is."""
    if isinstance(wrapped, type):
        if is_dataclass(wrapped) and "__init__" in vars(wrapped):
            wrapped.__init__ = check_shapes(wrapped.__init__)  # type: ignore[misc]
        return wrapped
    arrays = {name: annotation for name, annotation in get_annotations(wrapped).items() if _holds_array(annotation)}
    return _checked(wrapped, arrays) if arrays else wrapped


def _holds_array(annotation: Any) -> bool:
    if isinstance(annotation, type) and issubclass(annotation, AbstractArray):
        return True
    return get_origin(annotation) not in UNSEEN and any(map(_holds_array, get_args(annotation)))


def _checked(function: FunctionType, arrays: dict[str, Any]) -> Callable[..., Any]:
    """The function, with these annotations alone checked, by beartype; jaxtyping keeps the size of each name in a call.

    What is checked are sizes and kinds of numbers alone, so a call of the same ones as one before is right as that was. Most
    calls are such ones, and each check of jaxtyping takes as long as a small layer of a network.
    """
    code, given_back = function.__code__, arrays.get("return")
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    slots = [(place, name) for place, name in enumerate(names) if name in arrays]
    assert len(slots) == len(arrays.keys() - {"return"}), f"{function.__qualname__}: arrays as *args are not checked"
    defaults = {name: parameter.default for name, parameter in signature(function).parameters.items()}
    right = set[Any]()

    def check(values: list[Any], sizes: Any) -> None:
        if sizes not in right:
            with jaxtyped("context"):
                for name, value in zip([*(name for _, name in slots), "return"], values, strict=False):
                    prefix = f"{function.__qualname__}() {name}: "
                    die_if_unbearable(value, arrays[name], exception_prefix=prefix)
            right.add(sizes)

    def checked(*args: Any, **kwargs: Any) -> Any:
        positional = min(len(args), code.co_argcount)
        values = [args[place] if place < positional else kwargs.get(name, defaults[name]) for place, name in slots]
        sizes = tuple(map(_sizes, values))
        check(values, sizes)
        value = function(*args, **kwargs)
        if given_back is not None:
            check([*values, value], (sizes, _sizes(value)))
        return value

    return update_wrapper(checked, function)


def _sizes(value: Any) -> Any:
    """Sizes and kinds of numbers of all arrays in a value: equal for two values that one annotation holds for alike."""
    if hasattr(value, "shape"):
        return type(value), value.shape, value.dtype
    if isinstance(value, Mapping):
        return type(value), tuple(map(_sizes, value.values()))
    if isinstance(value, list | tuple):
        return type(value), tuple(map(_sizes, value))
    return type(value)
