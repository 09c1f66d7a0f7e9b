"""Text readers for encoders that are already in memory: tensors, or a module of transformers or of another tool."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from clipskip.encode.reader import TextReader
from clipskip.errors import SpecError, WrongKind
from clipskip.networks import TextShape, tensors_of
from clipskip.spec import Family, TextReading
from clipskip.weights import TEXT_PARTS, EncoderFacts, TensorSource, canonical

HEAD_WIDTH = 64
"""Width of an attention head in every CLIP text encoder that Stable Diffusion uses."""
FIRST_LAYER = "encoder.layers.0.self_attn.q_proj.weight"
PART = TEXT_PARTS[0]
Weights = nn.Module | Mapping[str, Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderSettings:
    """Settings of an encoder that its tensors do not show."""

    heads: int | None = None
    """Number of attention heads; None means one for every 64 numbers of width, as in all of CLIP's."""
    activation: str | None = None
    """quick_gelu or gelu; None means the family's own: gelu for OpenCLIP's encoders, quick_gelu for OpenAI's CLIP-L."""

    @classmethod
    def of(cls, encoder: Weights) -> "EncoderSettings":
        """Return what the `config` of a transformers module says, or empty settings."""
        config = getattr(encoder, "config", None)
        return cls(heads=getattr(config, "num_attention_heads", None), activation=getattr(config, "hidden_act", None))


def read_encoders(
    *encoders: Weights, family: Family, settings: Sequence[EncoderSettings] = (), dtype: torch.dtype | None = None
) -> TextReader:
    """Make a text reader of encoders that are in memory: all of a family's, in its order (CLIP-L before OpenCLIP bigG).

    An encoder is a module or its tensors, under the names of transformers (with or without `text_model.`) or of
    OpenCLIP. Weights are shared, not copied, where their dtype stays and their layout fits, so changing them in place
    changes what is read. Raises WrongKind where a tensor is missing, or where peft has loaded LoRAs into the module.
    """
    if not family.usable:
        raise SpecError(family.means_nothing, field="family")
    rules = family.value.encoders
    if len(encoders) != len(rules):
        names = " and ".join(rule.name for rule in rules)
        raise SpecError(
            f"{family.label} has {names}, and {len(encoders)} encoders were given; give each once, in order"
        )
    known = settings or [EncoderSettings.of(encoder) for encoder in encoders]
    states, facts = [], []
    for part, rule, encoder, encoder_settings in zip(TEXT_PARTS, rules, encoders, known, strict=False):
        state = _canonical_state(encoder, rule.name)
        shape = _encoder_shape(state, rule, encoder_settings)
        states.append({name: _as(state[name], dtype) for name in tensors_of(shape) if name in state})
        facts.append(EncoderFacts(part=part, shape=shape, rule=rule))
    return TextReader.build(states, facts, family=family)


def _canonical_state(encoder: Weights, name: str) -> dict[str, Tensor]:
    """Return an encoder's tensors under canonical names."""
    given = encoder.state_dict() if isinstance(encoder, nn.Module) else encoder
    adapted = next((key for key in given if ".base_layer." in key or ".lora_A." in key), None)
    if adapted:
        raise WrongKind(
            f"the text encoder {name} has LoRAs loaded into it by peft ({adapted[:80]}); take them out first "
            "(`pipe.unload_lora_weights()`) and name them in `loras`, where they are merged exactly"
        )
    named = {f"{PART}/{key}": tensor.detach() for key, tensor in given.items()}
    sources = canonical({key: tuple(tensor.shape) for key, tensor in named.items()}).get(PART, {})
    if FIRST_LAYER not in sources:
        raise WrongKind(
            f"the text encoder {name} is not a CLIP text encoder: none of its tensors has the name of a layer that "
            "transformers or OpenCLIP use; give one of this family's encoders"
        )
    return {ours: _taken(named[source.name], source) for ours, source in sources.items()}


def _taken(tensor: Tensor, source: TensorSource) -> Tensor:
    """Return the part of a tensor that a canonical name stands for."""
    if source.third is not None:
        tensor = tensor.chunk(3)[source.third]
    return tensor.T.contiguous() if source.transposed else tensor


def _encoder_shape(state: Mapping[str, Tensor], rule: TextReading, settings: EncoderSettings) -> TextShape:
    tokens = state.get("embeddings.token_embedding.weight")
    positions = state.get("embeddings.position_embedding.weight")
    mlp, projection = state.get("encoder.layers.0.mlp.fc1.weight"), state.get("text_projection.weight")
    if tokens is None or positions is None or mlp is None or (rule.pooled and projection is None):
        raise WrongKind(
            f"the text encoder {rule.name} is incomplete: it needs embeddings, layers{_and_projection(rule)}; "
            "give the whole encoder"
        )
    width = tokens.shape[1]
    heads = settings.heads or width // HEAD_WIDTH
    if heads < 1 or width % heads:
        raise SpecError(
            f"{rule.name} is {width} wide, which {heads} attention heads do not divide; give the number of heads that it has"
        )
    activation = settings.activation or ("quick_gelu" if rule.name == "CLIP-L" else "gelu")
    if activation not in ("gelu", "quick_gelu"):
        raise WrongKind(f"the activation {activation[:40]!r} of {rule.name} is unknown; use quick_gelu or gelu")
    return TextShape(
        depth=1 + max(int(name.split(".")[2]) for name in state if name.startswith("encoder.layers.")),
        width=width,
        heads=heads,
        positions=positions.shape[0],
        vocabulary=tokens.shape[0],
        mlp_width=mlp.shape[0],
        activation=activation,
        projection=projection.shape[0] if rule.pooled and projection is not None else 0,
    )


def _and_projection(rule: TextReading) -> str:
    return " and a projection" if rule.pooled else ""


def _as(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    return tensor if dtype is None else tensor.to(dtype)
