"""The kinds of LoRA: the parts of each, the weights it fits, and the change it makes to one.

A change is given for strength 1 and before scaling; `change.py` scales and applies it. Formulas: LoRA (Hu et al. 2021,
eq. 3), LoHa (Hyeon-Woo et al. 2022, FedPara, prop. 1 and 2), LoKr (LyCORIS, Yeh et al. 2024, section 3.2), IA3 (Liu et
al. 2022, section 3.3), GLoRA (Chavan et al. 2023, eq. 9), Tucker cores as in LyCORIS' appendix.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from clipskip.weights.lora.rotation import fits_rotation, rotation

Parts = Mapping[str, Tensor]
Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One way of storing the change of a weight."""

    name: str
    needs: tuple[tuple[tuple[str, ...], ...], ...]
    """Groups of alternatives: of each group, one set of parts must be complete."""
    may: tuple[str, ...] = ()
    rank: Callable[[Parts], int | None] = lambda parts: None
    """The number that alpha is divided by; None where alpha has no meaning."""
    fits: Callable[[Parts, Shape], bool]
    """Whether the parts fit a weight of this shape and one another."""
    delta: Callable[[Parts, Float[Tensor, "..."]], Float[Tensor, "..."]]
    """Returns the change of a weight, in its shape."""
    scaled: bool = True
    """False where alpha means something else: OFT's constraint."""
    replaces: bool = False
    """Whether the file's weight replaces the module's at every strength but 0, as ComfyUI does for `set_weight`."""

    @property
    def marks(self) -> frozenset[str]:
        """The parts that only this kind has."""
        return frozenset(part for group in self.needs for parts in group for part in parts) | frozenset(self.may)


COMMON = frozenset(
    ("alpha", "scale", "dora_scale", "magnitude", "bias", "bias_indices", "bias_values", "bias_size", "diff_b")
)
"""Parts that may accompany those of any kind."""


SPARSE = frozenset(("bias_indices", "bias_values", "bias_size"))
"""A sparse matrix: all three parts or none."""


def kind_of(parts: Iterable[str]) -> Kind | str:
    """Return the kind of a module with these parts, or a description of what is wrong with them."""
    parts = set(parts)
    own = parts - COMMON
    kinds = [kind for kind in KINDS if own & kind.marks]
    if "diff_b" in parts and parts <= {"diff_b", "alpha", "scale"}:
        return BIAS
    if SPARSE & parts and not parts >= SPARSE:
        return f"lacks {' and '.join(sorted(SPARSE - parts))}"
    if {"dora_scale", "magnitude"} <= parts:
        return "has both dora_scale and peft's magnitudes"
    if len(kinds) != 1:
        return f"mixes {' and '.join(kind.name for kind in kinds)}" if kinds else "has no weights"
    foreign = sorted(own - kinds[0].marks)
    if foreign:
        return f"has {foreign[0]} beside {kinds[0].name}"
    extra = sorted(parts & COMMON - {"alpha", "diff_b"}) if kinds[0].replaces else []
    if extra:
        return f"has {extra[0]} beside {kinds[0].name}, which leaves nothing to change"
    for group in kinds[0].needs:
        if not any(own.issuperset(choice) for choice in group):
            missing = min((sorted(set(choice) - own) for choice in group), key=len)
            return f"lacks {' and '.join(PART_NAMES.get(part, part) for part in missing)}"
    return kinds[0]


PART_NAMES = {"up": "lora_up (lora_B)", "down": "lora_down (lora_A)"}


def same_shape(size: Shape, shape: Shape) -> bool:
    """Return whether a change of this size fits a weight of this shape: 1x1 may be left out, a kernel flattened."""
    return _trim(size) == _trim(shape) or (len(size) == 2 and size == (shape[0], math.prod(shape[1:])))


def _trim(shape: Shape) -> Shape:
    return shape[:2] if all(side == 1 for side in shape[2:]) else shape


def _as_rows(tensor: Float[Tensor, "..."]) -> Float[Tensor, "rows columns"]:
    return tensor.flatten(1)


def _flat(*tensors: Tensor) -> bool:
    """Return whether these are matrices, stored as such or as 1x1 kernels."""
    return all(tensor.dim() >= 2 and all(side == 1 for side in tensor.shape[2:]) for tensor in tensors)


def _first(part: str) -> Callable[[Parts], int | None]:
    """Return a function for the length of a part's first axis; None for a scalar, which fits no weight."""
    return lambda parts: next(iter(parts[part].shape), None)


# LoRA and LoCon: up @ down; with a Tucker core the kernel lies between them.


