"""One module's parts to the change of a weight and a bias, by A1111's rules (its Lora extension, network.py,
1.10).

weight += strength * scale * (delta + bias), where scale is the file's `scale`, else alpha / rank, else 1. DoRA applies
after the scale and before the strength, to the weight as the previous LoRAs left it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from clipskip.weights.lora.kinds import Kind, Parts

SMALLEST = torch.finfo(torch.float32).eps
"""The least norm that DoRA divides by; a row of zeros stays zeros."""

PLAIN = {"up", "down", "alpha", "scale", "up_bias"}
"""The parts of a LoRA whose change is a single product of two matrices."""
BIASES = ("diff_b", "b_norm", "up_bias")
"""Parts that change the module's bias."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LoraModule:
    """The change that a LoRA makes to one module of the model."""

    name: str
    """Canonical full name: `unet.down_blocks.0...` or `text_encoder.encoder.layers.0...`."""
    kind: Kind
    parts: Mapping[str, Tensor]
    """The tensors by the part names of `key_map.py`, in the file's dtype."""
    scale: float
    """The factor on the change, besides the strength."""
    rank: int | None
    alpha: float | None
    key: str
    """One of its keys in the file."""

    @property
    def is_text(self) -> bool:
        """Return whether it belongs to a text encoder."""
        return self.name.startswith("text_encoder")

    def fits(self, weight: tuple[int, ...], bias: tuple[int, ...] | None) -> bool:
        """Return whether this can change a weight and a bias of these shapes."""
        added = [self.parts[part] for part in BIASES if part in self.parts]
        dense, values = self.parts.get("bias"), self.parts.get("bias_values")
        count = 1
        for side in weight:
            count *= side
        return (
            self.kind.fits(self.parts, weight)
            and all(tuple(part.shape) == (bias or weight[:1]) for part in added)
            and (dense is None or dense.numel() == count)
            and (values is None or _sparse_fits(self.parts, count))
            and _magnitude_axis(self.parts, weight) != -1
        )

    @property
    def agrees(self) -> bool:
        """Return whether the factors of a plain LoRA match: up's second side and down's first are both its rank."""
        up, down = self.parts.get("up"), self.parts.get("down")
        if up is None or down is None or "mid" in self.parts:
            return True
        return min(up.dim(), down.dim()) >= 2 and up.shape[1] == down.shape[0]

    @property
    def changes_bias(self) -> bool:
        """Return whether it adds to the module's bias."""
        return not self.parts.keys().isdisjoint(BIASES)

    def apply(self, weight: Float[Tensor, "..."], *, strength: float) -> None:
        """Change a float32 weight in place."""
        if self.parts.keys().isdisjoint(self.kind.marks - {*BIASES}):
            return
        parts = {
            name: part.to(weight.device, torch.float32 if part.is_floating_point() else part.dtype)
            for name, part in self.parts.items()
            if name != "diff_b"
        }
        if parts.keys() <= PLAIN and weight.is_contiguous():
            # One pass over the weight instead of three: half the time of a whole merge, which memory decides.
            weight.view(len(weight), -1).addmm_(
                parts["up"].flatten(1), parts["down"].flatten(1), alpha=strength * self.scale
            )
            return
        delta = self.kind.delta(parts, weight)
        if self.kind.replaces:
            weight.add_(delta)
            return
        extra = _dense_bias(parts)
        if extra is not None:
            delta = delta + extra.reshape(weight.shape)
        axis = _magnitude_axis(parts, tuple(weight.shape))
        if axis is not None:
            magnitude = parts.get("magnitude", parts.get("dora_scale"))
            assert magnitude is not None
            delta = _decompose(weight + self.scale * delta, magnitude, axis) - weight
        weight.add_(delta, alpha=strength if axis is not None else strength * self.scale)

    def bias_change(self, *, strength: float) -> Float[Tensor, " out"] | None:
        """Return what is added to the bias. A1111 does not scale a bias by alpha; peft does scale its `lora_B.bias`."""
        factors = {part: self.scale if part == "up_bias" else 1.0 for part in BIASES if part in self.parts}
        if not factors:
            return None
        return sum(
            (self.parts[part].float() * (factor * strength) for part, factor in factors.items()), torch.zeros(())
        )


def _decompose(weight: Float[Tensor, "..."], magnitude: Float[Tensor, "..."], axis: int) -> Float[Tensor, "..."]:
    """Return the weight with the given norm along each index of one axis (DoRA, Liu et al. 2024, eq. 5)."""
    others = [i for i in range(weight.dim()) if i != axis]
    norm = torch.linalg.vector_norm(weight, dim=others, keepdim=True).clamp_min(SMALLEST)
    out: Tensor = weight * (magnitude.reshape(norm.shape) / norm)
    return out


def _magnitude_axis(parts: Parts, shape: tuple[int, ...]) -> int | None:
    """Return the axis of DoRA's magnitudes: 0 for outputs, 1 for inputs, None without DoRA, -1 where neither fits.

    kohya and early LyCORIS store one magnitude per input, as (1, in); LyCORIS since 3.0 and peft one per output, as
    (out, 1). A1111 1.10 always norms per input and so scrambles the second form; the shape tells, so we follow it.
    """
    magnitude = parts.get("magnitude", parts.get("dora_scale"))
    if magnitude is None:
        return None
    if len(shape) < 2:
        return -1
    per_input = magnitude.dim() > 1 and magnitude.shape[0] == 1 and "magnitude" not in parts
    if per_input and magnitude.numel() == shape[1]:
        return 1
    return 0 if magnitude.numel() == shape[0] else -1


def _dense_bias(parts: Parts) -> Tensor | None:
    """Return what is added to every number of the change: A1111's `bias`, dense or sparse as LyCORIS' extraction writes
    it."""
    if "bias" in parts:
        return parts["bias"]
    if "bias_values" not in parts:
        return None
    size = [int(side) for side in parts["bias_size"]]
    rows, columns = parts["bias_indices"].long()
    values = parts["bias_values"]
    return torch.zeros(size, device=values.device).index_put_((rows, columns), values, accumulate=True)


def _sparse_fits(parts: Parts, count: int) -> bool:
    indices, size = parts.get("bias_indices"), parts.get("bias_size")
    if indices is None or size is None or size.numel() != 2 or indices.shape != (2, parts["bias_values"].numel()):
        return False
    rows, columns = (int(side) for side in size)
    return rows * columns == count and bool((indices >= 0).all() and (indices.long() < size.long()[:, None]).all())
