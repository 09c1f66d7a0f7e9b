"""Every tool's settings texts to a Request, and a Render to the infotext that all of them read."""

import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from clipskip.errors import SpecError
from clipskip.spec.asking import A1111, COMFY_TEXT, Source, read_request
from clipskip.spec.encoder_skips import EncoderSkips
from clipskip.spec.fooocus import fooocus, untagged
from clipskip.spec.foreign import DRAW_THINGS, FOOOCUS_TEXT, counted_by, mean_restored, read_record, wrapped_text
from clipskip.spec.infotext import Infotext, compose, hide_labels, parse_infotext, with_sizes
from clipskip.spec.lora import LoraRef
from clipskip.spec.mac_apps import draw_things_fields
from clipskip.spec.passes import Hires
from clipskip.spec.plain import write_value, write_values
from clipskip.spec.record_reader import BLANKS, NEVER_TWO, SPELLINGS, Reader, Said, disagree, one_line, plain_key
from clipskip.spec.render import FileRef, Render, Request
from clipskip.spec.sampler_names import is_comfy
from clipskip.spec.skip import ClipSkip
from clipskip.spec.table import HIRES, MASK, PICTURE, START

FRACTION, SCHEDULE, ENCODERS = "Fractional clip skip", "Clip skip schedule", "Clip skip per encoder"
NEGATIVE_SKIP, PHRASES = "Negative clip skip", "Phrase clip skips"
"""Our own fields, for what A1111's whole number cannot express. Phrases stand one per line: red frog=4."""
DEFAULTS = {"Clip skip": "1", "RNG": "GPU", "Schedule type": "Automatic", "Emphasis": "Original"}
"""A1111's defaults for settings that a text leaves out (1.10 modules/infotext_utils.py)."""
ETA_DDIM, INIT_HASH, MASK_HASH = "Eta DDIM", "Init image hash", "Mask image hash"
COMFYUI, COMFY_LORAS = "ComfyUI", "ComfyUI LoRAs"
"""The emphasis under which a prompt's tags are words, and the field that then holds its LoRAs."""
FIRST_PASS, FIRST_PASS_PX = ("First pass size-1", "First pass size-2"), 512
ALWAYS = frozenset({"steps", "sampler", "scheduler", "cfg_scale", "seed", "width", "height"})
COMPARED = (
    "prompt", "negative_prompt", "model", "model_hash", "loras", "clip_skip", "steps", "sampler", "scheduler", "cfg_scale",
    "seed", "width", "height",
)  # fmt: skip
"""The settings that are compared where a picture contains settings twice."""
VARIATION = tuple(row for row in PICTURE if row.name in ("variation_seed", "variation_strength"))
LATER = tuple(row for row in PICTURE[7:] if row not in VARIATION and row.name != "ensd")
NOT_SHARED = frozenset({"Clip skip", FRACTION, SCHEDULE, ENCODERS, "Lora hashes", COMFY_LORAS, "Version"})
"""Fields that differ between the pictures of a sweep, or that do not determine them."""
UNWRITABLE = re.compile(r'[,:"<>=#{}\x00-\x1f]')
"""Characters that end a name early in a tag, a pair or a reader: commas, colons, quotes, brackets; = and # in tags."""


def request_from_text(text: str) -> Request:
    """Read a Request from a settings text: A1111's, the guide's, or the record of another tool."""
    if not text.strip(BLANKS):
        raise SpecError("the settings are empty; paste the whole block, prompt first", field="settings")
    if wrapped := wrapped_text(text):
        inner, beside = wrapped
        asked = request_from_text(inner)
        return replace(asked, unused=(*asked.unused, *beside.left()))
    record = read_record(text)
    if record is not None:
        _check_numbers(record)
        return record
    infotext = parse_infotext(text.replace("\r\n", "\n").replace("\r", "\n"))
    if infotext.fields and not infotext.prompt and not infotext.negative_prompt and not infotext.hashes:
        raise SpecError("these settings have no prompt; paste the whole block, prompt first", field="settings")
    return request_from_infotext(infotext)


