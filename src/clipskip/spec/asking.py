"""A record in a Reader to a Request, for settings lines and every tool's JSON alike."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from clipskip.errors import SpecError
from clipskip.spec.encoder_skips import PhraseSkip, Skip, parse_skip
from clipskip.spec.family import Family
from clipskip.spec.lora import LoraRef
from clipskip.spec.numbering import Dialect
from clipskip.spec.passes import Hires, Mask, Start
from clipskip.spec.record_reader import Reader, Said, disagree, one_line, plain_key
from clipskip.spec.reforge import read_dynamic, reforge_calls
from clipskip.spec.render import Request
from clipskip.spec.resources import Files, leave_hashes, read_files, read_modules, stem
from clipskip.spec.sampler_names import AUTOMATIC, comfy_text_names, other_names, takes_no_schedule
from clipskip.spec.skip import ClipSkip
from clipskip.spec.skip_schedule import MOST_CALLS
from clipskip.spec.table import HIRES, MASK, PICTURE, START

Read = TypeVar("Read")
SPECIAL = frozenset({"sampler", "scheduler", "width", "height"})
"""Rows of the table that records write in ways of their own."""
SAME = frozenset({"usesamesampler", "usesamescheduler", "usesamecheckpoint"})
"""A1111's words for what a second pass has from the first."""
HIRES_SIGNS = ("hires_scale", "hires_upscaler", "hires_width")
"""A text with one of these and a denoising strength describes a picture with a second pass (A1111 1.10
modules/ui.py)."""
API_STRENGTH = 0.75
"""The denoising strength that A1111's API uses where a body leaves it out."""
NO_VAE = frozenset({"automatic", "none", "default", "defaultmodel"})
"""Words that some tools write where the checkpoint's own VAE was used."""
SWITCHES = {"true": "on", "yes": "on", "false": "off", "no": "off"}
FAMILIES = {"sd-1": Family.SD1, "sd-2": Family.SD2, "sdxl": Family.SDXL}
"""InvokeAI's `base`."""

_HASH = re.compile(r"[\w:+-]{1,80}")
"""What may be a hash in some tool; what is none here finds no file, and a path is none."""
_SIZE = re.compile(r"\(?\s*([0-9]{1,9})\s*[xX×,*]\s*([0-9]{1,9})\s*\)?(?:\s*<.*)?", re.DOTALL)
_TITLE = re.compile(r"(.+?)(?:\s*\[([0-9a-fA-F]{8,64})\])?", re.DOTALL)
"""A model in the form of A1111's menus: "foxmix.safetensors [0123456789]"."""