def _lora_fits(parts: Parts, shape: Shape) -> bool:
    up, down, mid = parts["up"], parts["down"], parts.get("mid")
    if down.dim() < 2 or len(shape) < 2 or not _flat(up) or up.shape[1] != down.shape[0]:
        return False
    if mid is None:
        kernel = down.shape[2:]
    else:
        kernel = mid.shape[2:]
        if not _flat(down) or mid.shape[:2] != (up.shape[1], down.shape[0]):
            return False
    bias = parts.get("up_bias")
    return same_shape((up.shape[0], down.shape[1], *kernel), shape) and (bias is None or bias.shape == shape[:1])


def _lora_change(parts: Parts, weight: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    up, down = _as_rows(parts["up"]), _as_rows(parts["down"])
    if "mid" in parts:
        return torch.einsum("pqkl,op,qi->oikl", parts["mid"], up, down).reshape(weight.shape)
    return (up @ down).reshape(weight.shape)


# LoHa: the element-wise product of two low-rank matrices, each with a Tucker core or without.


def _hada_half(parts: Parts, half: int) -> Float[Tensor, "..."]:
    a, b, core = parts[f"hada_w{half}_a"], parts[f"hada_w{half}_b"], parts.get(f"hada_t{half}")
    return _as_rows(a) @ _as_rows(b) if core is None else _tucker(core, a, b)


def _tucker(core: Tensor, a: Tensor, b: Tensor) -> Float[Tensor, "out in *kernel"]:
    """Return the kernel whose first axis is expanded by a [rank, out], the second by b [rank, in]."""
    return torch.einsum("pq...,po,qi->oi...", core, a, b)


def _hada_size(parts: Parts, half: int) -> Shape | None:
    a, b, core = parts[f"hada_w{half}_a"], parts[f"hada_w{half}_b"], parts.get(f"hada_t{half}")
    return _product_size(a, b, core)


def _product_size(a: Tensor, b: Tensor, core: Tensor | None) -> Shape | None:
    """Return the size of a product of two factors, with a Tucker core or without; None when they do not match."""
    if core is not None:
        meet = a.dim() == b.dim() == 2 and core.dim() > 2 and core.shape[:2] == (a.shape[0], b.shape[0])
        return (a.shape[1], b.shape[1], *core.shape[2:]) if meet else None
    meet = _flat(a) and b.dim() >= 2 and a.shape[1] == b.shape[0]
    return (a.shape[0], *b.shape[1:]) if meet else None


def _loha_fits(parts: Parts, shape: Shape) -> bool:
    sizes = [_hada_size(parts, half) for half in (1, 2)]
    return len(shape) > 1 and all(size is not None and same_shape(size, shape) for size in sizes)


def _loha(parts: Parts, weight: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    return _hada_half(parts, 1).reshape(weight.shape) * _hada_half(parts, 2).reshape(weight.shape)


# LoKr: the Kronecker product of a small matrix and a larger one, each whole or in factors.


def _kron_size(parts: Parts, half: int) -> Shape | None:
    whole = parts.get(f"lokr_w{half}")
    if whole is not None:
        return tuple(whole.shape) if whole.dim() >= 2 else None
    core = parts.get("lokr_t2") if half == 2 else None
    return _product_size(parts[f"lokr_w{half}_a"], parts[f"lokr_w{half}_b"], core)


def _kron_half(parts: Parts, half: int) -> Float[Tensor, "..."]:
    whole = parts.get(f"lokr_w{half}")
    if whole is not None:
        return whole
    a, b = parts[f"lokr_w{half}_a"], parts[f"lokr_w{half}_b"]
    if half == 2 and "lokr_t2" in parts:
        return _tucker(parts["lokr_t2"], a, b)
    return (_as_rows(a) @ _as_rows(b)).reshape(a.shape[0], *b.shape[1:])


def _lokr_fits(parts: Parts, shape: Shape) -> bool:
    small, large = _kron_size(parts, 1), _kron_size(parts, 2)
    if small is None or large is None or len(shape) < 2 or len(_trim(small)) > 2:
        return False
    return same_shape((small[0] * large[0], small[1] * large[1], *large[2:]), shape)


def _lokr(parts: Parts, weight: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    small, large = _as_rows(_kron_half(parts, 1)), _kron_half(parts, 2).contiguous()
    return torch.kron(small.reshape(*small.shape, *[1] * (large.dim() - 2)), large).reshape(weight.shape)


def _lokr_rank(parts: Parts) -> int | None:
    return next((_first(part)(parts) for part in ("lokr_w2_b", "lokr_w1_b") if part in parts), None)


# GLoRA: W A + B. LyCORIS has swapped the names of its factors: before version 3, a1 came after a2 and b1 after b2.


def _glora_new(parts: Parts) -> bool:
    a1, a2, b1, b2 = (parts[part].shape for part in ("a1.weight", "a2.weight", "b1.weight", "b2.weight"))
    new, old = (a1[1], a2[0], b1[1], b2[0]), (a1[0], a2[1], b1[0], b2[1])
    # On a square weight both readings fit; the one that makes the rank the side of the square is wrong.
    return len(set(new)) == 1 and (len(set(old)) > 1 or new[0] <= old[0])


def _glora_factors(parts: Parts) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return A's left and right factor, then B's."""
    a, b = (("a1", "a2"), ("b1", "b2")) if _glora_new(parts) else (("a2", "a1"), ("b2", "b1"))
    return parts[f"{a[0]}.weight"], parts[f"{a[1]}.weight"], parts[f"{b[0]}.weight"], parts[f"{b[1]}.weight"]


GLORA = ("a1.weight", "a2.weight", "b1.weight", "b2.weight")


def _glora_rank(parts: Parts) -> int | None:
    return None if any(parts[part].dim() < 2 for part in GLORA) else _glora_factors(parts)[1].shape[0]


def _glora_fits(parts: Parts, shape: Shape) -> bool:
    if any(parts[part].dim() < 2 for part in GLORA) or len(shape) < 2:
        return False
    left, right, up, down = _glora_factors(parts)
    both = _product_size(up, down, None)
    return (
        _flat(left, right)
        and both is not None
        and same_shape(both, shape)
        and _product_size(left, right, None) == (shape[1], *right.shape[1:])
        and left.shape[1] == up.shape[1]
        and right.shape[1] == shape[1]
    )


def _glora(parts: Parts, weight: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    left, right, up, down = _glora_factors(parts)
    mixed = torch.einsum("oi...,ir,rj->oj...", weight, _as_rows(left), _as_rows(right))
    return mixed + (_as_rows(up) @ _as_rows(down)).reshape(weight.shape)


# IA3: a factor for each input or output; the parts hold what is added to 1.


def _ia3_fits(parts: Parts, shape: Shape) -> bool:
    return len(shape) > 1 and parts["weight"].numel() == shape[_ia3_axis(parts)] and parts["on_input"].numel() == 1


def _ia3(parts: Parts, weight: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    axis = _ia3_axis(parts)
    return weight * parts["weight"].reshape([-1 if i == axis else 1 for i in range(weight.dim())])


def _ia3_axis(parts: Parts) -> int:
    return 1 if bool(parts["on_input"].flatten()[0]) else 0


# Differences written out: of a whole weight, and of a norm.


def _written_out(part: str) -> Callable[[Parts, Shape], bool]:
    return lambda parts, shape: part not in parts or same_shape(tuple(parts[part].shape), shape)


def _nothing(parts: Parts, weight: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    return torch.zeros_like(weight)


BIAS = Kind(name="bias", needs=((("diff_b",),),), fits=lambda parts, shape: True, delta=_nothing)
"""A module of which only the bias changes."""
KINDS = (
    Kind(
        name="LoRA",
        needs=((("up", "down"),),),
        may=("mid", "up_bias"),
        rank=_first("down"),
        fits=_lora_fits,
        delta=_lora_change,
    ),
    Kind(
        name="LoHa",
        needs=((("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"),),),
        may=("hada_t1", "hada_t2"),
        rank=_first("hada_w1_b"),
        fits=_loha_fits,
        delta=_loha,
    ),
    Kind(
        name="LoKr",
        needs=((("lokr_w1",), ("lokr_w1_a", "lokr_w1_b")), (("lokr_w2",), ("lokr_w2_a", "lokr_w2_b"))),
        may=("lokr_t2",),
        rank=_lokr_rank,
        fits=_lokr_fits,
        delta=_lokr,
    ),
    Kind(
        name="GLoRA",
        needs=((GLORA,),),
        rank=_glora_rank,
        fits=_glora_fits,
        delta=_glora,
    ),
    Kind(name="IA3", needs=((("weight", "on_input"),),), fits=_ia3_fits, delta=_ia3),
    Kind(
        name="full",
        needs=((("diff",),),),
        fits=_written_out("diff"),
        delta=lambda parts, weight: parts["diff"].reshape(weight.shape),
    ),
    Kind(
        name="set",
        needs=((("set_weight",),),),
        fits=_written_out("set_weight"),
        delta=lambda parts, weight: parts["set_weight"].reshape(weight.shape) - weight,
        scaled=False,
        replaces=True,
    ),
    Kind(
        name="norm",
        needs=((("w_norm",), ("b_norm",)),),
        fits=lambda parts, shape: len(shape) == 1 and _written_out("w_norm")(parts, shape),
        delta=lambda parts, weight: parts["w_norm"] if "w_norm" in parts else _nothing(parts, weight),
    ),
    Kind(
        name="OFT",
        needs=((("oft_blocks",), ("oft_diag",)),),
        may=("rescale",),
        fits=fits_rotation,
        delta=rotation,
        scaled=False,
    ),
)
"""`weight` is IA3's alone: no other kind may use a part name with that ending."""
