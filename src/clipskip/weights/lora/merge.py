"""Merging LoRAs into models: their weights contain the LoRAs while a `with` block lasts.

Changes are computed in float32 whatever the model's dtype: its rounding, 1e-7, is far below that of a bfloat16 or
float16 weight (4e-3, 5e-4), while float64 takes four times as long. Several LoRAs are added in order in float32 and
rounded to the model's dtype once; A1111 rounds after each.

The weights are put back from the old tensors or, where those are large, from the model's file; then weights are changed
in place, and nothing is held twice.
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
from clipskip.weights.lora.misfits import check_embeddings
from clipskip.weights.lora.names import TEXT, TEXT_2, UNET

Weighted = tuple[Lora, float, float]
"""A LoRA, its strength on the text encoder, and its strength on the UNet."""
Originals = Callable[[Collection[str]], Iterable[tuple[str, Tensor]]]
"""Yields the weights with these full names from the model's file, one by one, in the model's own dtype."""
MOST_KEPT = 2_000_000_000
"""The most bytes of old weights that are kept: enough for a LoRA of SD 1.x, too few for SDXL's UNet."""
MARK = "_loras_merged"
"""The attribute that marks a model while LoRAs are in its weights."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Target:
    """One module of the model with all its changes, in order."""

    name: str
    """Canonical full name."""
    module: nn.Module
    steps: tuple[tuple[LoraModule, float], ...]
    """Each change with its strength."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SavedParameter:
    """One parameter before the merge: `value` is the original tensor itself, which is never written to."""

    module: nn.Module
    attribute: str
    value: Tensor | None
    """None where the parameter did not exist."""

    def restore(self) -> None:
        """Put the parameter back."""
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
    """Merge these LoRAs into the models' weights; on exit the weights are the original ones, bit for bit.

    The old tensors are kept while they have at most `most_kept` bytes. Where they are larger and `originals` is given,
    weights are changed in place and read again afterwards; if that fails, the models stay `is_merged` and are unusable.

    `modules` holds "text_encoder", "text_encoder_2" and "unet", or some of them; a LoRA's changes to others are
    skipped. Every LoRA is checked against the models before anything changes, and a strength of 0 changes nothing.
    Raises LoraError for a LoRA that does not fit, or where LoRAs are already merged.
    """
    targets = _plan(modules, loras)
    busy = [part for part, module in modules.items() if is_merged(module)]
    if busy:
        raise LoraError(
            f"LoRAs are already merged into the {busy[0]}; merge all of them at once, or end that merge first"
        )
    saved: list[SavedParameter] = []
    written: dict[str, nn.Parameter] | None = None
    if originals is not None and sum(_weight_of(target).nbytes for target in targets) > most_kept:
        written = {}
    for module in modules.values():
        setattr(module, MARK, True)
    try:
        _change_all(targets, saved, written)
        yield
    finally:
        for parameter in reversed(saved):
            parameter.restore()
        if written and originals is not None:
            for name, original in originals(written.keys()):
                written[name].data.copy_(original)
        for module in modules.values():
            delattr(module, MARK)


def check_loras(modules: Mapping[str, nn.Module], loras: Sequence[Weighted]) -> None:
    """Raise the LoraError that `merged` would, without changing anything."""
    _plan(modules, loras)


def merge_for_good(modules: Mapping[str, nn.Module], loras: Sequence[Weighted]) -> None:
    """Change the weights as `merged` does, where they lie, and never put them back: for networks that are thrown away."""
    _change_all(_plan(modules, loras), [], {})


def is_merged(module: nn.Module) -> bool:
    """Return whether LoRAs are in a model's weights."""
    return getattr(module, MARK, False)


def _weight_of(target: Target) -> nn.Parameter:
    """Return the weight that a target's changes apply to."""
    weight = target.module.weight
    assert isinstance(weight, nn.Parameter)
    return weight


@torch.inference_mode(False)
@torch.no_grad()
def _change_all(
    targets: Sequence[Target], saved: list[SavedParameter], written: dict[str, nn.Parameter] | None
) -> None:
    """Change all targets. Half-precision weights use one float32 buffer: fresh memory for each took longer than the
    sums."""
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
    saved: list[SavedParameter],
    buffers: Mapping[torch.device, Tensor],
    *,
    written: dict[str, nn.Parameter] | None,
) -> None:
    """Change a module: its weight in place if `written` is given, which then records it, else in a new tensor."""
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
        saved.append(SavedParameter(module=target.module, attribute="weight", value=old))
        weight.data = new if whole else new.to(old.dtype)
    elif not whole:
        old.copy_(new)
    added = [bias for module, strength in target.steps if (bias := module.bias_change(strength=strength)) is not None]
    if added:
        _change_bias(target.module, added, saved)


def _change_bias(module: nn.Module, added: Sequence[Tensor], saved: list[SavedParameter]) -> None:
    weight, bias = module.weight, module.bias
    assert isinstance(weight, Tensor)
    if isinstance(bias, nn.Parameter):
        new = bias.detach().to(torch.float32, copy=True)
        saved.append(SavedParameter(module=module, attribute="bias", value=bias.data))
    else:
        new = torch.zeros(weight.shape[0], device=weight.device)
        saved.append(SavedParameter(module=module, attribute="bias", value=None))
    for change in added:
        new += change.to(new.device)
    if isinstance(bias, nn.Parameter):
        bias.data = new.to(bias.dtype)
    else:
        module.bias = nn.Parameter(new.to(weight.dtype), requires_grad=False)