def request_from_texts(texts: Sequence[str]) -> Request:
    """Read a Request from the first of a picture's settings; what others beside it say differently is `unused`.

    A graph of ComfyUI that can be read comes before a settings text, since it drew the picture.
    """
    first = next((at for at, text in enumerate(texts) if at and _drew(text)), 0) if not texts[0].startswith("{") else 0
    asked = request_from_text(texts[first])
    differences: list[tuple[str, str]] = []
    for text in (*texts[:first], *texts[first + 1 :]):
        try:
            other = request_from_text(text)
        except SpecError as error:
            differences.append(("other settings in the picture", f"{one_line(text)[:60]} ({error})"))
        else:
            if first:
                asked = _with_hashes(asked, other)
            differences += _differing(asked, other)
    return replace(asked, unused=(*asked.unused, *differences))


def _with_hashes(asked: Request, text: Request) -> Request:
    """Return a graph's request with the hashes that a settings text beside it has of the same files."""
    same = text.model == asked.model and asked.model_hash is None
    digits = dict(text.lora_hashes) | dict(asked.lora_hashes)
    return replace(asked, model_hash=text.model_hash if same else asked.model_hash, lora_hashes=tuple(digits.items()))


def _drew(text: str) -> bool:
    """Return whether a picture's text is a graph of ComfyUI that can be read."""
    if not (text.lstrip().startswith("{") and '"class_type"' in text):
        return False
    try:
        return read_record(text) is not None
    except SpecError:
        return False


def _differing(asked: Request, other: Request) -> Iterator[tuple[str, str]]:
    """Yield where other settings of the same picture differ; a text without settings counts as a prompt only."""
    bare = Request(prompt=other.prompt, negative_prompt=other.negative_prompt, unused=other.unused)
    for name in ("prompt",) if other == bare else COMPARED:
        first, second = getattr(asked, name), getattr(other, name)
        if second is not None and first != second and str(first).split() != str(second).split():
            yield f"{name.replace('_', ' ')} in the picture's other settings", one_line(str(second))


def with_defaults(infotext: Infotext) -> Infotext:
    """Return the infotext with A1111's defaults filled in, and a hypernetwork as a tag of the prompt."""
    fields = DEFAULTS | _with_first_pass(infotext.fields)
    hypernet = (
        f"<hypernet:{fields['Hypernet']}:{fields.get('Hypernet strength', '1.0')}>" if "Hypernet" in fields else ""
    )
    return Infotext(
        prompt=infotext.prompt + hypernet,
        negative_prompt=infotext.negative_prompt,
        fields=fields,
        hashes=infotext.hashes,
    )


def _with_first_pass(fields: Mapping[str, str]) -> dict[str, str]:
    """Return the fields; a text from before hires fix had a scale (2022) gets its first pass's size as the picture's.

    A first pass of 0x0 had as nearly 512 x 512 pixels as multiples of 64 allow (1.10 modules/infotext_utils.py).
    """
    labels = (*FIRST_PASS, "Size-1", "Size-2")
    sides = [fields.get(label, "") for label in labels]
    if not all(side.isdecimal() for side in sides) or "0" in sides[2:]:
        return dict(fields)
    first, whole = [int(side) for side in sides[:2]], [int(side) for side in sides[2:]]
    if 0 in first:
        share = math.sqrt(FIRST_PASS_PX**2 / math.prod(whole))
        first = [math.ceil(share * side / 64) * 64 for side in whole]
    kept = {label: value for label, value in fields.items() if label not in labels}
    named = {f"{stem}-{i + 1}": str(s[i]) for stem, s in (("Size", first), ("Hires resize", whole)) for i in (0, 1)}
    return kept | named


def request_from_infotext(infotext: Infotext) -> Request:
    """Return the Request in an infotext, with A1111's defaults for what it leaves out: Clip skip 1, noise of a GPU.

    A text without any settings is a prompt, and leaves everything else open.
    """
    if not infotext.fields:
        return Request(prompt=infotext.prompt, negative_prompt=infotext.negative_prompt, unused=infotext.rest)
    twice = tuple(_said_twice(infotext))
    source, record, prompt, negative = _told_by(infotext)
    reader = Reader(record)
    version = reader.key("Version")
    asked = read_request(reader, source, prompt=prompt, negative=negative)
    version_note = [("Version", version.value)] if version and not version.value.startswith("clipskip") else []
    counted = asked.counted_by or counted_by(version.value if version else "", infotext.fields)
    mean = mean_restored(prompt, negative) if source is FOOOCUS_TEXT else ()
    told = (*version_note, *twice, *mean, *_inner_negative(infotext), *infotext.rest)
    request = replace(asked, counted_by=counted, unused=(*asked.unused, *told))
    _check_numbers(request)
    return request


