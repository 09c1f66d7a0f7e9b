"""Models and LoRAs in; the same models with the LoRAs in their weights for as long as a `with` lasts.

Changes are computed in float32 whatever the model's dtype: its rounding, 1e-7, is far below that of a bfloat16 or
float16 weight (4e-3, 5e-4), while float64 takes four times as long. Several LoRAs are added in order in float32 and
rounded to the model's dtype once; A1111 rounds after each.

What puts the weights back is the old tensors themselves, or, where those are large, the model's file: then weights are
changed where they lie, and nothing is held twice.
"""

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from clipskip.errors import LoraError
from clipskip.weights.lora.change import LoraModule
from clipskip.weights.lora.file import Lora, few
from clipskip.weights.lora.fit import check_embeddings
from clipskip.weights.lora.names import TEXT, TEXT_2, UNET

Weighted = tuple[Lora, float, float]
"""A LoRA, its strength on the text encoder, its strength on the UNet."""
Originals = Callable[[Collection[str]], Iterable[tuple[str, Tensor]]]
"""Weights of these full names as the model's file has them, one after another, in the model's own dtype."""
MOST_KEPT = 2_000_000_000
"""Bytes of old weights that are kept for putting back: all that a LoRA of SD 1.x changes, and not SDXL's UNet."""
MARK = "_loras_merged"
"""Set on a model while LoRAs are in its weights."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Target:
    """One module of the model and all that will be done to it, in order."""

    name: str
    """Canonical full name."""
    module: nn.Module
    steps: tuple[tuple[LoraModule, float], ...]
    """What changes it, and how strongly."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Saved:
    """One parameter as it was: `value` is the pristine tensor itself, which was never written to."""

    module: nn.Module
    attribute: str
    value: Tensor | None
    """None where there was no such parameter."""

    def restore(self) -> None:
        """Put it back."""
        if self.value is None:
            setattr(self.module, self.attribute, None)
        else:
            getattr(self.module, self.attribute).data = self.value


@contextmanager
def merged(
    modules: Mapping[str, nn.Module],
    loras: Sequence[Weighted],
    *,
    originals: Originals | None = None,
    most_kept: int = MOST_KEPT,
) -> Iterator[None]:
    """The models with these LoRAs in their weights; on exit the weights are the pristine ones, bit for bit.

    The old tensors are kept while they are at most `most_kept` bytes; where they are more and there are `originals`,
    weights are changed where they lie and read again afterwards. When that fails, the models stay `is_merged` and of no
    use.

    `modules` holds "text_encoder", "text_encoder_2" and "unet", or some of them; what a LoRA has for others is left
    alone. Every LoRA is checked against the models before anything is changed. A strength of 0 touches nothing.
    """
    targets = _plan(modules, loras)
    busy = [part for part, module in modules.items() if is_merged(module)]
    if busy:
        raise LoraError(f"LoRAs are already merged into the {busy[0]}; merge all of them at once, or leave that `with`")
    saved: list[Saved] = []
    written: dict[str, nn.Parameter] | None = None
    if originals is not None and sum(_weight_of(target).nbytes for target in targets) > most_kept:
        written = {}
    for module in modules.values():
        setattr(module, MARK, True)
    try:
        _change_all(targets, saved, written)
        yield
    finally:
        for one in reversed(saved):
            one.restore()
        if written and originals is not None:
            for name, original in originals(written.keys()):
                written[name].data.copy_(original)
        for module in modules.values():
            delattr(module, MARK)


def is_merged(module: nn.Module) -> bool:
    """Whether LoRAs are in a model's weights."""
    return getattr(module, MARK, False)


def _weight_of(target: Target) -> nn.Parameter:
    """The weight that a target's changes are of."""
    weight = target.module.weight
    assert isinstance(weight, nn.Parameter)
    return weight


@torch.inference_mode(False)
@torch.no_grad()
def _change_all(targets: Sequence[Target], saved: list[Saved], written: dict[str, nn.Parameter] | None) -> None:
    """Weights of half precision are changed in one float32 buffer: fresh memory for each took longer than the sums."""
    sizes: dict[torch.device, int] = {}
    for target in targets:
        weight = _weight_of(target)
        if weight.dtype != torch.float32:
            sizes[weight.device] = max(weight.numel(), sizes.get(weight.device, 0))
    buffers = {place: torch.empty(size, device=place) for place, size in sizes.items()}
    for target in targets:
        _change(target, saved, buffers, written=written)


def _change(
    target: Target,
    saved: list[Saved],
    buffers: Mapping[torch.device, Tensor],
    *,
    written: dict[str, nn.Parameter] | None,
) -> None:
    """Change a module, its weight where it lies if `written` notes that, else in a new tensor."""
    weight = _weight_of(target)
    old = weight.data
    whole = old.dtype == torch.float32
    if written is not None:
        written[f"{target.name}.weight"] = weight
    if whole:
        new = old.clone() if written is None else old
    else:
        new = buffers[old.device][: old.numel()].as_strided(old.shape, old.stride()).copy_(old)
    for module, strength in target.steps:
        module.apply(new, strength=strength)
    if written is None:
        saved.append(Saved(module=target.module, attribute="weight", value=old))
        weight.data = new if whole else new.to(old.dtype)
    elif not whole:
        old.copy_(new)
    added = [bias for module, strength in target.steps if (bias := module.bias_change(strength=strength)) is not None]
    if added:
        _change_bias(target.module, added, saved)


