"""Pictures and their settings: writing a PNG with its infotext, and reading the settings of any tool's picture."""

import contextlib
import errno
import html
import io
import json
import os
import re
import secrets
import shutil
import stat
import threading
import warnings
from collections.abc import Iterator, Mapping
from enum import Enum
from importlib.util import find_spec
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from clipskip.errors import ClipskipError, DamagedFile, FileError, NotFound, OutputError, SpecError, WrongKind
from clipskip.image.hidden import read_hidden

AVIF = ("AVIF",) if find_spec("PIL.AvifImagePlugin") else ()  # Pillow has it from 11.3 on
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", *AVIF)
NAMED_PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".avif")
EXIF_FOLDER, USER_COMMENT = 0x8769, 0x9286
GRAPH_TAGS = (0x0110, 0x010F)
"""EXIF's model and make, where nodes of ComfyUI put their graph: prompt:{...}, or Prompt: {...}."""
_DRAWN_SEED = re.compile(r'"seed"\s*:\s*"?-1\b')
XMP, MOCHI = "XML:com.adobe.xmp", "Include in Image: "
MOST_BYTES, MOST_TEXT = 512 * 2**20, 10 * 2**20
MOST_PIXELS = 100_000_000
"""The most pixels of a picture that is opened: its file is checked to the end, which decodes it."""
MOST_LETTERS = 2_000_000
"""The most characters of settings in a picture; ComfyUI's largest graphs take some hundred thousand."""
TEXT_KEYS = ("parameters", "invokeai_metadata", "sd-metadata", "Dream", "generation_data", "prompt")
"""PNG text chunks by tool: A1111 and most others; InvokeAI, new and old; TensorArt, which adds ComfyUI's; ComfyUI."""
_NO_SETTINGS = re.compile(
    r"\s*(?:screenshot|(?:created with|creator:|file written by|lead technologies|lavc|optimized|compressed|software:|applemark)[^\n]*)\s*",
    re.IGNORECASE,
)
"""Comments of screenshots, editors and encoders, in one line, which are no prompts."""
EASY_DIFFUSION = ("use_stable_diffusion_model", "Stable Diffusion model")
"""Easy Diffusion writes a chunk for each setting, one of these among them."""


class PictureFormat(Enum):
    """The formats of picture files."""

    PNG = "png"
    JPEG = "jpg"
    WEBP = "webp"

    @property
    def suffix(self) -> str:
        """The file name's ending."""
        return f".{self.value}"


_LINKED_SIZE = re.compile(r'"(?:empty_latent_)?(?:width|height)"\s*:\s*\[')
"""A width or height in a graph that comes from another node."""
_DECODING = threading.Lock()
"""Pictures are decoded one at a time: several of the largest at once would take several times the memory."""


def write_png(path: Path, pixels: NDArray[np.uint8], infotext: str) -> None:
    """Write pixels [height, width, 3] with their settings, whole or not at all, with the permissions of the umask."""
    write_bytes(path, png_bytes(pixels, infotext))


def png_bytes(pixels: NDArray[np.uint8], infotext: str) -> bytes:
    """Return pixels [height, width, 3] with their settings as a PNG.

    As in A1111 the chunk is tEXt where the text is Latin-1, else iTXt, and where its Latin-1 would be read as UTF-8.
    """
    stored = io.BytesIO()
    info = PngImagePlugin.PngInfo()
    add = info.add_text if _chunk_text(infotext) == infotext else info.add_itxt
    try:
        add("parameters", infotext)
    except UnicodeEncodeError as error:
        character = ascii(infotext[error.start : error.start + 1])
        raise SpecError(
            f"the settings contain {character}, half of a surrogate pair; type the text again", field="prompt"
        ) from None
    Image.fromarray(pixels).save(stored, "PNG", pnginfo=info)
    return stored.getvalue()


