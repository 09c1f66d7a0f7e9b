"""A second device for machines that have none: what runs on it is computed by the CPU, but meets nothing of the CPU's.

torch takes it for an accelerator: its tensors lie apart, and an operation that gets one of them and one of the CPU's is
refused, single numbers and indices excepted, as on a GPU. Registered for the whole process (torch's experimental Python
backends, 2.13), so use it in one of its own.
"""

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

_setup_privateuseone_for_python_backend("far")
FAR = torch.device("far", 0)
MIXING = {"aten::_to_copy", "aten::to", "aten::copy_", "aten::index"}
"""Operations that may get tensors of both: copies from one to the other, and indexing by the CPU's numbers."""


class FarTensor(Tensor):
    """A tensor of that device around one of the CPU's."""

    near: Tensor

    @staticmethod
    def __new__(cls, near: Tensor) -> "FarTensor":
        made = Tensor._make_wrapper_subclass(
            cls, near.size(), strides=near.stride(), storage_offset=near.storage_offset(), dtype=near.dtype, device=FAR
        )
        made.near = near
        return made

    @property
    def data(self) -> "FarTensor":
        return FarTensor(self.near)

    @data.setter
    def data(self, value: "FarTensor") -> None:
        self.near = value.near

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        return run(func, args, kwargs or {})


class FarDevice(TorchDispatchMode):
    """The device is there for as long as a `with` lasts."""

    def __enter__(self) -> "FarDevice":
        self._literals = _Literals()
        self._literals.__enter__()
        super().__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        super().__exit__(kind, error, at)
        self._literals.__exit__(kind, error, at)

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        return run(func, args, kwargs or {})


class _Literals(TorchFunctionMode):
    """torch.tensor(numbers, device=...), which does not pass through the dispatcher."""

    def __torch_function__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.tensor and is_far(kwargs.get("device")):
            return func(*args, **kwargs | {"device": "cpu"}).to(FAR)
        return func(*args, **kwargs)


def is_far(device: torch.device | str | None) -> bool:
    return device is not None and torch.device(device).type == FAR.type


def run(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """One operation, on what the tensors are made of."""
    tensors = [one for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)]
    far = any(isinstance(one, FarTensor) for one in tensors)
    near = [one for one in tensors if not isinstance(one, FarTensor) and one.ndim]
    name, _, _ = func.name().partition(".")
    if far and near and name not in MIXING:
        raise RuntimeError(f"{func} mixes devices: {[(one.device.type, tuple(one.shape)) for one in tensors]}")
    devices = [one for one in (*args, *kwargs.values()) if isinstance(one, torch.device)]
    out = func(*tree_map(_inside, tuple(args)), **tree_map(_inside, dict(kwargs)))
    if func._schema.is_mutable:
        return kwargs.get("out", args[0])
    return tree_map(_outside, out) if (is_far(devices[0]) if devices else far) else out


def _inside(one: Any) -> Any:
    if isinstance(one, torch.device):
        return torch.device("cpu")
    return one.near if isinstance(one, FarTensor) else one


def _outside(one: Any) -> Any:
    return FarTensor(one) if isinstance(one, Tensor) else one
