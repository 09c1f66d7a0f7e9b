"""Settings texts of every tool -> a Request; a Render -> the infotext that they all read."""

import json
import math
import re
from collections.abc import Mapping

from clipskip.errors import SpecError
from clipskip.spec.foreign import read_graph
from clipskip.spec.infotext import Infotext, format_infotext, parse_infotext
from clipskip.spec.render import Render, Request
from clipskip.spec.skip import ClipSkip

SKIP_FIELDS = ("Clip skip", "CLiP-skip", "Clip Skip", "clip_skip", "Clip_skip", "CLIP skip")
"""A1111 and most; SD.Next; Easy Diffusion and Civitai's page; Fooocus. All count as A1111 does on SD 1.x."""
NEGATIVE_SKIP = "Negative clip skip"
NOISE_OF_A1111 = "GPU"
"""What A1111 draws noise with when its text does not say."""
KNOWN = frozenset(
    {
        "Steps", "Sampler", "Schedule type", "CFG scale", "Seed", "Size-1", "Size-2", "Model hash", "Model", "RNG", "ENSD",
        "Emphasis", "Variation seed", "Variation seed strength", "Lora hashes", "TI hashes", "Version", "Hashes",
        NEGATIVE_SKIP, *SKIP_FIELDS,
    }
)  # fmt: skip
_HASHES = re.compile(r",?\s*Hashes: (\{[^{}\n]*\})\s*$")


def request_from_text(text: str) -> Request:
    """What a settings text asks for: A1111's, the guide's, or the JSON of ComfyUI, InvokeAI and others."""
    graph = read_graph(text)
    if graph is not None:
        return graph
    found = _HASHES.search(text)
    request = request_from_infotext(parse_infotext(text[: found.start()] if found else text))
    if not request.prompt and not request.negative_prompt and not request.unused and found is None and text.strip():
        raise SpecError("these settings have no prompt; paste the whole block, prompt first", field="settings")
    return request


def request_from_infotext(infotext: Infotext) -> Request:
    """What an infotext asks for, with A1111's defaults for what it leaves out: Clip skip 1, noise of a GPU."""
    fields = infotext.fields
    skips = [fields[name] for name in SKIP_FIELDS if name in fields]
    from_a1111 = bool(fields)
    return Request(
        prompt=infotext.prompt,
        negative_prompt=infotext.negative_prompt,
        model=fields.get("Model"),
        model_hash=fields.get("Model hash"),
        clip_skip=_skip(skips[0]) if skips else ClipSkip(1) if from_a1111 else None,
        negative_clip_skip=_skip(fields[NEGATIVE_SKIP]) if NEGATIVE_SKIP in fields else None,
        steps=_whole(fields, "Steps", 20),
        sampler=fields.get("Sampler", "Euler a"),
        scheduler=fields.get("Schedule type", "Automatic"),
        cfg_scale=_number(fields, "CFG scale", 7.0),
        seed=_whole(fields, "Seed", -1),
        width=_whole(fields, "Size-1", 0) or None,
        height=_whole(fields, "Size-2", 0) or None,
        emphasis=fields.get("Emphasis", "Original"),
        rng=fields.get("RNG", NOISE_OF_A1111 if from_a1111 else "CPU"),
        ensd=_whole(fields, "ENSD", 0),
        variation_seed=_whole(fields, "Variation seed", 0),
        variation_strength=_number(fields, "Variation seed strength", 0.0),
        lora_hashes=_hash_pairs(fields.get("Lora hashes", "")),
        unused=tuple((key, value) for key, value in fields.items() if key not in KNOWN),
    )


def _skip(text: str) -> ClipSkip:
    try:
        return ClipSkip.parse(text)
    except SpecError as error:
        raise type(error)(f"settings: {error}", field="clip_skip") from None


def _whole(fields: Mapping[str, str], name: str, default: int) -> int:
    text = fields.get(name, str(default)).strip()
    if not re.fullmatch(r"[-+]?\d{1,20}", text):
        raise SpecError(f"settings: {_shown(name)} is {text[:40]!r}, which is not a whole number", field=_field(name))
    return int(text)


def _number(fields: Mapping[str, str], name: str, default: float) -> float:
    text = fields.get(name, str(default))
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise SpecError(f"settings: {_shown(name)} is {text[:40]!r}, which is not a number", field=_field(name))
    return value


def _shown(name: str) -> str:
    return "Size" if name.startswith("Size-") else name


def _field(name: str) -> str:
    return _shown(name).lower().replace(" ", "_")


def _hash_pairs(text: str) -> tuple[tuple[str, str], ...]:
    """Names and hashes of "a: 0123, b: 4567"."""
    pairs = (part.rpartition(":") for part in text.split(","))
    return tuple((name.strip(), digits.strip()) for name, colon, digits in pairs if colon)


def render_infotext(render: Render) -> str:
    """The settings of a picture, as A1111, Civitai, sd-parsers and sd-prompt-reader all read them.

    `Clip skip` is always written, 1 included. LoRA tags stand at the prompt's end. The JSON of all hashes comes last:
    A1111 cannot read it, Civitai does.
    """
    tags = " ".join(lora.tag for lora in render.loras)
    text = format_infotext(
        Infotext(
            prompt=f"{render.prompt} {tags}".strip(), negative_prompt=render.negative_prompt, fields=_fields_of(render)
        )
    )
    hashes = {"model": render.model.hash} | {f"lora:{lora.name}": lora.hash for lora in render.loras}
    hashes |= {f"embed:{embedding.name}": embedding.hash for embedding in render.embeddings}
    return f"{text}, Hashes: {json.dumps(hashes, ensure_ascii=False)}"


def _fields_of(render: Render) -> dict[str, str]:
    """The pairs in A1111's order; those at A1111's default are left out where A1111 leaves them out."""
    fields: dict[str, object] = {
        "Steps": render.steps,
        "Sampler": render.sampler,
        "Schedule type": render.scheduler,
        "CFG scale": f"{render.cfg_scale:g}",
        "Seed": render.seed,
        "Size-1": render.width,
        "Size-2": render.height,
        "Model hash": render.model.hash,
        "Model": render.model.name,
    }
    if render.variation_strength:
        fields |= {"Variation seed": render.variation_seed, "Variation seed strength": f"{render.variation_strength:g}"}
    fields["Clip skip"] = render.clip_skip
    if render.negative_clip_skip is not None:
        fields[NEGATIVE_SKIP] = render.negative_clip_skip
    if render.ensd:
        fields["ENSD"] = render.ensd
    fields["RNG"] = render.rng
    if render.emphasis != "Original":
        fields["Emphasis"] = render.emphasis
    if render.loras:
        fields["Lora hashes"] = ", ".join(f"{lora.name}: {lora.hash}" for lora in render.loras)
    if render.embeddings:
        fields["TI hashes"] = ", ".join(f"{embedding.name}: {embedding.hash}" for embedding in render.embeddings)
    fields["Version"] = f"clipskip {render.version}".strip()
    return {key: str(value) for key, value in fields.items()}