def picture_bytes(
    pixels: NDArray[np.uint8], infotext: str, *, format: PictureFormat, quality: int = 80, lossless: bool = False
) -> bytes:
    """Return pixels [height, width, 3] with their settings as a file of this format.

    JPEG and WebP carry them where A1111 has them: in EXIF's UserComment, as UTF-16 with the big end first.
    """
    if format is PictureFormat.PNG:
        return png_bytes(pixels, infotext)
    exif = Image.Exif()
    exif.get_ifd(EXIF_FOLDER)[USER_COMMENT] = b"UNICODE\0" + infotext.encode("utf-16-be", "replace")
    stored = io.BytesIO()
    picture = Image.fromarray(pixels)
    if format is PictureFormat.JPEG:
        picture.save(stored, "JPEG", exif=exif, quality=quality)
    else:
        picture.save(stored, "WEBP", exif=exif, quality=quality, lossless=lossless)
    return stored.getvalue()


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file through a temporary one beside it, so that no reader sees half of it."""
    partial = path.with_name(f".{secrets.token_hex(6)}.partial")
    try:
        try:
            with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
        _sync_folder(path.parent)
    except OSError as error:
        raise _cannot_write(path, error, len(content)) from None


def _sync_folder(folder: Path) -> None:
    """Make the new name last through a power cut; where a folder cannot be synced, the file itself has been."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _cannot_write(path: Path, error: OSError, size: int) -> OutputError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        free = shutil.disk_usage(path.parent).free
        return OutputError(
            f"{path} needs {size:,} bytes, and {free:,} are free; make room and run the same command again", field="out"
        )
    return OutputError(f"cannot write {path}: {error.strerror}; choose another folder with --out", field="out")


def read_infotext(path: Path) -> str:
    """Return the settings in a PNG, JPEG, WebP or AVIF as its tool wrote them, or a text file's text.

    NovelAI's and Easy Diffusion's come in several pieces, which are joined into one JSON record. Raises NotFound,
    FileError or WrongKind for a file without settings.
    """
    return read_infotexts(path)[0]


def read_infotexts(path: Path) -> tuple[str, ...]:
    """Return the settings as `read_infotext` does, followed by any other settings in the picture."""
    path = Path(path)
    try:
        content = _read_bytes(path)
    except FileNotFoundError:
        raise NotFound(
            f"{path} does not exist; give a picture or a text file with settings", field="settings"
        ) from None
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror}", field="settings") from None
    return infotexts_of(content, path.name)


def infotext_of(content: bytes, name: str) -> str:
    """Return the settings in a file's content; its name is for messages."""
    return infotexts_of(content, name)[0]


def infotexts_of(content: bytes, name: str) -> tuple[str, ...]:
    """Return the settings in a file's content, followed by any other settings in the picture."""
    path = Path(name)
    if not content.strip():
        raise DamagedFile(f"{path.name} is empty; give a picture or a text file with settings", field="settings")
    if not _is_picture(content):
        plain = _read_text(path, content)
        if path.suffix.lower() in NAMED_PICTURES:
            raise WrongKind(
                f"{path.name} has the name of a picture but contains text; rename it to .txt if that is settings",
                field="settings",
            )
        return (plain,)
    texts = _read_picture(path, content)
    if not texts:
        raise WrongKind(
            f"{path.name} contains no settings: sites and editors often remove them; paste the settings into a text file",
            field="settings",
        )
    return texts


def picture_infotext(content: bytes, name: str) -> str | None:
    """Return the settings of a picture's content, or None where it has none; WrongKind for what is not a picture."""
    if not _is_picture(content):
        raise WrongKind(f"{name} is not a picture; give a PNG, JPEG or WebP", field="image")
    return next(iter(_read_picture(Path(name), content)), None)


def _read_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise WrongKind(
                f"{path.name} is not a regular file; give a picture or a text file with settings", field="settings"
            )
        return read_content(file, path.name)


def read_content(file: BinaryIO, name: str) -> bytes:
    """Read all of an open picture or text; WrongKind where it is too large for either."""
    start = file.read(16)
    most = MOST_BYTES if _is_picture(start) else MOST_TEXT
    content = start + file.read(most)
    if len(content) > most:
        raise WrongKind(
            f"{name} has more than {most:,} bytes, the most that are read; give a picture or a text file with settings",
            field="settings",
        )
    return content


def _is_picture(content: bytes) -> bool:
    start = content[:12]
    boxed = (start[:4] == b"RIFF" and start[8:] == b"WEBP") or start[4:] in (b"ftypavif", b"ftypavis")
    return boxed or start.startswith((b"\x89PNG", b"\xff\xd8\xff", b"GIF8"))