def _said_twice(infotext: Infotext) -> Iterator[tuple[str, str]]:
    """Yield the earlier values of keys that stand twice, where A1111 drops them; SpecError where each makes another picture."""
    for key, earlier, later in infotext.twice:
        if any(plain_key(key) in SPELLINGS[field] for field in (*NEVER_TWO, "clip_skip")):
            field = next(field for field in (*NEVER_TWO, "clip_skip") if plain_key(key) in SPELLINGS[field])
            raise disagree(Said(key, earlier), Said(key, later), field=field)
        yield f"{key}, which stands twice", one_line(earlier)


def _inner_negative(infotext: Infotext) -> Iterator[tuple[str, str]]:
    """Yield a negative prompt that stands where A1111 does not see it, so that it is part of the prompt."""
    at = infotext.prompt.lower().find("negative prompt:")
    ours = infotext.fields.get("Version", "").startswith("clipskip")
    if at >= 0 and not infotext.negative_prompt and not ours:
        yield "a negative prompt inside the prompt", one_line(infotext.prompt[at:])


def _told_by(infotext: Infotext) -> tuple[Source, Mapping[str, object], str, str]:
    """Whose settings text it is, its pairs, its prompt and its negative prompt."""
    fields, prompt, negative = infotext.fields, infotext.prompt, infotext.negative_prompt
    record: Mapping[str, object] = {**_with_first_pass(infotext.bare or fields), **infotext.lists}
    if "Guidance Scale" in fields and "Seed Mode" in fields:
        record, prompt, below = draw_things_fields(dict(with_sizes(infotext.bare or fields)), prompt)
        return DRAW_THINGS, record, prompt, negative or below
    if fields.get("Version", "").startswith("Fooocus"):
        made = dict(fooocus({**record, "prompt": prompt, "negative_prompt": negative}))
        prompt, negative = made.pop("prompt"), made.pop("negative_prompt")
        return FOOOCUS_TEXT, made, prompt, negative
    if fields.get("Version") == "ComfyUI" or is_comfy(fields.get("Sampler", "")):
        tagged = untagged({**record, "prompt": prompt, "negative_prompt": negative})
        prompt, negative = tagged.pop("prompt"), tagged.pop("negative_prompt")
        return COMFY_TEXT, tagged, prompt, negative
    return A1111, record, prompt, negative


def _check_numbers(request: Request) -> None:
    """Raise SpecError, worded for a settings text, for numbers that no picture can have."""
    try:
        check_request(request)
    except SpecError as error:
        size = (
            f"Size {request.width or 0}x{request.height or 0}: " if error.field in ("width", "height", "size") else ""
        )
        raise type(error)(f"settings: {size}{error}", field=error.field) from None


def check_request(request: Request) -> None:
    """Raise SpecError for numbers that no picture can have, whatever the model."""
    asked: dict[str, Any] = {row.name: getattr(request, row.name) for row in PICTURE}  # Any: as the fields are
    asked |= {name: 0 for name in ("seed", "variation_seed") if asked[name] == -1}
    asked |= {name: 512 for name in ("width", "height") if asked[name] is None}
    Render(
        prompt="", model=FileRef(name=""), phrase_skips=request.phrase_skips, hires=request.hires, start=request.start, **asked
    )  # fmt: skip


def render_infotext(render: Render) -> str:
    """Return a picture's settings as A1111, Civitai, sd-parsers and sd-prompt-reader all read them.

    `Clip skip` is always written, 1 included. LoRA tags are at the prompt's end. The JSON of all hashes comes last,
    because A1111 cannot read it, while Civitai and sd-parsers do.
    """
    tags = [] if render.emphasis == COMFYUI else [_tag(lora) for lora in render.loras]
    hashes = {"model": render.model.hash}
    hashes |= {f"lora:{_lora_name(lora)}": lora.hash for lora in render.loras}
    hashes |= {f"embed:{writable(embedding.name)}": embedding.hash for embedding in render.embeddings}
    return compose(
        Infotext(
            prompt=hide_labels(" ".join(filter(None, [render.prompt, *tags]))),
            negative_prompt=hide_labels(render.negative_prompt),
            fields=dict(_fields_of(render)),
            hashes={name: digits for name, digits in hashes.items() if digits},
        )
    )