def _change_bias(module: nn.Module, added: Sequence[Tensor], saved: list[Saved]) -> None:
    weight, bias = module.weight, module.bias
    assert isinstance(weight, Tensor)
    if isinstance(bias, nn.Parameter):
        new = bias.detach().to(torch.float32, copy=True)
        saved.append(Saved(module=module, attribute="bias", value=bias.data))
    else:
        new = torch.zeros(weight.shape[0], device=weight.device)
        saved.append(Saved(module=module, attribute="bias", value=None))
    for one in added:
        new += one.to(new.device)
    if isinstance(bias, nn.Parameter):
        bias.data = new.to(bias.dtype)
    else:
        module.bias = nn.Parameter(new.to(weight.dtype), requires_grad=False)


def _plan(modules: Mapping[str, nn.Module], loras: Sequence[Weighted]) -> list[Target]:
    """Every module that changes, with its changes in order; LoraError when one cannot be made."""
    wrong = sorted(set(modules) - {TEXT, TEXT_2, UNET})
    assert not wrong, f"modules are {TEXT}, {TEXT_2} and {UNET}, not {wrong}"
    found = {part: dict(root.named_modules()) for part, root in modules.items()}
    steps: dict[str, list[tuple[LoraModule, float]]] = {}
    for lora, te, unet in loras:
        strengths = {TEXT: te, TEXT_2: te, UNET: unet}
        for part, strength in strengths.items():
            if not math.isfinite(strength):
                raise LoraError(f"LoRA {lora.name!r} has {part} strength {strength}; give a finite number such as 0.8")
        if lora.unknown:
            raise LoraError(
                f"LoRA {lora.name!r} names nothing in this model with {few(lora.unknown)}; it cannot be used"
            )
        if TEXT in modules and TEXT_2 not in modules:
            _check_second(lora)
        active = {part for part, strength in strengths.items() if strength and part in modules}
        used = [module for module in lora.modules.values() if module.name.partition(".")[0] in active]
        _check_fit(lora, used, found)
        check_embeddings(lora, [table.weight.shape[1] for table in _token_tables(found)])
        for module in used:
            steps.setdefault(module.name, []).append((module, strengths[module.name.partition(".")[0]]))
    return [Target(name=name, module=_module(found, name), steps=tuple(change)) for name, change in steps.items()]


def _token_tables(found: Mapping[str, Mapping[str, nn.Module]]) -> Iterator[nn.Embedding]:
    for part in (TEXT, TEXT_2):
        table = found.get(part, {}).get("embeddings.token_embedding")
        if isinstance(table, nn.Embedding):
            yield table


def _module(found: Mapping[str, Mapping[str, nn.Module]], name: str) -> nn.Module:
    part, _, local = name.partition(".")
    return found[part][local]


def _check_fit(lora: Lora, used: Sequence[LoraModule], found: Mapping[str, Mapping[str, nn.Module]]) -> None:
    absent = [m for m in used if m.name.partition(".")[2] not in found[m.name.partition(".")[0]]]
    _check_depth(lora, absent, found)
    if absent:
        family = f"; it is made for {lora.family.label}" if lora.family.label else ""
        raise LoraError(
            f"LoRA {lora.name!r} does not fit: this model has no {few(m.name for m in absent)}{family}", field="lora"
        )
    misfits = [module for module in used if not _fits(module, _module(found, module.name))]
    if misfits:
        first = misfits[0]
        parts = ", ".join(f"{part} {list(value.shape)}" for part, value in first.parts.items() if value.dim())
        weight = getattr(_module(found, first.name), "weight", None)
        has = f"the model's weight is {list(weight.shape)}" if isinstance(weight, Tensor) else "the model has no weight"
        more = f", nor do {len(misfits) - 1} more" if len(misfits) > 1 else ""
        family = f"; it is made for {lora.family.label}" if lora.family.label else ""
        raise LoraError(
            f"LoRA {lora.name!r} does not fit: {first.name} ({first.kind.name}) has {parts}, {has} there{more}{family}",
            field="lora",
        )


def _check_second(lora: Lora) -> None:
    second = [module.key for module in lora.modules.values() if module.name.startswith(f"{TEXT_2}.")]
    if second:
        raise LoraError(
            f"LoRA {lora.name!r} is for SDXL: it changes a second text encoder ({few(second)}), "
            "which this model does not have",
            field="lora",
        )


def _check_depth(lora: Lora, absent: Sequence[LoraModule], found: Mapping[str, Mapping[str, nn.Module]]) -> None:
    layers = sorted(
        {int(m.name.split(".")[3]) + 1 for m in absent if m.name.startswith("text_encoder.encoder.layers.")}
    )
    depth = len({name.split(".")[2] for name in found.get(TEXT, {}) if name.startswith("encoder.layers.")})
    if layers and layers[-1] > depth:
        span = f"layer {layers[0]}" if len(layers) == 1 else f"layers {layers[0]} to {layers[-1]}"
        raise LoraError(
            f"LoRA {lora.name!r} changes text encoder {span}, this model's text encoder has {depth} layers; "
            "use a LoRA trained on this family",
            field="lora",
        )


def _fits(change: LoraModule, module: nn.Module) -> bool:
    weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
    if not isinstance(weight, nn.Parameter) or (change.changes_bias and not hasattr(module, "bias")):
        return False
    return change.fits(tuple(weight.shape), tuple(bias.shape) if isinstance(bias, Tensor) else None)
