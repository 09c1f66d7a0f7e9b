"""Settings texts of every tool -> a Request; a Render -> the infotext that they all read."""

import math
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from clipskip.errors import SpecError
from clipskip.spec.encoder_skips import EncoderSkips, PhraseSkip, Skip, parse_skip
from clipskip.spec.foreign import read_record
from clipskip.spec.infotext import Infotext, compose, hide_labels, parse_infotext
from clipskip.spec.lora import LoraRef
from clipskip.spec.numbering import Dialect
from clipskip.spec.passes import Hires, Mask, Start
from clipskip.spec.plain import nonsense, read_values, read_whole, write_value, write_values
from clipskip.spec.render import FileRef, Render, Request
from clipskip.spec.schedule import SkipSchedule
from clipskip.spec.skip import ClipSkip
from clipskip.spec.table import HIRES, MASK, PICTURE, START

SKIP_FIELDS = ("Clip skip", "CLiP-skip", "CLIP skip", "Clip Skip", "clip_skip", "Clip_skip", "clipSkip")
"""A1111 and most; SD.Next; typed; Civitai's page, and Easy Diffusion's switch; Fooocus and its kin; Civitai's data.
All but the switch count as A1111 does on SD 1.x."""
FRACTION, SCHEDULE, ENCODERS = "Fractional clip skip", "Clip skip schedule", "Clip skip per encoder"
NEGATIVE_SKIP, PHRASES = "Negative clip skip", "Phrase clip skips"
"""Ours: what A1111's whole number cannot say. Phrases stand one a line: red frog=4."""
DEFAULTS = {"Clip skip": "1", "RNG": "GPU", "Schedule type": "Automatic", "Emphasis": "Original"}
"""What A1111 takes for settings that a text leaves out (1.10 modules/infotext_utils.py)."""
SCHEDULES_IN_NAMES = (
    "Karras",
    "Exponential",
    "Polyexponential",
    "SGM Uniform",
    "SGMUniform",
    "Uniform",
    "Normal",
    "Simple",
    "Beta",
)
"""Up to A1111 1.8 a sampler's name ended in its schedule type."""
ETA_DDIM, INIT_HASH, MASK_HASH = "Eta DDIM", "Init image hash", "Mask image hash"
UPSCALER_HASH = "Hires upscaler hash"
READ = frozenset(
    {
        "Model hash", "Model", "VAE", "VAE hash", "Lora hashes", "TI hashes", "Version", "Hashes", "Hypernet", "Hypernet strength",
        NEGATIVE_SKIP, FRACTION, SCHEDULE, ENCODERS, PHRASES, ETA_DDIM, *SKIP_FIELDS, *DEFAULTS, *(row.label for row in PICTURE),
    }
)  # fmt: skip
NO_VAE = frozenset({"Automatic", "None", "Default"})
"""What some tools note where the checkpoint's own VAE was used."""
FIRST_PASS, FIRST_PASS_PX = ("First pass size-1", "First pass size-2"), 512
SPECIAL = frozenset({"sampler", "scheduler", "width", "height"})
"""Of the table's rows, those that a text has in a way of its own."""
ALWAYS = frozenset({"steps", "sampler", "scheduler", "cfg_scale", "seed", "width", "height"})
VARIATION = tuple(row for row in PICTURE if row.name in ("variation_seed", "variation_strength"))
LATER = tuple(row for row in PICTURE[7:] if row not in VARIATION and row.name != "ensd")
HIRES_SIGNS = ("Hires upscale", "Hires upscaler", "Hires resize-1")
"""A text with one of these and a denoising strength is of a picture with a second pass (1.10 modules/ui.py)."""
OWN_TIMES = frozenset({"ddim", "ddim cfg++", "plms", "unipc", "dpm fast", "dpm adaptive"})
"""Samplers that take no schedule type: A1111 notes the one that its menu shows, and draws without it
(1.10 modules/sd_samplers_timesteps.py get_timesteps; sd_samplers_kdiffusion.py for the last two)."""
NOT_SHARED = frozenset({"Clip skip", FRACTION, SCHEDULE, ENCODERS, "Lora hashes", "Version"})
"""What differs between the pictures of a sweep, or does not make them."""
UNWRITABLE = re.compile(r'[,:"<>=#{}\x00-\x1f]')
"""What ends a name early in a tag, a pair or a reader: commas, colons, quotes, brackets; = and # in tags."""


def request_from_text(text: str) -> Request:
    """What a settings text asks for: A1111's, the guide's, or the record of another tool."""
    if not text.strip():
        raise SpecError("the settings are empty; paste the whole block, prompt first", field="settings")
    record = read_record(text)
    if record is not None:
        _check(record)
        return record
    infotext = parse_infotext(text)
    if infotext.fields and not infotext.prompt and not infotext.negative_prompt and not infotext.hashes:
        raise SpecError("these settings have no prompt; paste the whole block, prompt first", field="settings")
    return request_from_infotext(infotext)