def shared_infotext(render: Render, *, without: Collection[str] = ()) -> str:
    """Return the settings shared by pictures that differ in Clip Skip, LoRAs and the fields named in `without`."""
    return compose(
        Infotext(
            prompt=hide_labels(render.prompt),
            negative_prompt=hide_labels(render.negative_prompt),
            fields={
                name: value
                for name, value in _fields_of(render)
                if name not in NOT_SHARED and name not in without and (name, value) not in DEFAULTS.items()
            },
        )
    ).strip()


def _fields_of(render: Render) -> Iterator[tuple[str, str]]:
    """Yield the pairs in A1111's order; those at A1111's default are left out where A1111 leaves them out."""
    yield from write_values(render, PICTURE[:7], always=ALWAYS)
    for label, file in (("Model", render.model), ("VAE", render.vae)):
        if file and file.hash:
            yield f"{label} hash", file.hash
        if file and (name := writable(file.name)):
            yield label, name
    if render.variation_strength:
        yield from write_values(render, VARIATION, always=("variation_seed",))
    if render.hires or render.start:
        yield from write_values(render.hires or render.start, (START[0],), always=("strength",))
    yield from _skips_of(render)
    if render.ensd:
        yield "ENSD", str(render.ensd)
    if render.start:
        yield INIT_HASH, render.start.hash
    if render.refiner and (name := writable(render.refiner.name)):
        yield "Refiner", f"{name} [{render.refiner.hash}]"
        yield "Refiner switch at", f"{render.refiner_switch_at:g}"
    for label, text in write_values(render, LATER):
        yield ETA_DDIM if label == "Eta" and render.sampler == "DDIM" else label, text
    if render.hires:
        yield from _second_pass(render.hires)
    if render.start:
        yield from write_values(render.start, START[1:])
        if render.start.mask:
            yield MASK_HASH, render.start.mask.hash
            yield from write_values(render.start.mask, MASK)
    if render.loras:
        yield "Lora hashes", ", ".join(f"{_lora_name(lora)}: {lora.hash}" for lora in render.loras)
        if render.emphasis == COMFYUI:
            yield COMFY_LORAS, ", ".join(_tag(lora).removeprefix("<lora:").removesuffix(">") for lora in render.loras)
    if render.embeddings:
        yield "TI hashes", ", ".join(f"{writable(ref.name)}: {ref.hash}" for ref in render.embeddings)
    yield "Version", f"clipskip {render.version}".strip()


def _skips_of(render: Render) -> Iterator[tuple[str, str]]:
    skip, negative = render.clip_skip, render.negative_clip_skip
    yield "Clip skip", str(skip.first.shallow)
    if isinstance(skip, EncoderSkips):
        yield ENCODERS, str(skip)
    elif not isinstance(skip, ClipSkip):
        yield SCHEDULE, str(skip)
    elif skip.fraction:
        yield FRACTION, str(skip)
    if negative is not None:
        yield NEGATIVE_SKIP, str(negative)
    if render.phrase_skips:
        yield PHRASES, "\n".join(map(str, render.phrase_skips))


def _second_pass(hires: Hires) -> Iterator[tuple[str, str]]:
    """Yield the pairs of a second pass. Like A1111 they have its scale, or the size that was asked for instead."""
    resized = bool(hires.width or hires.height)
    sized = ("width", "height") if resized else ("scale",)
    for label, text in write_values(
        hires, (row for row in HIRES if row.name != "strength"), always=(*sized, "upscaler")
    ):
        if label == "Hires prompt" and hires.loras:
            text = " ".join(filter(None, [text, *map(_tag, hires.loras)]))
        if not (resized and label == "Hires upscale"):
            yield label, text
    if hires.upscaler_hash:
        yield "Hires upscaler hash", hires.upscaler_hash


def writable(name: str) -> str:
    """Return a file's name without characters that break a tag, a pair or one of the readers."""
    return UNWRITABLE.sub("", name).strip()


def _lora_name(lora: LoraRef) -> str:
    return writable(lora.name) or lora.hash


def _tag(lora: LoraRef) -> str:
    """Return the LoRA as a tag for A1111's prompts, with all digits of its strengths."""
    te, unet = write_value(lora.text_encoder), write_value(lora.unet)
    return f"<lora:{_lora_name(lora)}:{te}>" if te == unet else f"<lora:{_lora_name(lora)}:{te}:{unet}>"