def _read_text(path: Path, content: bytes) -> str:
    wide = content.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        text = content.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError:
        raise WrongKind(
            f"{path.name} is neither a picture nor text; give a PNG, JPEG, WebP or a text file", field="settings"
        ) from None
    if text.lstrip().lower().startswith(("<svg", "<?xml", "<!doctype", "<html")):
        raise WrongKind(f"{path.name} is a web page or SVG, not settings; save the picture itself", field="settings")
    if "\0" in text:
        raise WrongKind(f"{path.name} is not a text file; give a PNG, JPEG, WebP or a text file", field="settings")
    return text


def _read_picture(path: Path, content: bytes) -> tuple[str, ...]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # Pillow's own limit, and broken EXIF in pictures that are read all the same
            with _DECODING, Image.open(io.BytesIO(content), formats=FORMATS) as picture:
                if picture.width * picture.height > MOST_PIXELS:
                    raise _too_large(path, f"{picture.width} x {picture.height}")
                picture.load()  # text may follow the pixels, and a file that was cut off is found
                return tuple(_bounded(path, text) for text in _settings_of(picture))
    except Image.DecompressionBombError:
        raise _too_large(path, "far too many") from None
    except ClipskipError:
        raise
    except Exception as error:  # whatever a decoder does with a hostile file, the user gets one line
        raise DamagedFile(
            f"{path.name} is a damaged picture ({why_unreadable(error)}); get another copy of it", field="settings"
        ) from None


def why_unreadable(error: Exception) -> str:
    """Return what a decoder said of a picture that it cannot read, in one line of at most 120 characters."""
    known = not isinstance(error, UnidentifiedImageError)  # whose own words show an address in memory
    reason = " ".join(str(error).split()) if known else "not a PNG, JPEG, WebP or AVIF"
    return (reason or type(error).__name__)[:120]


def _bounded(path: Path, text: str) -> str:
    """Return the text; WrongKind where it is longer than settings ever are, because every answer would repeat it."""
    if len(text) > MOST_LETTERS:
        raise WrongKind(
            f"{path.name} contains {len(text):,} characters of text; settings have at most {MOST_LETTERS:,}: give another picture",
            field="settings",
        )
    return text


def _too_large(path: Path, claimed: str) -> WrongKind:
    return WrongKind(
        f"{path.name} claims {claimed} pixels; pictures of more than {MOST_PIXELS:,} are not opened: "
        "paste the settings into a text file",
        field="settings",
    )


def _settings_of(picture: Image.Image) -> list[str]:
    """Return all settings in a picture. EXIF comes before PNG text, as in A1111 (modules/images.py
    read_info_from_image)."""
    chunks = {str(key): _chunk_text(value) for key, value in picture.info.items() if isinstance(value, str)}
    comment = picture.info.get("comment")
    comment = comment.decode("utf-8", "replace") if isinstance(comment, bytes) else str(comment or "")
    raw = [*_exif_texts(picture), *_chunk_texts(chunks, picture.size), comment]
    texts = [text for text in raw if text.strip("\0 \r\n\t") and not _NO_SETTINGS.fullmatch(text)]
    if not texts and (hidden := _hidden_text(picture)):
        texts = [hidden]
    return list(dict.fromkeys(texts))


def _chunk_text(chunk: str) -> str:
    """Return the text of a PNG's chunk: TensorArt and StabilityMatrix write UTF-8 into tEXt, which PNG reads as Latin-1."""
    try:
        return str(chunk) if isinstance(chunk, PngImagePlugin.iTXt) else chunk.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return chunk


def _hidden_text(picture: Image.Image) -> str | None:
    """Return the text in the pixels' lowest bits ("stealth PNG info"), where NovelAI writes all its chunks too."""
    hidden = read_hidden(picture) if picture.mode in ("RGB", "RGBA") else None
    if hidden is None or not hidden.lstrip().startswith("{"):
        return hidden
    try:
        record = json.loads(hidden)
    except (ValueError, RecursionError):
        return hidden
    texts = {key: value for key, value in record.items() if isinstance(value, str)} if isinstance(record, dict) else {}
    return next(_chunk_texts(texts, picture.size), hidden)


