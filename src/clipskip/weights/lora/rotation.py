"""OFT and BOFT: orthogonal blocks rotate a layer's outputs, so that the angles between neurons stay the same.

OFT: Qiu et al. 2023, section 3, with COFT's constraint; BOFT: Liu et al. 2024, eq. 5, its stages in LyCORIS' order.
Files: kohya (`oft_blocks`, alpha is the constraint per output), LyCORIS (the same, `rescale`; four axes is BOFT), and
LyCORIS before 2.0 (`oft_diag`: the blocks themselves, already orthogonal).
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

Parts = Mapping[str, Tensor]


def fits_rotation(parts: Parts, shape: tuple[int, ...]) -> bool:
    """Return whether the blocks divide this weight's outputs."""
    blocks = parts.get("oft_blocks", parts.get("oft_diag"))
    rescale = parts.get("rescale")
    if blocks is None or len(shape) < 2 or blocks.dim() not in ((3, 4) if "oft_blocks" in parts else (3,)):
        return False
    *stages, count, size, other = blocks.shape
    if size != other or count * size != shape[0] or (rescale is not None and rescale.numel() != shape[0]):
        return False
    return not stages or (size % 2 == 0 and shape[0] % (size * 2 ** (stages[0] - 1)) == 0)


def rotation(parts: Parts, weight: Float[Tensor, "out *rest"]) -> Float[Tensor, "out *rest"]:
    """Return what rotating the weight adds to it."""
    blocks = parts["oft_diag"] if "oft_diag" in parts else cayley(parts["oft_blocks"], parts.get("alpha"), len(weight))
    turned = _butterfly(blocks, weight) if blocks.dim() == 4 else _blockwise(blocks, weight)
    if "rescale" in parts:
        turned = turned * parts["rescale"].reshape(-1, *[1] * (weight.dim() - 1))
    return turned - weight


def cayley(
    blocks: Float[Tensor, "*blocks size size"], alpha: Shaped[Tensor, "..."] | None, outputs: int
) -> Float[Tensor, "*blocks size size"]:
    """Return the orthogonal (I + Q)(I - Q)^-1 of the skew-symmetric Q = B - B'; the norm of all Q is at most alpha *
    outputs.

    Alpha 0 or None means no constraint (A1111, LyCORIS; kohya's own 0 would switch the module off).
    """
    skew = blocks - blocks.transpose(-1, -2)
    limit = 0.0 if alpha is None else float(alpha) * outputs
    if limit:
        norm = skew.norm()
        skew = skew * ((norm.clamp(max=limit) + 1e-8) / (norm + 1e-8))
    eye = torch.eye(blocks.shape[-1], device=blocks.device, dtype=blocks.dtype)
    turned: Tensor = torch.linalg.solve(eye - skew, eye + skew, left=False)
    return turned


def _blockwise(blocks: Float[Tensor, "count size size"], weight: Float[Tensor, "out *rest"]) -> Float[Tensor, "..."]:
    """Rotate each block of outputs by its own matrix: R' W, as in kohya and LyCORIS."""
    grouped = weight.reshape(*blocks.shape[:2], -1)
    return torch.einsum("knm,knr->kmr", blocks, grouped).reshape(weight.shape)


def _butterfly(
    blocks: Float[Tensor, "stages count size size"], weight: Float[Tensor, "out *rest"]
) -> Float[Tensor, "..."]:
    """Apply one stage after another; each mixes outputs twice as far apart as the one before."""
    flat = weight.flatten(1)
    half = blocks.shape[2] // 2
    for stage, rotations in enumerate(blocks):
        distance = half * 2**stage
        paired = flat.reshape(-1, 2, distance, flat.shape[1]).transpose(1, 2)
        turned = torch.einsum("bij,bjn->bin", rotations, paired.reshape(*rotations.shape[:2], -1))
        flat = turned.reshape(-1, distance, 2, flat.shape[1]).transpose(1, 2).reshape(flat.shape)
    return flat.reshape(weight.shape)
