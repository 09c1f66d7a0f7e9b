"""Every kind of LoRA in a file, beside the weight that somebody else's code or the formula in float64 makes of it.

Run as a script, it prints the table of docs/lora-kinds.md.
"""

import copy
import math
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import lycoris.functional as lycoris
import peft
import torch
from lora_tools import (
    CONV,
    GROUP_NORM,
    MLP,
    PROJ,
    TEXT_NORM,
    TO_K,
    TO_OUT,
    Q,
    family_models,
    kohya,
    low_rank,
    merge_once,
    module_of,
    relative,
    weight_of,
    write,
)
from lycoris.functional import loha, lokr
from lycoris.modules.boft import ButterflyOFTModule
from lycoris.modules.diag_oft import DiagOFTModule
from lycoris.modules.full import FullModule
from lycoris.modules.glora import GLoRAModule
from lycoris.modules.ia3 import IA3Module
from lycoris.modules.norms import NormModule
from torch import Tensor, nn

from clipskip.spec import Family
from clipskip.weights.lora import load_lora

STRENGTH = 0.7
RANK, ALPHA = 4, 2.0
SCALE = ALPHA / RANK
LYCORIS, PEFT, FORMULA = "lycoris-lora 4.1.3", "peft 0.21.2", "formula in float64"

Made = tuple[dict[str, Tensor], Tensor]
"""Parts of a file by their ends, and the whole weight at STRENGTH, in float64."""


@dataclass(frozen=True)
class Case:
    """One row of the table."""

    name: str
    target: str
    reference: str
    make: Callable[[nn.Module, Tensor], Made]
    """From the module and its weight in float64."""
    layout: str = "kohya"


def rand(*size: int, by: float = 0.3) -> Tensor:
    """Random numbers; the seed is set before each case."""
    return torch.randn(*size) * by


def scaled(weight: Tensor, delta: Tensor, scale: float = SCALE) -> Tensor:
    """A1111's rule for kinds that add."""
    return weight + STRENGTH * scale * delta.reshape(weight.shape)


def blended(weight: Tensor, whole: Tensor) -> Tensor:
    """A1111's rule for kinds that make a new weight: strength goes from the old one to the new one."""
    return weight + STRENGTH * (whole.double().reshape(weight.shape) - weight)