def _plan(modules: Mapping[str, nn.Module], loras: Sequence[Weighted]) -> list[Target]:
    """Return every module that changes with its changes in order; LoraError when a change is impossible."""
    wrong = sorted(set(modules) - {TEXT, TEXT_2, UNET})
    assert not wrong, f"modules are {TEXT}, {TEXT_2} and {UNET}, not {wrong}"
    named_modules = {part: dict(root.named_modules()) for part, root in modules.items()}
    steps: dict[str, list[tuple[LoraModule, float]]] = {}
    for lora, te, unet in loras:
        strengths = {TEXT: te, TEXT_2: te, UNET: unet}
        for part, strength in strengths.items():
            if not math.isfinite(strength):
                raise LoraError(f"LoRA {lora.name!r} has {part} strength {strength}; give a finite number such as 0.8")
        if lora.unknown:
            raise LoraError(
                f"LoRA {lora.name!r} cannot be used: its keys {few(lora.unknown)} name nothing in this model; get another copy"
            )
        if TEXT in modules and TEXT_2 not in modules:
            _check_second(lora)
        active = {part for part, strength in strengths.items() if strength and part in modules}
        used = [module for module in lora.modules.values() if module.name.partition(".")[0] in active]
        _check_fit(lora, used, named_modules)
        check_embeddings(lora, [table.weight.shape[1] for table in _token_tables(named_modules)])
        for module in used:
            steps.setdefault(module.name, []).append((module, strengths[module.name.partition(".")[0]]))
    return [
        Target(name=name, module=_module(named_modules, name), steps=tuple(change)) for name, change in steps.items()
    ]


def _token_tables(named_modules: Mapping[str, Mapping[str, nn.Module]]) -> Iterator[nn.Embedding]:
    for part in (TEXT, TEXT_2):
        table = named_modules.get(part, {}).get("embeddings.token_embedding")
        if isinstance(table, nn.Embedding):
            yield table


def _module(named_modules: Mapping[str, Mapping[str, nn.Module]], name: str) -> nn.Module:
    part, _, local = name.partition(".")
    return named_modules[part][local]


def _check_fit(lora: Lora, used: Sequence[LoraModule], named_modules: Mapping[str, Mapping[str, nn.Module]]) -> None:
    absent = [m for m in used if m.name.partition(".")[2] not in named_modules[m.name.partition(".")[0]]]
    _check_depth(lora, absent, named_modules)
    if absent:
        family = f"; it was made for {lora.family.label}" if lora.family.label else ""
        raise LoraError(
            f"LoRA {lora.name!r} does not fit: this model has no {few(m.name for m in absent)}{family}; choose another LoRA or model",
            field="lora",
        )
    misfits = [module for module in used if not _fits_module(module, _module(named_modules, module.name))]
    if misfits:
        misfit = misfits[0]
        parts = ", ".join(
            f"{part} {list(value.shape)}" for part, value in misfit.parts.items() if part not in ("alpha", "scale")
        )
        weight = getattr(_module(named_modules, misfit.name), "weight", None)
        model_has = (
            f"where the model's weight is {list(weight.shape)}"
            if isinstance(weight, Tensor)
            else "where the model has no weight"
        )
        more = f", and {len(misfits) - 1} more do not fit" if len(misfits) > 1 else ""
        family = f"; it was made for {lora.family.label}" if lora.family.label else ""
        raise LoraError(
            f"LoRA {lora.name!r} does not fit: {misfit.name} ({misfit.kind.name}) has {parts or 'no shape'}, {model_has}{more}{family}; "
            "choose another LoRA or model",
            field="lora",
        )


def _check_second(lora: Lora) -> None:
    second = [module.key for module in lora.modules.values() if module.name.startswith(f"{TEXT_2}.")]
    if second:
        raise LoraError(
            f"LoRA {lora.name!r} is for SDXL: it changes a second text encoder ({few(second)}), "
            "which this model does not have; choose a LoRA made for this model",
            field="lora",
        )


def _check_depth(
    lora: Lora, absent: Sequence[LoraModule], named_modules: Mapping[str, Mapping[str, nn.Module]]
) -> None:
    layers = sorted(
        {int(m.name.split(".")[3]) + 1 for m in absent if m.name.startswith("text_encoder.encoder.layers.")}
    )
    depth = len({name.split(".")[2] for name in named_modules.get(TEXT, {}) if name.startswith("encoder.layers.")})
    if layers and layers[-1] > depth:
        span = f"layer {layers[0]}" if len(layers) == 1 else f"layers {layers[0]} to {layers[-1]}"
        raise LoraError(
            f"LoRA {lora.name!r} changes text encoder {span}, but this model's text encoder has {depth} layers; "
            "use a LoRA trained on this model's family",
            field="lora",
        )


def _fits_module(change: LoraModule, module: nn.Module) -> bool:
    weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
    if not isinstance(weight, nn.Parameter) or (change.changes_bias and not hasattr(module, "bias")):
        return False
    return change.fits(tuple(weight.shape), tuple(bias.shape) if isinstance(bias, Tensor) else None)
