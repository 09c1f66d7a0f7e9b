"""OpenCLIP's joint matrix of queries, keys and values: its change as those of three modules, each with a third of the outputs."""

from dataclasses import replace
from types import MappingProxyType

from clipskip.errors import LoraError
from clipskip.weights.lora.change import LoraModule
from clipskip.weights.lora.names import JOINT

BY_OUTPUT = frozenset(
    ("up", "up_bias", "diff", "diff_b", "set_weight", "hada_w1_a", "hada_w2_a", "dora_scale", "magnitude")
)
"""Parts with a row for each output, which can be divided."""
SHARED = frozenset(("down", "hada_w1_b", "hada_w2_b", "alpha", "scale"))
"""Parts that each third takes whole."""


def divided(module: LoraModule, *, file: str) -> list[LoraModule]:
    """Return the module itself, or the three that a change of the joint matrix is; LoraError where it cannot be divided."""
    if not module.name.endswith(JOINT):
        return [module]
    whole = [part for part in module.parts if part not in BY_OUTPUT | SHARED]
    whole += [
        part for part, tensor in module.parts.items() if part in BY_OUTPUT and (tensor.dim() == 0 or len(tensor) % 3)
    ]
    if whole:
        raise LoraError(
            f"{file}: {module.key[:120]!r} changes queries, keys and values at once, and its {whole[0]} cannot be divided among "
            "them; get a version of the LoRA that changes each separately"
        )
    return [
        replace(
            module,
            name=f"{module.name.removesuffix(JOINT)}self_attn.{letter}_proj",
            parts=MappingProxyType(
                {part: tensor.chunk(3)[third] if part in BY_OUTPUT else tensor for part, tensor in module.parts.items()}
            ),
        )
        for third, letter in enumerate("qkv")
    ]