def alpha(parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The parts with alpha."""
    return dict(parts) | {"alpha": torch.tensor(ALPHA)}


def double(parts: Mapping[str, Tensor], *names: str) -> list[Tensor | None]:
    """Some parts in float64, None where there is none."""
    return [parts[name].double() if name in parts else None for name in names]


def lora(module: nn.Module, weight: Tensor) -> Made:
    parts = alpha(low_rank(weight, RANK))
    return parts, scaled(weight, lycoris.locon.diff_weight(*double(parts, *DOWN_UP), None))


DOWN_UP = ("lora_down.weight", "lora_up.weight")


def tucker(module: nn.Module, weight: Tensor) -> Made:
    out, inputs, *kernel = weight.shape
    parts = alpha(
        {
            "lora_up.weight": rand(out, RANK, 1, 1),
            "lora_down.weight": rand(RANK, inputs, 1, 1),
            "lora_mid.weight": rand(RANK, RANK, *kernel),
        }
    )
    return parts, scaled(weight, lycoris.locon.diff_weight(*double(parts, *DOWN_UP, "lora_mid.weight")))


def with_peft(module: nn.Module, weight: Tensor, **options: bool) -> Made:
    """The module wrapped and merged by peft, at its strength 1."""
    wrapped = nn.ModuleDict({"layer": copy.deepcopy(module)})
    config = peft.LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=["layer"], init_lora_weights=False, **options)
    model = peft.get_peft_model(wrapped, config)
    state = peft.get_peft_model_state_dict(model)
    parts = {key.split("layer.", 1)[1]: value.detach().clone() for key, value in state.items()}
    if "lora_magnitude_vector" in parts:
        parts["lora_magnitude_vector"] *= 1.0 + rand(*parts["lora_magnitude_vector"].shape)
        peft.set_peft_model_state_dict(model, {f"base_model.model.layer.{k}": v for k, v in parts.items()})
    whole = model.merge_and_unload()["layer"].weight.detach()
    return alpha(parts), blended(weight, whole)


def peft_lora(module: nn.Module, weight: Tensor) -> Made:
    return with_peft(module, weight)


def peft_dora(module: nn.Module, weight: Tensor) -> Made:
    return with_peft(module, weight, use_dora=True)


def given_scale(module: nn.Module, weight: Tensor) -> Made:
    parts = alpha(low_rank(weight, RANK))
    delta = lycoris.locon.diff_weight(*double(parts, *DOWN_UP), None)
    return parts | {"scale": torch.tensor(1.5)}, scaled(weight, delta, 1.5)


HADA = ("hada_w1_b", "hada_w1_a", "hada_w2_b", "hada_w2_a", "hada_t1", "hada_t2")


def hada(module: nn.Module, weight: Tensor) -> Made:
    out, inputs = weight.shape[0], math.prod(weight.shape[1:])
    parts = alpha(
        {f"hada_w{i}_a": rand(out, RANK) for i in (1, 2)} | {f"hada_w{i}_b": rand(RANK, inputs) for i in (1, 2)}
    )
    return parts, scaled(weight, loha.diff_weight(*double(parts, *HADA), gamma=torch.tensor(1.0)))


def hada_tucker(module: nn.Module, weight: Tensor) -> Made:
    out, inputs, *kernel = weight.shape
    parts = alpha(
        {f"hada_w{i}_a": rand(RANK, out) for i in (1, 2)}
        | {f"hada_w{i}_b": rand(RANK, inputs) for i in (1, 2)}
        | {f"hada_t{i}": rand(RANK, RANK, *kernel) for i in (1, 2)}
    )
    return parts, scaled(weight, loha.diff_weight(*double(parts, *HADA), gamma=torch.tensor(1.0)))


KRON = ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2")


def kron(first: str, second: str) -> Callable[[nn.Module, Tensor], Made]:
    """LoKr with each half "whole", in "factors" or (the second) with a "tucker" core."""

    def make(module: nn.Module, weight: Tensor) -> Made:
        out, inputs, *kernel = weight.shape
        a, b, c, d = 4, 4, out // 4, inputs // 4
        parts = {
            "whole": lambda: {"lokr_w1": rand(a, b)},
            "factors": lambda: {"lokr_w1_a": rand(a, RANK), "lokr_w1_b": rand(RANK, b)},
        }[first]()
        parts |= {
            "whole": lambda: {"lokr_w2": rand(c, d, *kernel)},
            "factors": lambda: {"lokr_w2_a": rand(c, RANK), "lokr_w2_b": rand(RANK, d * math.prod(kernel))},
            "tucker": lambda: {
                "lokr_w2_a": rand(RANK, c),
                "lokr_w2_b": rand(RANK, d),
                "lokr_t2": rand(RANK, RANK, *kernel),
            },
        }[second]()
        delta = lokr.kron_weight(*double(parts, *KRON))
        return alpha(parts), scaled(weight, delta, 1.0 if first == second == "whole" else SCALE)

    return make


def module_of_lycoris(kind: type, module: nn.Module, **options: object) -> nn.Module:
    """A LyCORIS module beside a copy of ours, its parameters random."""
    made = kind("x", copy.deepcopy(module).requires_grad_(False), 1, lora_dim=RANK, alpha=ALPHA, **options)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if "org" not in name:
                parameter.copy_(rand(*parameter.shape) + (1.0 if name == "rescale" else 0.0))
    return made


def from_lycoris(kind: type, **options: object) -> Callable[[nn.Module, Tensor], Made]:
    """What LyCORIS' own module saves, and the weight that it merges at strength 1."""

    def make(module: nn.Module, weight: Tensor) -> Made:
        made = module_of_lycoris(kind, module, **options)
        # A full module's own export is right only after it has replaced the layer; before that its weight is the diff.
        saved = {"diff": made.weight} if kind is FullModule else made.state_dict()
        parts = {name: saved[name].detach().clone() for name in kind.weight_list if name in saved}
        whole, _ = made.get_merged_weight(1)
        return parts, blended(weight, whole.detach())

    return make


def old_glora(module: nn.Module, weight: Tensor) -> Made:
    out, inputs = weight.shape
    parts = {"a1.weight": rand(RANK, inputs), "a2.weight": rand(inputs, RANK)}
    parts |= {"b1.weight": rand(RANK, inputs), "b2.weight": rand(out, RANK)}
    a1, a2, b1, b2 = double(parts, "a1.weight", "a2.weight", "b1.weight", "b2.weight")
    return alpha(parts), scaled(weight, b2 @ b1 + weight @ a2 @ a1)


def kohya_oft(module: nn.Module, weight: Tensor) -> Made:
    blocks, limit = rand(8, len(weight) // 8, len(weight) // 8), 0.02
    skew = blocks.double() - blocks.double().transpose(1, 2)
    skew = skew * min(1.0, limit * len(weight) / float(skew.norm()))
    eye = torch.eye(blocks.shape[1], dtype=torch.float64)
    turns = torch.block_diag(*((eye + skew) @ torch.linalg.inv(eye - skew)))
    return {"oft_blocks": blocks, "alpha": torch.tensor(limit)}, blended(weight, turns.T @ weight)


def old_oft(module: nn.Module, weight: Tensor) -> Made:
    turns = torch.linalg.qr(rand(8, len(weight) // 8, len(weight) // 8))[0]
    whole = torch.block_diag(*turns.double()).T @ weight.flatten(1)
    return {"oft_diag": turns}, blended(weight, whole)


def dora(inner: Callable[[nn.Module, Tensor], Made], *, outputs: bool) -> Callable[[nn.Module, Tensor], Made]:
    """Another kind with magnitudes per output or per input, decomposed by LyCORIS."""

    def make(module: nn.Module, weight: Tensor) -> Made:
        parts, added = inner(module, weight)
        size = (len(weight), *[1] * (weight.dim() - 1)) if outputs else (1, weight.shape[1], *[1] * (weight.dim() - 2))
        magnitude = 1.0 + rand(*size)
        changed = weight + (added - weight) / STRENGTH
        return parts | {"dora_scale": magnitude}, blended(
            weight, lycoris.weight_decompose(changed, magnitude.double(), 1, outputs)
        )

    return make


def dense_bias(module: nn.Module, weight: Tensor) -> Made:
    parts, _ = lora(module, weight)
    extra = rand(*weight.shape)
    product = lycoris.locon.diff_weight(*double(parts, *DOWN_UP), None)
    return parts | {"bias": extra}, scaled(weight, product + extra.double())


def sparse_bias(module: nn.Module, weight: Tensor) -> Made:
    parts, _ = lora(module, weight)
    flat = rand(len(weight), math.prod(weight.shape[1:]))
    sparse = flat.masked_fill(flat.abs() < 0.4, 0).to_sparse().coalesce()
    kept = {"bias_indices": sparse.indices().short(), "bias_values": sparse.values()}
    kept["bias_size"] = torch.tensor(flat.shape).short()
    product = lycoris.locon.diff_weight(*double(parts, *DOWN_UP), None).reshape(flat.shape)
    return parts | kept, scaled(weight, product + sparse.to_dense().double())


CASES = (
    Case("LoRA, linear", TO_K, PEFT, peft_lora, layout="peft"),
    Case("LoRA, text encoder", Q, PEFT, peft_lora, layout="peft"),
    Case("LoRA, 1x1 convolution", PROJ, LYCORIS, lora),
    Case("LoCon, 3x3 convolution", CONV, LYCORIS, lora),
    Case("LoCon, Tucker core", CONV, LYCORIS, tucker),
    Case("LoRA with its own scale", TO_OUT, LYCORIS, given_scale),
    Case("LoRA with a dense bias", TO_K, FORMULA, dense_bias),
    Case("LoRA with a sparse bias", CONV, FORMULA, sparse_bias),
    Case("LoHa, linear", MLP, LYCORIS, hada),
    Case("LoHa, convolution", CONV, LYCORIS, hada),
    Case("LoHa, Tucker core", CONV, LYCORIS, hada_tucker),
    Case("LoKr, both whole", TO_K, LYCORIS, kron("whole", "whole")),
    Case("LoKr, second in factors", TO_K, LYCORIS, kron("whole", "factors")),
    Case("LoKr, first in factors", TO_K, LYCORIS, kron("factors", "whole")),
    Case("LoKr, both in factors", Q, LYCORIS, kron("factors", "factors")),
    Case("LoKr, whole convolution", CONV, LYCORIS, kron("whole", "whole")),
    Case("LoKr, convolution in factors", CONV, LYCORIS, kron("whole", "factors")),
    Case("LoKr, Tucker core", CONV, LYCORIS, kron("factors", "tucker")),
    Case("GLoRA, linear", TO_K, LYCORIS, from_lycoris(GLoRAModule)),
    Case("GLoRA, convolution", CONV, LYCORIS, from_lycoris(GLoRAModule)),
    Case("GLoRA, LyCORIS before 3", TO_K, FORMULA, old_glora),
    Case("IA3 on outputs", MLP, LYCORIS, from_lycoris(IA3Module)),
    Case("IA3 on inputs", MLP, LYCORIS, from_lycoris(IA3Module, train_on_input=True)),
    Case("IA3, convolution, outputs", CONV, LYCORIS, from_lycoris(IA3Module)),
    Case("IA3, convolution, inputs", CONV, LYCORIS, from_lycoris(IA3Module, train_on_input=True)),
    Case("full, linear", TO_OUT, LYCORIS, from_lycoris(FullModule)),
    Case("full, convolution", CONV, LYCORIS, from_lycoris(FullModule)),
    Case("norm, layer norm", TEXT_NORM, LYCORIS, from_lycoris(NormModule)),
    Case("norm, group norm", GROUP_NORM, LYCORIS, from_lycoris(NormModule)),
    Case("OFT, kohya, constrained", TO_OUT, FORMULA, kohya_oft),
    Case("OFT, LyCORIS", TO_OUT, LYCORIS, from_lycoris(DiagOFTModule)),
    Case(
        "OFT, LyCORIS, constrained, rescaled",
        CONV,
        LYCORIS,
        from_lycoris(DiagOFTModule, constraint=0.02, rescaled=True),
    ),
    Case("OFT, LyCORIS before 2 (oft_diag)", CONV, FORMULA, old_oft),
    Case("BOFT, linear", MLP, LYCORIS, from_lycoris(ButterflyOFTModule)),
    Case("BOFT, convolution, rescaled", CONV, LYCORIS, from_lycoris(ButterflyOFTModule, rescaled=True)),
    Case("DoRA per output", TO_K, LYCORIS, dora(lora, outputs=True)),
    Case("DoRA per input", TO_K, LYCORIS, dora(lora, outputs=False)),
    Case("DoRA per output, convolution", CONV, LYCORIS, dora(lora, outputs=True)),
    Case("DoRA per input, convolution", CONV, LYCORIS, dora(lora, outputs=False)),
    Case("DoRA of peft, linear", TO_K, PEFT, peft_dora, layout="peft"),
    Case("DoRA of peft, convolution", CONV, PEFT, peft_dora, layout="peft"),
    Case("DoRA on LoHa", MLP, LYCORIS, dora(hada, outputs=True)),
    Case("DoRA on LoKr", TO_K, LYCORIS, dora(kron("whole", "factors"), outputs=True)),
)


TARGETS: Mapping[Family, Mapping[str, str]] = {
    Family.SD1: {},
    Family.SDXL: {
        Q: "text_encoder_2.encoder.layers.0.self_attn.q_proj",
        TEXT_NORM: "text_encoder_2.encoder.layers.30.layer_norm1",
        TO_K: "unet.down_blocks.1.attentions.0.transformer_blocks.1.attn2.to_k",
        TO_OUT: "unet.mid_block.attentions.0.transformer_blocks.2.attn1.to_out.0",
        PROJ: "unet.down_blocks.1.resnets.0.conv_shortcut",
    },
    Family.SD2: {
        MLP: "unet.up_blocks.1.attentions.0.transformer_blocks.0.ff.net.2",
        PROJ: "unet.up_blocks.0.resnets.0.conv_shortcut",
        CONV: "unet.down_blocks.1.resnets.0.conv2",
    },
}
"""Where a family's own module stands for SD 1.x's: OpenCLIP's layers, deeper attention, 1x1 convolutions that are left."""


def difference(case: Case, models: Mapping[str, nn.Module], folder: Path, *, family: Family = Family.SD1) -> float:
    """The largest relative difference between the merged weight and the reference's."""
    torch.manual_seed(7)
    target = TARGETS[family].get(case.target, case.target)
    base = weight_of(models, target)
    parts, reference = case.make(module_of(models, target), base.double())
    head = kohya(target, family) if case.layout == "kohya" else target
    file = write(folder / "case.safetensors", {f"{head}.{end}": value for end, value in parts.items()})
    return relative(merge_once(models, load_lora(file, family=family), target, strength=STRENGTH), reference, base)


def table(differences: Mapping[Family, Mapping[str, float]]) -> str:
    """The rows of docs/lora-kinds.md, differences to one digit."""
    heads = ["kind", "reference", *(family.label for family in differences)]
    rows = [heads, ["---"] * len(heads)]
    for case in CASES:
        figures = (f"{Decimal(of[case.name]):.0e}".replace("e-0", "e-") for of in differences.values())
        rows.append([case.name, case.reference, *figures])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def differences(family: Family, folder: Path) -> dict[str, float]:
    """One family's column."""
    models = family_models(family)
    return {case.name: difference(case, models, folder, family=family) for case in CASES}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        print(table({family: differences(family, Path(scratch)) for family in TARGETS}))