Names = Callable[[str, str], tuple[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The conventions of one tool's records: its defaults for what they leave out, and its spellings."""

    label: str
    sampler: str = "Euler a"
    """Empty where its records always name a sampler."""
    steps: int = 20
    px: int | None = None
    """Width and height; None means the model's own."""
    names: Names = other_names
    """Returns A1111's names of its sampler and schedule type."""
    scheduler_is_sampler: bool = False
    """Whether the record's scheduler is the sampler (InvokeAI)."""
    rng: str = "CPU"
    ensd: int = 0
    emphasis: str = "Original"
    words: Callable[[str], str] = str
    """Returns its prompts as A1111 writes them."""
    clip_skip: ClipSkip | None = None
    dialect: Dialect = Dialect.A1111
    """How it counts Clip Skip."""
    counted_by: Dialect | None = None
    """The same where it depends on the model's family, which only its file tells."""
    switch: bool = False
    """Whether its Clip Skip is true or false (Easy Diffusion)."""


A1111 = Source(label="A1111", rng="GPU", clip_skip=ClipSkip(1))
"""A1111's defaults for settings that a text leaves out (1.10 modules/infotext_utils.py)."""

COMFY_TEXT = Source(label="ComfyUI's settings text", names=comfy_text_names, emphasis="ComfyUI")
"""What nodes of ComfyUI write beside a graph, or in its place: A1111's lines about a picture of ComfyUI's."""


def read_request(reader: Reader, source: Source, *, prompt: str | None = None, negative: str = "") -> Request:
    """Return the Request in a record; what nothing here uses is in its `unused`. A settings text has its prompts
    apart."""
    if prompt is None:
        prompt, negative = (source.words(reader.text(side)) for side in ("prompt", "negative_prompt"))
    left_out = tuple(_left_out(reader, source))
    model, digits, family = _read_model(reader)
    files = read_files(reader, prompt, negative)
    files.loras += _comfy_loras(reader)
    sampler, schedule = _sampler(reader, source)
    width, height = read_size(reader)
    negative_skip = reader.take("negative_clip_skip")
    asked = _rows(reader, source)
    if model and files.model and stem(files.model) != model:
        reader.leave("resources model", files.model)
    vae = _named_vae(reader)
    hires = _read_checked(_read_hires, reader)
    _check_hires_model(reader, model or files.model)
    leave_hashes(reader, files, f"{prompt} {(hires and hires.prompt) or ''}")
    refiner, refiner_hash = _refiner(reader)
    return Request(
        **asked,
        prompt=prompt + _hypernet(reader),
        negative_prompt=negative,
        model=model or files.model,
        model_hash=_checked_hash(reader, "model hash", _same_hash(reader, digits, files), named=model or files.model),
        vae=_vae(reader, vae) if vae else None,
        vae_hash=_checked_hash(reader, "VAE hash", reader.name("vae_hash"), named=vae),
        refiner=refiner,
        refiner_hash=refiner_hash,
        loras=tuple(files.loras),
        clip_skip=_read_clip_skip(reader, source, family, calls=reforge_calls(sampler, asked.get("steps", MOST_CALLS))),
        counted_by=source.counted_by,
        negative_clip_skip=_read_skip(negative_skip, A1111, None) if negative_skip else None,
        phrase_skips=_phrases(reader),
        sampler=sampler,
        scheduler=schedule,
        width=width or source.px,
        height=height or source.px,
        hires=hires,
        start=_read_checked(_read_start, reader),
        lora_hashes=tuple(files.lora_hashes.items()),
        embedding_hashes=tuple(files.embedding_hashes.items()),
        unused=tuple(reader.left()),
        left_out=(*left_out, *(() if model or digits or files.model or files.model_hash else ("model",))),
    )


def _rows(reader: Reader, source: Source) -> dict[str, Any]:  # Any: a Request's fields
    """Return the settings that stand in one row each, or what the source means where it leaves them out."""
    asked: dict[str, Any] = {
        "steps": source.steps,
        "rng": source.rng,
        "ensd": source.ensd,
        "emphasis": source.emphasis,
    }
    asked |= reader.rows(row for row in PICTURE if row.name not in SPECIAL)
    asked["rng"] = {"cpu": "CPU", "cuda": "GPU", "gpu": "GPU"}.get(asked["rng"], asked["rng"])
    return asked


def _comfy_loras(reader: Reader) -> list[LoraRef]:
    """Return the LoRAs that a ComfyUI node lists beside the prompt."""
    said = reader.take("comfy_loras")
    parsed = [LoraRef.parse(part) for part in said.text().split(",")] if said else []
    return [replace(lora, name=stem(lora.name)) for lora in parsed]


def _named_vae(reader: Reader) -> Said | None:
    """Return the VAE that is named, as A1111 or as Forge names it."""
    vae, module = reader.take("vae"), read_modules(reader)
    if vae and module and stem(str(vae.value)) != stem(str(module.value)):
        raise disagree(vae, module, field="vae")
    return vae or module


def _left_out(reader: Reader, source: Source) -> Iterator[str]:
    """Yield the settings without which no picture is the same, where the record does not say them."""
    said = {name: reader.has(key) for name, key in (("seed", "seed"), ("steps", "steps"), ("CFG scale", "cfg_scale"))}
    said["sampler"] = reader.has("scheduler" if source.scheduler_is_sampler else "sampler")
    said["size"] = reader.has("size") or (reader.has("width") and reader.has("height"))
    yield from (name for name, there in said.items() if not there)


def _read_checked(read: Callable[[Reader], Read], reader: Reader) -> Read:
    try:
        return read(reader)
    except SpecError as error:
        told = str(error).removeprefix("settings: ")
        raise type(error)(f"settings: {told}", field=error.field) from None


def _read_hires(reader: Reader) -> Hires | None:
    """Return the second pass that a text describes or that a body of A1111's API switches on."""
    switch = reader.take("enable_hires")
    noted = reader.has("hires_denoising_strength") and any(reader.has(sign) for sign in HIRES_SIGNS)
    if switch is not None and not isinstance(switch.value, bool):
        switch.nonsense("true or false")
    if switch is not None and not switch.value:
        for said in (switch, *reader.all("hires_model")):
            reader.leave(said.key, said.value)
        return None
    if switch is None and not noted:
        return None
    unsaid = {} if switch is None else {"strength": API_STRENGTH}
    rows = unsaid | reader.rows(HIRES)
    rows |= {name: None for name in ("sampler", "scheduler") if plain_key(rows.get(name, "")) in SAME}
    rows |= {"upscaler": stem(rows["upscaler"])} if "upscaler" in rows else {}
    digits = _checked_hash(reader, "Hires upscaler hash", reader.name("hires_upscaler_hash"), named=True)
    return Hires(**rows, upscaler_hash=digits or "")


def _read_start(reader: Reader) -> Start | None:
    """Return the start picture that a text describes."""
    digits = reader.name("init_hash")
    if digits is None:
        return None
    mask_digits = reader.name("mask_hash")
    unsaid = {row.name: row.absent for row in MASK if row.absent is not None}
    mask = Mask(**unsaid | reader.rows(MASK), hash=mask_digits) if mask_digits else None
    return Start(**reader.rows(START), hash=digits, mask=mask)


def _check_hires_model(reader: Reader, model: str | None) -> None:
    """SpecError for a second pass that another checkpoint draws."""
    said = reader.take("hires_model")
    if said is None or plain_key(said.name()) in SAME:
        return
    title = _TITLE.fullmatch(said.name().strip())
    if title is None or stem(title[1]) != model:
        raise SpecError(
            f"settings: {said.key[:60]} {said.name()[:60]!r} draws the second pass with another model, which cannot be repeated; "
            "leave it out to draw both with one",
            field="model",
        )


def _refiner(reader: Reader) -> tuple[str | None, str | None]:
    """Return name and hash of the refiner, which A1111 writes as name [hash]."""
    said = reader.take("refiner")
    if said is not None and isinstance(said.value, dict):
        name, inner = _read_file_name(reader, said)
        return stem(name), inner.get("hash")
    if said is None or plain_key(said.name()) in NO_VAE:
        return None, None
    title = _TITLE.fullmatch(said.name().strip()) or said.nonsense("a name")
    return stem(title[1]), title[2] and title[2].lower()


def _vae(reader: Reader, said: Said) -> str | None:
    """Return a VAE's name; None for the words that mean the checkpoint's own."""
    name = _read_file_name(reader, said)[0] if isinstance(said.value, dict) else said.name()
    return None if plain_key(name) in NO_VAE else stem(name)


def _read_model(reader: Reader) -> tuple[str | None, str | None, str | None]:
    """Return the checkpoint's name and hash, and InvokeAI's word for its family."""
    said = reader.take("model")
    if said is None or not isinstance(said.value, dict):
        title = _TITLE.fullmatch(said.name()) if said else None
        digits = reader.name("model_hash")
        return (stem(title[1]) if title else None), (digits or title[2] if title else digits), None
    name, inner = _read_file_name(reader, said)
    family, digits = inner.get("base", inner.get("base_model")), inner.get("hash")
    return stem(name), digits or reader.name("model_hash"), family


def _read_file_name(reader: Reader, said: Said) -> tuple[str, dict[str, str]]:
    """Return a file's name from an object, and what else of it is used: its family, and a valid hash."""
    inner = dict(said.value)
    first = next((key for key in ("name", "model_name", "modelFileName", "label") if inner.get(key)), None)
    if first is None:
        said.nonsense("a file with a name")
    name = Said(f"{said.key} {first}", inner.pop(first)).name()
    known = {key: inner.pop(key) for key in ("base", "base_model") if isinstance(inner.get(key), str)}
    if isinstance(inner.get("hash"), str) and re.fullmatch("[0-9a-fA-F]{8,64}", inner["hash"]):
        known["hash"] = inner.pop("hash")
    for key, value in inner.items():
        reader.leave(f"{said.key} {key}", value)
    return name, known


def _checked_hash(reader: Reader, key: str, digits: str | None, *, named: object) -> str | None:
    """Return a file's hash; what is none is left over where the file is named too, and else an error: never a path."""
    if digits is None or _HASH.fullmatch(digits):
        return digits
    if not named and plain_key(digits) not in NO_VAE:
        Said(key, digits).nonsense("a hash")
    reader.leave(key, digits)
    return None


def _same_hash(reader: Reader, digits: str | None, files: Files) -> str | None:
    """Return the model's hash; a different one in a list is left over."""
    if digits and files.model_hash and not _same_name(digits, files.model_hash):
        reader.leave("hashes model", files.model_hash)
    return digits or files.model_hash


def _same_name(a: str, b: str) -> bool:
    short, long = sorted((a.lower(), b.lower()), key=len)
    return long.startswith(short)


def _sampler(reader: Reader, source: Source) -> tuple[str, str]:
    """Return sampler and schedule type under A1111's names."""
    said = None if source.scheduler_is_sampler else reader.take("sampler")
    schedule = reader.take("scheduler")
    if source.scheduler_is_sampler:
        said, schedule = schedule or reader.take("sampler"), None
    if said is None and not source.sampler:
        raise SpecError(
            f"this {source.label} record names no sampler; paste its settings with one, or give the picture itself",
            field="sampler",
        )
    name, kind = source.names(
        said.name().strip() if said else source.sampler, schedule.name().strip() if schedule else AUTOMATIC
    )
    begun = reader.has("denoising_strength") or reader.has("hires_denoising_strength")
    if takes_no_schedule(name, begun=begun) and kind != AUTOMATIC:
        reader.leave(schedule.key if schedule else "Schedule type", kind)
        kind = AUTOMATIC
    return name, kind


def read_size(reader: Reader) -> tuple[int | None, int | None]:
    """Return width and height in pixels."""
    size, sides = reader.take("size"), (reader.take("width"), reader.take("height"))
    if size is None:
        width, height = (side.whole() if side else None for side in sides)
        return width, height
    match = _SIZE.fullmatch(str(size.value).strip()) if isinstance(size.value, str) else None
    if match is None:
        size.nonsense("width x height, as in 512x768")
    for side, pixels in zip(sides, match.groups(), strict=True):
        if side and side.whole() != int(pixels):
            raise disagree(size, side, field=plain_key(side.key))
    return int(match[1]), int(match[2])


def _read_clip_skip(reader: Reader, source: Source, family: str | None, *, calls: int) -> Skip | None:
    """Return the Clip Skip in any spelling; SpecError where two of them disagree."""
    said = reader.all("clip_skip")
    skips = {entry.key: _read_skip(entry, source, family) for entry in said}
    written = {entry.key: one_line(entry.value) for entry in said}
    exacts = [(exact, _read_skip(exact, A1111, None)) for exact in reader.all("exact_clip_skip")]
    for exact, skip in (*exacts, *_dynamic(reader, calls)):
        near = [ClipSkip(skip.first.shallow)]
        if isinstance(skip, ClipSkip) and skip.fraction:
            near.append(ClipSkip(skip.shallow + 1))  # what A1111 itself is set to while our script mixes the two
        skips = {name: skip if whole in near else whole for name, whole in skips.items()}
        skips[exact.key], written[exact.key] = skip, one_line(exact.value)
    if len(set(skips.values())) > 1:
        told = " and ".join(f"{name} {written[name][:40]}" for name in skips)
        raise SpecError(f"settings: {told} disagree; leave one of them", field="clip_skip")
    if skips or source.dialect is Dialect.A1111:
        return next(iter(skips.values()), source.clip_skip)
    return ClipSkip.from_dialect(0, source.dialect, family=_family(family)) if family in (None, *FAMILIES) else None


def _dynamic(reader: Reader, calls: int) -> Iterator[tuple[Said, Skip]]:
    """Yield reForge's Clip Skip for each step: values or "4->2", with the value where that ramp starts."""
    noted, start = reader.take("dynamic_clip_skip"), reader.take("dynamic_clip_skip_start")
    said = noted or (start and Said(start.key, f"{start.whole()}->2"))
    if said:
        try:
            yield said, read_dynamic(said.text(), calls=calls)
        except SpecError as error:
            raise type(error)(f"settings: {said.key[:60]}: {error}", field="clip_skip") from None


def _read_skip(said: Said, source: Source, family: str | None) -> Skip:
    """Return a Clip Skip from the tool's number, a schedule of ours, or Easy Diffusion's switch."""
    value = said.value
    plainly = isinstance(value, int | float | str) and (source.switch or not isinstance(value, bool))
    if not plainly:
        raise SpecError(
            f"settings: {said.key[:60]} {one_line(value)[:40]} is not a number; use 1 (the last layer) or more",
            field="clip_skip",
        )
    text = str(value).strip()
    try:
        if plain_key(said.key) == "clipstopatlayer":
            return ClipSkip.from_dialect(said.whole(), Dialect.COMFYUI)
        if source.dialect is not Dialect.A1111:
            return ClipSkip.from_dialect(said.whole(), source.dialect, family=_family(family))
        if text.lower() in SWITCHES:
            return ClipSkip.from_dialect(SWITCHES[text.lower()], Dialect.EASYDIFFUSION)
        return parse_skip(text)
    except SpecError as error:
        told = str(error).removeprefix("settings: ")
        raise type(error)(f"settings: {said.key[:60]} {text[:40]}: {told}", field="clip_skip") from None


def _family(name: str | None) -> Family:
    if name is not None and name not in FAMILIES:
        raise SpecError(
            f"models of base {name[:40]!r} have no Clip Skip here; use a model of {', '.join(FAMILIES)}", field="model"
        )
    return FAMILIES.get(name or "", Family.SD1)


def _phrases(reader: Reader) -> tuple[PhraseSkip, ...]:
    said = reader.take("phrase_skips")
    lines = said.text().split("\n") if said else []
    try:
        return tuple(PhraseSkip.parse(line) for line in lines if line.strip())
    except SpecError as error:
        raise type(error)(f"settings: Phrase clip skips: {error}", field="phrase_skip") from None


def _hypernet(reader: Reader) -> str:
    """Return a hypernetwork as a tag of the prompt, as in A1111."""
    name, strength = reader.name("hypernet"), reader.take("hypernet_strength")
    return f"<hypernet:{name}:{strength.number() if strength else 1.0:g}>" if name else ""