def _exif_texts(picture: Image.Image) -> Iterator[str]:
    exif = picture.getexif()
    for comment in (
        exif.get_ifd(EXIF_FOLDER).get(USER_COMMENT),
        exif.get(USER_COMMENT),
    ):  # Fooocus writes it outside the folder
        yield _user_comment(comment) if isinstance(comment, bytes) else str(comment or "")
    for tag in GRAPH_TAGS:
        text = exif.get(tag)
        if isinstance(text, str) and text[:7].lower() == "prompt:":
            yield _with_size(text[7:], picture.size)


def _chunk_texts(texts: Mapping[str, str], size: tuple[int, int]) -> Iterator[str]:
    if comment := _xmp(texts.get(XMP, ""), "exif:UserComment"):  # Draw Things
        yield comment
    for caption in (texts.get("Description", ""), _xmp(texts.get(XMP, ""), "dc:description")):
        if caption.startswith(MOCHI):
            yield caption
    if texts.get("Software") == "NovelAI" and "Comment" in texts:
        yield _novelai(texts, size)
    if any(key in texts for key in EASY_DIFFUSION):
        yield json.dumps(texts)
        return
    yield from (_with_graph(key, texts) for key in TEXT_KEYS if key in texts and key != "prompt")
    if "prompt" in texts:
        yield _with_size(texts["prompt"], size)
    elif "workflow" in texts:  # a picture of a graph on ComfyUI's page, saved with the graph
        yield texts["workflow"]


def _xmp(packet: str, name: str) -> str:
    """Return the first text of a property in a picture's XMP, or nothing."""
    at = packet.find(f"<{name}>")
    start = packet.find(">", packet.find("<rdf:li", at)) + 1 if at >= 0 else 0
    end = packet.find("</rdf:li>", start)
    return html.unescape(packet[start:end]).strip() if 0 < start <= end else ""


def _with_graph(key: str, texts: Mapping[str, str]) -> str:
    """Return a chunk's text; TensorArt's is joined with the graph beside it where only the graph has the sampler or the seed."""
    record, graph = texts[key].strip("\0 \r\n\t"), texts.get("prompt", "").strip("\0 \r\n\t")
    whole = all(text.startswith("{") and text.endswith("}") for text in (record, graph))
    told = "amplerName" in record and not _DRAWN_SEED.search(record)
    if key != "generation_data" or not whole or record == "{}" or told:
        return texts[key]
    return f'{record[:-1]}, "graph": {graph}}}'


def _with_size(text: str, size: tuple[int, int]) -> str:
    """Return ComfyUI's graph, with the picture's size added where the graph may not give it."""
    graph = text.strip("\0 \r\n\t")
    says_size = '"EmptyLatentImage"' in graph and "VAEEncode" not in graph and not _LINKED_SIZE.search(graph)
    has_size = '"class_type"' not in graph or says_size
    if has_size or not (graph.startswith("{") and graph.endswith("}")):
        return text
    return f'{{"prompt": {graph}, "size": "{size[0]}x{size[1]}"}}'


def _novelai(texts: Mapping[str, str], size: tuple[int, int]) -> str:
    """Return NovelAI's settings as one record: the prompt is in the description, the rest in a JSON comment.

    Where the record has no size, the picture's is taken, as in A1111 (modules/images.py).
    """
    beside = {key: text for key, text in texts.items() if key not in ("Comment", "Description", "Software")}
    record = beside | {"prompt": texts.get("Description", ""), "uc": ""} | json.loads(texts["Comment"])
    if not record.keys() & {"width", "height"}:
        record |= {"width": size[0], "height": size[1]}
    return json.dumps(record)


def _user_comment(comment: bytes) -> str:
    """Decode EXIF's UserComment, whose first eight bytes name its encoding (Exif 2.32, 4.6.5)."""
    kind, text = comment[:8], comment[8:]
    if kind == b"UNICODE\0":
        # A1111 writes big end first; others do not. Settings are mostly ASCII, whose high bytes are 0.
        little = text[1::2].count(0) > text[0::2].count(0)
        return (
            text.removeprefix(b"\xff\xfe" if little else b"\xfe\xff")
            .decode("utf-16-le" if little else "utf-16-be", "replace")
            .strip("\0")
        )
    if kind in (b"ASCII\0\0\0", b"\0" * 8):
        return text.decode("utf-8", "replace").strip("\0")
    return comment.decode("utf-8", "ignore").strip("\0")