def with_defaults(infotext: Infotext) -> Infotext:
    """The infotext as A1111 takes it: what is left out is filled in, and a hypernetwork is a tag of the prompt."""
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
    """The fields, of a text from before hires fix had a scale (2022) with the size of its first pass as the picture's.

    A first pass of 0x0 was as near to 512 x 512 pixels as multiples of 64 allow (1.10 modules/infotext_utils.py).
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
    """What an infotext asks for, with A1111's defaults for what it leaves out: Clip skip 1, noise of a GPU.

    A text without any settings is a prompt, and leaves everything else open.
    """
    if not infotext.fields:
        return Request(prompt=infotext.prompt, negative_prompt=infotext.negative_prompt)
    whole = with_defaults(infotext)
    fields = whole.fields
    sampler, schedule = _split_sampler(fields.get("Sampler", "Euler a"), fields["Schedule type"])
    idle = {"Schedule type"} if sampler.casefold() in OWN_TIMES and schedule != DEFAULTS["Schedule type"] else set()
    if ETA_DDIM in fields:
        fields = {"Eta": fields[ETA_DDIM]} | dict(fields)
    try:
        hires, start = _hires(fields), _start(fields)
    except SpecError as error:
        raise type(error)(f"settings: {error}", field=error.field) from None
    request = Request(
        **read_values(fields, (row for row in PICTURE if row.name not in SPECIAL)),
        **_sizes(fields),
        prompt=whole.prompt,
        negative_prompt=whole.negative_prompt,
        model=fields.get("Model"),
        model_hash=fields.get("Model hash"),
        vae=None if fields.get("VAE") in NO_VAE else fields.get("VAE"),
        vae_hash=fields.get("VAE hash"),
        clip_skip=_clip_skip(infotext.fields),
        negative_clip_skip=_skip(NEGATIVE_SKIP, fields[NEGATIVE_SKIP]) if NEGATIVE_SKIP in fields else None,
        phrase_skips=_phrases(fields),
        sampler=sampler,
        scheduler=DEFAULTS["Schedule type"] if idle else schedule,
        hires=hires,
        start=start,
        lora_hashes=tuple(dict(_lora_hashes(infotext)).items()),
        unused=tuple(_unused(infotext, idle, _used(hires, start))),
    )
    _check(request)
    return request


def _clip_skip(fields: Mapping[str, str]) -> Skip:
    """The Clip Skip in whichever spelling; SpecError where two disagree."""
    found = {name: _skip(name, fields[name]) for name in SKIP_FIELDS if name in fields}
    for exact_name in (FRACTION, SCHEDULE, ENCODERS):
        if exact_name in fields:
            exact = _skip(exact_name, fields[exact_name])
            begins = ClipSkip(exact.first.shallow)
            found = {name: exact if skip == begins else skip for name, skip in found.items()}
            found[exact_name] = exact
    if len(set(found.values())) > 1:
        said = " and ".join(f"{name} {fields[name]}" for name in found)
        raise SpecError(f"settings: {said} disagree; leave one of them", field="clip_skip")
    return next(iter(found.values()), ClipSkip.parse(DEFAULTS["Clip skip"]))


def _skip(name: str, text: str) -> Skip:
    switch = {"true": "on", "yes": "on", "false": "off", "no": "off"}.get(text.strip().lower())
    try:
        if switch is not None:
            return ClipSkip.from_dialect(switch, Dialect.EASYDIFFUSION)
        return parse_skip(text)
    except SpecError as error:
        raise type(error)(f"settings: {name} {text[:40]}: {error}", field="clip_skip") from None


def _phrases(fields: Mapping[str, str]) -> tuple[PhraseSkip, ...]:
    lines = fields.get(PHRASES, "").split("\n")
    try:
        return tuple(PhraseSkip.parse(line) for line in lines if line.strip())
    except SpecError as error:
        raise type(error)(f"settings: {PHRASES}: {error}", field="phrase_skip") from None


def _split_sampler(name: str, schedule: str) -> tuple[str, str]:
    """Sampler and schedule type; a name of A1111 1.8 ("DPM++ 2M Karras") holds both."""
    for label in SCHEDULES_IN_NAMES:
        if name.endswith(f" {label}") and schedule in ("Automatic", label):
            return name.removesuffix(f" {label}"), label
    return name, schedule


def _sizes(fields: Mapping[str, str]) -> dict[str, Any]:  # Any: fields of a dataclass
    """Width and height in pixels; None for each that the text leaves open."""
    if "Size" in fields:
        raise nonsense("Size", fields["Size"], "width x height, as in 512x768")
    return {
        name: read_whole("Size", fields[label]) if (label := f"Size-{side}") in fields else None
        for side, name in ((1, "width"), (2, "height"))
    }


def _hires(fields: Mapping[str, str]) -> Hires | None:
    """The second pass that a text notes."""
    if "Denoising strength" not in fields or not any(sign in fields for sign in HIRES_SIGNS):
        return None
    return Hires(**read_values(fields, HIRES), upscaler_hash=fields.get(UPSCALER_HASH, ""))


def _start(fields: Mapping[str, str]) -> Start | None:
    """The picture that a text notes as the one that drawing begins at."""
    if INIT_HASH not in fields:
        return None
    mask = Mask(**read_values(fields, MASK), hash=fields[MASK_HASH]) if MASK_HASH in fields else None
    return Start(**read_values(fields, START), hash=fields[INIT_HASH], mask=mask)


def _lora_hashes(infotext: Infotext) -> Iterator[tuple[str, str]]:
    """Names and hashes of LoRAs: those of the JSON, then those of "a: 0123, b: 4567"."""
    for key, digits in infotext.hashes.items():
        if key.startswith("lora:"):
            yield key.removeprefix("lora:"), digits
    for part in infotext.fields.get("Lora hashes", "").split(","):
        name, colon, digits = part.rpartition(":")
        if colon:
            yield name.strip(), digits.strip()


def _used(hires: Hires | None, start: Start | None) -> frozenset[str]:
    """The labels that were read for a second pass and for a picture to begin at."""
    second = (*(row.label for row in HIRES), UPSCALER_HASH, *FIRST_PASS) if hires else ()
    first = (*(row.label for row in (*START, *MASK)), INIT_HASH, MASK_HASH) if start else ()
    return frozenset((*second, *first))


def _unused(infotext: Infotext, idle: Collection[str], used: Collection[str]) -> Iterator[tuple[str, str]]:
    """The fields that are not read, or say nothing here; of hashes in JSON, A1111's grammar makes some too."""
    pieces = {key.partition(":")[0] for key in infotext.hashes}
    for key, value in infotext.fields.items():
        if key in idle or (key not in READ and key not in pieces and key not in used):
            yield key, value


