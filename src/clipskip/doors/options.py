"""Typed options to a Request: the settings block first, options on top."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

import typer

from clipskip.errors import NotFound, SpecError
from clipskip.spec import (
    MASK_EDGES,
    Axis,
    LoraRef,
    Mask,
    PhraseSkip,
    Request,
    Start,
    check_request,
    parse_link,
    parse_skip,
    request_from_texts,
    with_values,
)

Prompt = Annotated[str | None, typer.Argument(help="The prompt, in A1111's language. Not needed with --settings.")]
Settings = Annotated[
    str | None,
    typer.Option(
        help="Settings to repeat: a text file (the guide's or A1111's block), a picture that contains them, or - for standard input."
    ),
]
Negative = Annotated[str | None, typer.Option("--negative", help="The negative prompt.")]
ModelName = Annotated[
    str | None,
    typer.Option("--model", "-m", help="Checkpoint by name, path or hash; the embedded starter by default."),
]
VaeName = Annotated[
    str | None,
    typer.Option(
        "--vae",
        help="VAE by name, path or hash; None is the model's own. By default X.vae.safetensors beside checkpoint X, else the model's own.",
    ),
]
Loras = Annotated[
    list[str] | None,
    typer.Option("--lora", help="LoRA as name, name:0.8 or name:text_encoder:unet. Repeatable."),
]
Prediction = Annotated[
    str | None, typer.Option(help="What the model predicts; by default, what its file says. [epsilon or v]")
]
Seed = Annotated[int | None, typer.Option(help="Seed; -1 draws one.")]
NegativeSkip = Annotated[
    str | None,
    typer.Option("--negative-clip-skip", help="Clip Skip of the negative prompt; by default the prompt's."),
]
PhraseSkips = Annotated[
    list[str] | None,
    typer.Option("--phrase-skip", help='Clip Skip of one phrase of the prompt: "red frog=4". Repeatable.'),
]
RefinerName = Annotated[
    str | None,
    typer.Option("--refiner", help="Checkpoint that finishes the picture (SDXL's refiner), by name, path or hash."),
]
Encoder = Annotated[
    str | None, typer.Option(help="Read only one of SDXL's text encoders: L (CLIP-L) or G (OpenCLIP bigG).")
]


PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


def _folder(text: str) -> Path:
    """Parse a typed folder; an empty text is refused, because it would mean the current folder, and a picture's name too."""
    if not text.strip():
        raise typer.BadParameter("it is empty; name a folder, or . for the current one")
    path = Path(text)
    if path.suffix.lower() in PICTURE_SUFFIXES and not path.is_dir():
        raise typer.BadParameter(
            f"{text} is the name of a picture; name a folder, pictures are named by their settings"
        )
    return path


