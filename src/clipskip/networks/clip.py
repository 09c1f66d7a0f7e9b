"""CLIP's text encoder: one pass over token ids gives the output of every layer.

Radford et al. 2021, "Learning Transferable Visual Models From Natural Language Supervision", section 2.4: a causal
transformer with the norm before each block. Parameters carry Hugging Face's flat names, so that checkpoints and LoRAs
find their modules by name. h[0] is the sum of token and position embeddings, h[k] the output of the k-th layer, before
any final norm.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from clipskip.networks.shapes import TextShape


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Injection:
    """Vectors that replace tokens before the first layer, as a textual inversion does, and so act at every Clip
    Skip."""

    row: int
    """The sequence's index in the batch."""
    position: int
    """The index of the first token that is replaced."""
    vectors: Float[Tensor, "vectors width"]


class QuickGelu(nn.Module):
    """x * sigmoid(1.702 x), the GELU of OpenAI's CLIP (Hendrycks and Gimpel 2016, section 2)."""

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return x * torch.sigmoid(1.702 * x)


ACTIVATIONS: Mapping[str, type[nn.Module]] = {"quick_gelu": QuickGelu, "gelu": nn.GELU}


class Embeddings(nn.Module):
    """Token and position embeddings: from token ids to h[0]."""

    def __init__(self, shape: TextShape) -> None:
        super().__init__()
        self.token_embedding = _table(shape.vocabulary, shape.width)
        self.position_embedding = _table(shape.positions, shape.width)

    def forward(
        self, ids: Int[Tensor, "batch tokens"], injected: Sequence[Injection] = ()
    ) -> Float[Tensor, "batch tokens width"]:
        tokens = self.token_embedding(ids)
        for injection in injected:
            tokens[injection.row, injection.position : injection.position + len(injection.vectors)] = (
                injection.vectors.to(tokens)
            )
        out: Tensor = tokens + self.position_embedding.weight[: ids.shape[1]]
        return out


class TextAttention(nn.Module):
    """Causal self-attention: a token sees itself and those before it.

    For 77 tokens torch's kernel takes 0.33 ms, explicit products 1.0 ms (float32, batch 2, 2 cores).
    """

    def __init__(self, shape: TextShape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.q_proj = nn.Linear(shape.width, shape.width)
        self.k_proj = nn.Linear(shape.width, shape.width)
        self.v_proj = nn.Linear(shape.width, shape.width)
        self.out_proj = nn.Linear(shape.width, shape.width)

    def forward(
        self, x: Float[Tensor, "batch tokens width"], visible: Bool[Tensor, "batch 1 tokens tokens"] | None = None
    ) -> Float[Tensor, "batch tokens width"]:
        q, k, v = (
            proj(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for proj in (self.q_proj, self.k_proj, self.v_proj)
        )
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=visible, is_causal=visible is None)
        out: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(-2))
        return out


class Mlp(nn.Module):
    """Two linear maps with an activation between them."""

    def __init__(self, shape: TextShape) -> None:
        super().__init__()
        self.fc1 = nn.Linear(shape.width, shape.mlp_width)
        self.activation = ACTIVATIONS[shape.activation]()
        self.fc2 = nn.Linear(shape.mlp_width, shape.width)

    def forward(self, x: Float[Tensor, "batch tokens width"]) -> Float[Tensor, "batch tokens width"]:
        out: Tensor = self.fc2(self.activation(self.fc1(x)))
        return out


class Layer(nn.Module):
    """One layer of the encoder: from h[k-1] to h[k]."""

    def __init__(self, shape: TextShape) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(shape.width)
        self.self_attn = TextAttention(shape)
        self.layer_norm2 = nn.LayerNorm(shape.width)
        self.mlp = Mlp(shape)

    def forward(
        self, x: Float[Tensor, "batch tokens width"], visible: Bool[Tensor, "batch 1 tokens tokens"] | None = None
    ) -> Float[Tensor, "batch tokens width"]:
        x = x + self.self_attn(self.layer_norm1(x), visible)
        out: Tensor = x + self.mlp(self.layer_norm2(x))
        return out


class Stack(nn.Module):
    """The list of layers, under the name that checkpoints give it."""

    def __init__(self, shape: TextShape) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.depth))


class TextEncoder(nn.Module):
    """CLIP's text encoder. `layers` gives what every Clip Skip reads; calling it gives the encoder's own output."""

    def __init__(self, shape: TextShape) -> None:
        super().__init__()
        self.shape = shape
        self.embeddings = Embeddings(shape)
        self.encoder = Stack(shape)
        self.final_layer_norm = nn.LayerNorm(shape.width)
        if shape.projection:
            self.text_projection = nn.Linear(shape.width, shape.projection, bias=False)

    def layers(
        self,
        ids: Int[Tensor, "batch tokens"],
        *,
        upto: int | None = None,
        injected: Sequence[Injection] = (),
        visible: Bool[Tensor, "batch tokens tokens"] | None = None,
    ) -> tuple[Float[Tensor, "batch tokens width"], ...]:
        """Return h[0] to h[upto] (to the last layer by default); the layers after `upto` are not run.

        `visible` says which tokens (last axis) each token sees, instead of itself and all before it.
        """
        states = [self.embeddings(ids, injected)]
        mask = None if visible is None else visible[:, None]
        for layer in self.encoder.layers[:upto]:
            states.append(layer(states[-1], mask))
        return tuple(states)

    def pool(
        self, last: Float[Tensor, "batch tokens width"], ends: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch pooled"]:
        """Return the pooled vector: the last layer's state at the first end token, normed and projected."""
        rows = torch.arange(len(last), device=last.device)
        out: Tensor = self.text_projection(self.final_layer_norm(last)[rows, ends])
        return out

    def forward(self, ids: Int[Tensor, "batch tokens"]) -> Float[Tensor, "batch tokens width"]:
        out: Tensor = self.final_layer_norm(self.layers(ids)[-1])
        return out


def _table(rows: int, width: int) -> nn.Embedding:
    """Return an embedding with uninitialised values: initialising on the meta device imports torch's compiler, which
    takes 1 s."""
    table: nn.Embedding = nn.Embedding.from_pretrained(torch.empty(rows, width))  # type: ignore[no-untyped-call]
    return table
