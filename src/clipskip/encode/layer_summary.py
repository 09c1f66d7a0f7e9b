"""Each layer's output for a text, summarized in a few numbers."""

from collections.abc import Mapping
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cosine_similarity

from clipskip.spec import Skip


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSummary:
    """The conditioning at one Clip Skip, in numbers."""

    tokens: int
    width: int
    norm: float
    """Mean length of the token vectors."""
    cosine_to_first: float
    """Mean cosine between each token's vector and the same token's at the first Clip Skip of the list."""


def summarize_layers(layers: Mapping[Skip, Float[Tensor, "tokens width"]]) -> dict[Skip, LayerSummary]:
    """Summarize each Clip Skip's conditioning: its size, its length and its likeness to the first one."""
    first = next(iter(layers.values())).double()
    return {
        skip: LayerSummary(
            tokens=state.shape[0],
            width=state.shape[1],
            norm=state.double().norm(dim=1).mean().item(),
            cosine_to_first=cosine_similarity(state.double(), first, dim=1).mean().item(),
        )
        for skip, state in layers.items()
    }