Out = typer.Option("--out", parser=_folder, metavar="PATH", help="Folder for the pictures; by default clipskip-out.")
Folders = Annotated[
    list[Path] | None,
    typer.Option("--models-folder", help="Folder with your models, also set by CLIPSKIP_MODELS. Repeatable."),
]
Fetch = Annotated[
    bool,
    typer.Option(
        "--fetch", help="Also fetch files given by name or hash from Civitai or Hugging Face; links are always fetched."
    ),
]
Yes = Annotated[
    bool,
    typer.Option(
        "--yes", help="Draw without asking, also where files differ from those in the settings or the size is doubtful."
    ),
]
Pickle = Annotated[
    bool, typer.Option("--allow-pickle", help="Also read .ckpt and .pt files (weights only, never code).")
]
Init = Annotated[
    Path | None, typer.Option("--init", help="Picture to start from, instead of noise alone (A1111's img2img).")
]
MaskFile = Annotated[
    Path | None,
    typer.Option("--mask", help="With --init: redraw only where this picture is white (A1111's inpainting)."),
]
Clip = Annotated[
    str | None,
    typer.Option("--clip", help="CLIP model that scores pictures: a folder, or a name on Hugging Face."),
]
Columns = Annotated[
    str,
    typer.Option(
        "--clip-skip",
        help="Clip Skips, one column each: 1-5, 1,2,4, 1-3:0.5, 1-11 (+2), 1-5 [3] or 1,[1:2:0.5],2. 1 is the last layer.",
    ),
]
Skips = Annotated[
    str,
    typer.Option(
        "--clip-skip", help="Clip Skips to write: 1-12, 1,2,4, 1-3:0.5, 1-11 (+2) or 1-5 [3]. 1 is the last layer."
    ),
]
Skip = Annotated[
    str | None,
    typer.Option(
        "--clip-skip", help="Clip Skip: 1 is the last layer, [1:2:0.5] changes half-way. By default the model's own."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Typed = dict[str, Any]
"""Settings of the table that were typed, by key."""


def read_settings(source: str) -> Request:
    """Read the Request in a settings block: a text file or a picture, by its path or on standard input."""
    from clipskip.image.metadata import infotexts_of, read_content, read_infotexts  # Pillow is not loaded for --help

    if source == "-":
        name = "standard input"
        return request_from_texts(infotexts_of(read_content(sys.stdin.buffer, name), name))
    return request_from_texts(read_infotexts(Path(source).expanduser()))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Given:
    """Pictures that were given to begin at."""

    init: str = ""
    """Hash of the start picture's pixels; the next is the mask's."""
    mask: str = ""
    soft_mask: str = ""
    """The mask with its full transparency, for a soft edge."""
    pictures: Mapping[str, Any] = field(default_factory=dict)  # Any: NumPy is not loaded for --help
    """Pixels by hash."""


NOTHING = Given()


def read_given(init: Path | None, mask: Path | None) -> Given:
    """Read the pictures of --init and --mask."""
    if init is None:
        if mask is not None:
            raise SpecError("a mask needs a picture to begin at; give that with --init", field="mask")
        return Given()
    from clipskip.image import hash_pixels, read_mask, read_pixels  # Pillow is not loaded for --help

    first = read_pixels(_content(init, "--init"), field="init")
    if mask is None:
        return Given(init=hash_pixels(first), pictures={hash_pixels(first): first})
    hard, soft = (read_mask(_content(mask, "--mask"), field="mask", soft=soft) for soft in (False, True))
    pictures = {hash_pixels(pixels): pixels for pixels in (first, hard, soft)}
    return Given(init=hash_pixels(first), mask=hash_pixels(hard), soft_mask=hash_pixels(soft), pictures=pictures)


def _content(path: Path, option: str) -> bytes:
    try:
        return path.expanduser().read_bytes()
    except OSError as error:
        raise NotFound(
            f"{option} {path}: {error.strerror or error}; give a PNG, JPEG or WebP", field=option[2:]
        ) from None


def _begun(asked: Request, given: Given, *, edge: str | None) -> Request:
    """Return the Request with the given pictures, and with the settings' way of beginning at them; `edge` is the typed
    one."""
    if not given.init:
        return asked
    start = replace(asked.start or Start(hash=given.init), hash=given.init)
    mask = start.mask or Mask(hash=given.mask)
    digits = given.mask if (edge or mask.edge) == MASK_EDGES[0] else given.soft_mask
    return replace(asked, start=replace(start, mask=replace(mask, hash=digits) if digits else None))


def build_request(
    prompt: str | None,
    *,
    settings: str | None,
    given: Given = NOTHING,
    loras: list[str] | None = None,
    phrase_skips: list[str] | None = None,
    typed: Mapping[str, Any] = MappingProxyType({}),
    **others: Any,
) -> Request:
    """Build the Request: the settings block's, with every typed option replacing its own.

    `typed` has settings of the table by key, `others` fields of the Request.
    """
    asked = read_settings(settings) if settings else None
    if asked is None:
        if prompt is None:
            raise SpecError(
                'give a prompt, as in: clipskip sweep "best quality, swamp", or --settings FILE', field="prompt"
            )
        asked = Request(prompt=prompt)
    changes = {name: value for name, value in others.items() if value is not None}
    for name, counted_by in (("clip_skip", "counted_by"), ("negative_clip_skip", "negative_counted_by")):
        if name in changes:
            changes[counted_by] = None
    for name in ("clip_skip", "negative_clip_skip"):
        if name in changes:
            changes[name] = parse_skip(changes[name])
    if prompt is not None:
        changes["prompt"] = prompt
    for name in ("model", "vae", "refiner"):
        if not str(changes.get(name, name)).strip():
            raise SpecError(f"--{name} is empty; name a file, or leave --{name} out", field=name)
    for name in {"model", "vae", "refiner"} & changes.keys():
        changes[f"{name}_hash"] = None
    if loras:
        changes["loras"] = asked.loras + tuple(LoraRef.parse(text) for text in loras)
    if phrase_skips:
        changes["phrase_skips"] = with_phrases(asked.phrase_skips, phrase_skips)
    request = with_values(_begun(replace(asked, **changes), given, edge=typed.get("mask_edge")), typed)
    check_request(request)
    return request


def build_axes(typed: list[str] | None, seeds: int | None, *, seed: int) -> tuple[Axis, ...]:
    """Return the typed axes; `seeds` adds one that counts up from the sweep's seed."""
    axes = tuple(Axis.parse(text) for text in typed or ())
    if seeds is None:
        return axes
    if seed == -1:
        raise SpecError("--seeds counts up from a seed; give one with --seed", field="seed")
    return (*axes, Axis.parse(f"seed={seed}-{seed + seeds - 1}"))


def with_phrases(settings: tuple[PhraseSkip, ...], typed: list[str]) -> tuple[PhraseSkip, ...]:
    """Return the phrases of the settings and those that were typed, which have precedence."""
    typed_phrases = tuple(PhraseSkip.parse(text) for text in typed)
    return (*(old for old in settings if old.phrase not in {new.phrase for new in typed_phrases}), *typed_phrases)


def with_links_fetched(request: Request, folders: list[Path] | None, *, fetch: bool, allow_pickle: bool) -> Request:
    """Return the request with the files of its links, and with `fetch` those of its names and hashes, fetched if need
    be."""
    if not fetch and not any(
        name and parse_link(name)
        for name in (request.model, request.refiner, request.vae, *(ref.name for ref in request.loras))
    ):
        return request
    from clipskip.doors.fetching import with_fetched

    return with_fetched(request, folders=folders or [], may_fetch=fetch, allow_pickle=allow_pickle)