def _check(request: Request) -> None:
    """SpecError for numbers that no picture can have."""
    asked: dict[str, Any] = {row.name: getattr(request, row.name) for row in PICTURE}  # Any: as the fields are
    asked |= {name: 0 for name in ("seed", "variation_seed") if asked[name] == -1}
    asked |= {name: 512 for name in ("width", "height") if asked[name] is None}
    try:
        Render(
            prompt="", model=FileRef(name=""), phrase_skips=request.phrase_skips, hires=request.hires, start=request.start, **asked
        )  # fmt: skip
    except SpecError as error:
        shown = f"Size {request.width}x{request.height}: " if error.field in ("width", "height", "size") else ""
        raise type(error)(f"settings: {shown}{error}", field=error.field) from None


def render_infotext(render: Render) -> str:
    """The settings of a picture, as A1111, Civitai, sd-parsers and sd-prompt-reader all read them.

    `Clip skip` is always written, 1 included. LoRA tags stand at the prompt's end. The JSON of all hashes comes last:
    A1111 cannot read it, Civitai and sd-parsers do.
    """
    tags = [_tag(lora) for lora in render.loras]
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


def shared_infotext(render: Render) -> str:
    """The settings that pictures share which differ in Clip Skip and LoRAs alone."""
    return compose(
        Infotext(
            prompt=hide_labels(render.prompt),
            negative_prompt=hide_labels(render.negative_prompt),
            fields={
                name: value
                for name, value in _fields_of(render)
                if name not in NOT_SHARED and (name, value) not in DEFAULTS.items()
            },
        )
    ).strip()


def _fields_of(render: Render) -> Iterator[tuple[str, str]]:
    """The pairs in A1111's order; those at A1111's default are left out where A1111 leaves them out."""
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
    if render.embeddings:
        yield "TI hashes", ", ".join(f"{writable(ref.name)}: {ref.hash}" for ref in render.embeddings)
    yield "Version", f"clipskip {render.version}".strip()


def _skips_of(render: Render) -> Iterator[tuple[str, str]]:
    skip, negative = render.clip_skip, render.negative_clip_skip
    yield "Clip skip", str(skip.first.shallow)
    if isinstance(skip, EncoderSkips):
        yield ENCODERS, str(skip)
    elif isinstance(skip, SkipSchedule):
        yield SCHEDULE, str(skip)
    elif skip.fraction:
        yield FRACTION, str(skip)
    if negative is not None:
        yield NEGATIVE_SKIP, str(negative)
    if render.phrase_skips:
        yield PHRASES, "\n".join(map(str, render.phrase_skips))


def _second_pass(hires: Hires) -> Iterator[tuple[str, str]]:
    """The pairs of a second pass; A1111 notes its scale, or in its place the size that was asked for."""
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
        yield UPSCALER_HASH, hires.upscaler_hash


def writable(name: str) -> str:
    """A file's name without what a tag, a pair or one of the readers would stumble over."""
    return UNWRITABLE.sub("", name).strip()


def _lora_name(lora: LoraRef) -> str:
    return writable(lora.name) or lora.hash


def _tag(lora: LoraRef) -> str:
    """The LoRA as A1111's prompts write it, its strengths to the last digit."""
    te, unet = write_value(lora.text_encoder), write_value(lora.unet)
    return f"<lora:{_lora_name(lora)}:{te}>" if te == unet else f"<lora:{_lora_name(lora)}:{te}:{unet}>"
