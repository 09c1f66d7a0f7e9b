"""Settings texts of every tool -> a Request; a Render -> the infotext that they all read."""

import math
import re
from collections.abc import Collection, Iterator, Mapping

from clipskip.errors import SpecError
from clipskip.spec.encoder_skips import EncoderSkips, PhraseSkip, Skip, parse_skip
from clipskip.spec.foreign import read_record
from clipskip.spec.infotext import Infotext, compose, hide_labels, parse_infotext
from clipskip.spec.numbering import Dialect
from clipskip.spec.render import FileRef, LoraRef, Render, Request
from clipskip.spec.schedule import SkipSchedule
from clipskip.spec.skip import ClipSkip

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
READ = frozenset(
    {
        "Steps", "Sampler", "CFG scale", "Seed", "Size-1", "Size-2", "Model hash", "Model", "ENSD", "Variation seed",
        "Variation seed strength", "Lora hashes", "TI hashes", "Version", "Hashes", "Hypernet", "Hypernet strength",
        NEGATIVE_SKIP, FRACTION, SCHEDULE, ENCODERS, PHRASES, *SKIP_FIELDS, *DEFAULTS,
    }
)  # fmt: skip
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
    fields = DEFAULTS | dict(infotext.fields)
    hypernet = (
        f"<hypernet:{fields['Hypernet']}:{fields.get('Hypernet strength', '1.0')}>" if "Hypernet" in fields else ""
    )
    return Infotext(
        prompt=infotext.prompt + hypernet,
        negative_prompt=infotext.negative_prompt,
        fields=fields,
        hashes=infotext.hashes,
    )


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
    request = Request(
        prompt=whole.prompt,
        negative_prompt=whole.negative_prompt,
        model=fields.get("Model"),
        model_hash=fields.get("Model hash"),
        clip_skip=_clip_skip(infotext.fields),
        negative_clip_skip=_skip(NEGATIVE_SKIP, fields[NEGATIVE_SKIP]) if NEGATIVE_SKIP in fields else None,
        phrase_skips=_phrases(fields),
        steps=_whole(fields, "Steps", 20),
        sampler=sampler,
        scheduler=DEFAULTS["Schedule type"] if idle else schedule,
        cfg_scale=_number(fields, "CFG scale", 7.0),
        seed=_whole(fields, "Seed", -1),
        width=_side(fields, 1),
        height=_side(fields, 2),
        emphasis=fields["Emphasis"],
        rng=fields["RNG"],
        ensd=_whole(fields, "ENSD", 0),
        variation_seed=_whole(fields, "Variation seed", 0),
        variation_strength=_number(fields, "Variation seed strength", 0.0),
        lora_hashes=tuple(dict(_lora_hashes(infotext)).items()),
        unused=tuple(_unused(infotext, idle)),
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


def _whole(fields: Mapping[str, str], name: str, default: int) -> int:
    text = fields.get(name, str(default)).strip()
    if not re.fullmatch(r"[-+]?[0-9]{1,20}", text):
        raise _nonsense(name, text, "a whole number")
    return int(text)


def _number(fields: Mapping[str, str], name: str, default: float) -> float:
    text = fields.get(name, str(default))
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise _nonsense(name, text, "a number")
    return value


def _side(fields: Mapping[str, str], side: int) -> int | None:
    """Width or height in pixels."""
    if "Size" in fields:
        raise _nonsense("Size", fields["Size"], "width x height, as in 512x768")
    return _whole(fields, f"Size-{side}", 0) if f"Size-{side}" in fields else None


def _nonsense(name: str, text: str, wanted: str) -> SpecError:
    return SpecError(f"settings: {name} {text[:40]!r} is not {wanted}", field=name.lower().replace(" ", "_"))


def _lora_hashes(infotext: Infotext) -> Iterator[tuple[str, str]]:
    """Names and hashes of LoRAs: those of the JSON, then those of "a: 0123, b: 4567"."""
    for key, digits in infotext.hashes.items():
        if key.startswith("lora:"):
            yield key.removeprefix("lora:"), digits
    for part in infotext.fields.get("Lora hashes", "").split(","):
        name, colon, digits = part.rpartition(":")
        if colon:
            yield name.strip(), digits.strip()


def _unused(infotext: Infotext, idle: Collection[str]) -> Iterator[tuple[str, str]]:
    """The fields that are not read, or say nothing here; of hashes in JSON, A1111's grammar makes some too."""
    pieces = {key.partition(":")[0] for key in infotext.hashes}
    for key, value in infotext.fields.items():
        if key in idle or (key not in READ and key not in pieces):
            yield key, value


def _check(request: Request) -> None:
    """SpecError for numbers that no picture can have."""
    try:
        Render(
            prompt="",
            model=FileRef(name=""),
            phrase_skips=request.phrase_skips,
            steps=request.steps,
            cfg_scale=request.cfg_scale,
            seed=0 if request.seed == -1 else request.seed,
            width=512 if request.width is None else request.width,
            height=512 if request.height is None else request.height,
            emphasis=request.emphasis,
            rng=request.rng,
            variation_strength=request.variation_strength,
        )
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
    skip, negative = render.clip_skip, render.negative_clip_skip
    yield "Steps", str(render.steps)
    yield "Sampler", render.sampler
    yield "Schedule type", render.scheduler
    yield "CFG scale", _exact(render.cfg_scale)
    yield "Seed", str(render.seed)
    yield from (("Size-1", str(render.width)), ("Size-2", str(render.height)))
    if render.model.hash:
        yield "Model hash", render.model.hash
    if name := writable(render.model.name):
        yield "Model", name
    if render.variation_strength:
        yield "Variation seed", str(render.variation_seed)
        yield "Variation seed strength", _exact(render.variation_strength)
    if render.start:
        yield "Denoising strength", _exact(render.start.strength)
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
    if render.ensd:
        yield "ENSD", str(render.ensd)
    if render.start:
        yield "Init image hash", render.start.hash
    if render.rng != DEFAULTS["RNG"]:
        yield "RNG", render.rng
    if render.emphasis != DEFAULTS["Emphasis"]:
        yield "Emphasis", render.emphasis
    if render.loras:
        yield "Lora hashes", ", ".join(f"{_lora_name(lora)}: {lora.hash}" for lora in render.loras)
    if render.embeddings:
        yield "TI hashes", ", ".join(f"{writable(ref.name)}: {ref.hash}" for ref in render.embeddings)
    yield "Version", f"clipskip {render.version}".strip()


def writable(name: str) -> str:
    """A file's name without what a tag, a pair or one of the readers would stumble over."""
    return UNWRITABLE.sub("", name).strip()


def _lora_name(lora: LoraRef) -> str:
    return writable(lora.name) or lora.hash


def _tag(lora: LoraRef) -> str:
    """The LoRA as A1111's prompts write it, its strengths to the last digit."""
    te, unet = _exact(lora.text_encoder), _exact(lora.unet)
    return f"<lora:{_lora_name(lora)}:{te}>" if te == unet else f"<lora:{_lora_name(lora)}:{te}:{unet}>"


def _exact(number: float) -> str:
    """The shortest text that reads back as the same number."""
    short = f"{number:g}"
    return short if float(short) == number else repr(float(number))
