"""A check that a LoRA fits a checkpoint, by the checkpoint's header alone, before anything is drawn."""

from collections.abc import Iterator, Sequence

from clipskip.errors import LoraError
from clipskip.weights.container import Header
from clipskip.weights.keys import TEXT_PARTS, canonical
from clipskip.weights.lora.change import LoraModule
from clipskip.weights.lora.file import Lora, few


def check_fit(lora: Lora, header: Header, *, text_encoder: float, unet: float) -> None:
    """Raise LoraError where it changes what this checkpoint lacks or has in another shape. A part at strength 0 is not
    used."""
    shapes = {
        f"{part}.{name}": source.shape
        for part, sources in canonical(header.shapes).items()
        for name, source in sources.items()
    }
    tables = (shapes.get(f"{part}.embeddings.token_embedding.weight") for part in TEXT_PARTS)
    check_embeddings(lora, [table[1] for table in tables if table])
    used = [module for module in lora.modules.values() if (text_encoder if module.is_text else unet)]
    absent = [module.name for module in used if f"{module.name}.weight" not in shapes]
    misfits = [] if absent else list(_misfits(used, shapes))
    if not absent and not misfits:
        return
    made_for = f"; it was made for {lora.family.label}" if lora.family.label else ""
    problem = (
        f"this model has no {few(absent)}"
        if absent
        else misfits[0] + (f", and {len(misfits) - 1} more do not fit" if misfits[1:] else "")
    )
    raise LoraError(f"LoRA {lora.name!r} does not fit: {problem}{made_for}; choose another LoRA or model", field="lora")


def check_embeddings(lora: Lora, widths: Sequence[int]) -> None:
    """Raise LoraError where its embeddings do not have the text encoders' widths, with vectors for each of them."""
    for name, vectors in lora.embeddings.items() if widths else ():
        found_widths = [side.shape[1] for side in vectors]
        if found_widths != list(widths):
            raise LoraError(
                f"LoRA {lora.name!r} contains the embedding {name[:60]!r}, {' and '.join(map(str, found_widths))} wide; this model "
                f"reads {' and '.join(map(str, widths))}: choose a LoRA made for this model",
                field="lora",
            )


def _misfits(used: list[LoraModule], shapes: dict[str, tuple[int, ...]]) -> Iterator[str]:
    for module in used:
        weight = shapes[f"{module.name}.weight"]
        if not module.fits(weight, shapes.get(f"{module.name}.bias")):
            parts = ", ".join(
                f"{part} {list(value.shape)}" for part, value in module.parts.items() if part not in ("alpha", "scale")
            )
            yield f"{module.name} ({module.kind.name}) has {parts}, where the model's weight is {list(weight)}"
