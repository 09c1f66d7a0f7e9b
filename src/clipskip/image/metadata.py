"""Pictures and their settings: PNG out with its infotext, the settings of anybody's picture in."""

import contextlib
import errno
import html
import io
import json
import os
import secrets
import shutil
import stat
import threading
import warnings
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from clipskip.errors import ClipskipError, DamagedFile, FileError, NotFound, OutputError, SpecError, WrongKind
from clipskip.image.hidden import read_hidden

FORMATS = ("PNG", "JPEG", "WEBP", "GIF")
NAMED_PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif")
EXIF_FOLDER, USER_COMMENT = 0x8769, 0x9286
GRAPH_TAGS = (0x0110, 0x010F)
"""EXIF's model and make, where nodes of ComfyUI put their graph: prompt:{...}, or Prompt: {...}."""
XMP, MOCHI = "XML:com.adobe.xmp", "Include in Image: "
MOST_BYTES, MOST_TEXT = 512 * 2**20, 10 * 2**20
MOST_PIXELS = 100_000_000
"""Of a picture that is opened: its file is checked to the end, which decodes it."""
MOST_LETTERS = 2_000_000
"""Of settings in a picture: ComfyUI's largest graphs take some hundred thousand."""
TEXT_KEYS = ("parameters", "invokeai_metadata", "sd-metadata", "Dream", "generation_data", "prompt")
"""PNG text chunks by tool: A1111 and most; InvokeAI, new and old; TensorArt, which has ComfyUI's beside it; ComfyUI."""
EASY_DIFFUSION = ("use_stable_diffusion_model", "Stable Diffusion model")
"""One of these among the chunks: Easy Diffusion writes one for each setting."""


class PictureFormat(Enum):
    """What a picture's file can be."""

    PNG = "png"
    JPEG = "jpg"
    WEBP = "webp"

    @property
    def suffix(self) -> str:
        """The end of its name."""
        return f".{self.value}"


_DECODING = threading.Lock()
"""Pictures are decoded one at a time: several of the largest, sent at once, would take several times the memory."""


def write_png(path: Path, pixels: NDArray[np.uint8], infotext: str) -> None:
    """Writes pixels [height, width, 3] with their settings, whole or not at all, readable by whom the umask lets."""
    write_bytes(path, png_bytes(pixels, infotext))


def png_bytes(pixels: NDArray[np.uint8], infotext: str) -> bytes:
    """Pixels [height, width, 3] with their settings as a PNG.

    As in A1111 the chunk is tEXt where the text is Latin-1, else iTXt.
    """
    stored = io.BytesIO()
    info = PngImagePlugin.PngInfo()
    try:
        info.add_text("parameters", infotext)
    except UnicodeEncodeError as error:
        wrong = ascii(infotext[error.start : error.start + 1])
        raise SpecError(
            f"the settings hold {wrong}, which is no character; type the text again", field="prompt"
        ) from None
    Image.fromarray(pixels).save(stored, "PNG", pnginfo=info)
    return stored.getvalue()


def picture_bytes(
    pixels: NDArray[np.uint8], infotext: str, *, format: PictureFormat, quality: int = 80, lossless: bool = False
) -> bytes:
    """Pixels [height, width, 3] with their settings as a file of this format.

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
    """Writes a file through a temporary one beside it, so that no reader ever meets half of it."""
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
    """Makes the new name last through a power cut; where a folder cannot be synced, the file itself has been."""
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
            f"{path} needs {size:,} bytes and {free:,} are free; make room and run the same command again", field="out"
        )
    return OutputError(f"cannot write {path}: {error.strerror}; choose another folder with --out", field="out")


def read_infotext(path: Path) -> str:
    """The settings in a PNG, JPEG or WebP, as the tool that made it wrote them, or a text file's text.

    NovelAI's and Easy Diffusion's come in several pieces, which are put together as one JSON record.
    """
    return read_infotexts(path)[0]


def read_infotexts(path: Path) -> tuple[str, ...]:
    """The same, and behind it the other settings that the picture carries."""
    path = Path(path)
    try:
        content = _read(path)
    except FileNotFoundError:
        raise NotFound(
            f"{path} does not exist; give a picture or a text file with settings", field="settings"
        ) from None
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror}", field="settings") from None
    return infotexts_of(content, path.name)


def infotext_of(content: bytes, name: str) -> str:
    """The settings in a file's content; its name is for messages."""
    return infotexts_of(content, name)[0]


def infotexts_of(content: bytes, name: str) -> tuple[str, ...]:
    """The same, and behind it the other settings that the picture carries."""
    path = Path(name)
    if not content.strip():
        raise DamagedFile(f"{path.name} is empty; give a picture or a text file with settings", field="settings")
    if not _is_picture(content):
        plain = _read_text(path, content)
        if path.suffix.lower() in NAMED_PICTURES:
            raise WrongKind(
                f"{path.name} is named as a picture and holds text; rename it to .txt if it is settings",
                field="settings",
            )
        return (plain,)
    texts = _read_picture(path, content)
    if not texts:
        raise WrongKind(
            f"{path.name} carries no settings: sites and editors often strip them; paste the settings into a text file",
            field="settings",
        )
    return texts


def picture_infotext(content: bytes, name: str) -> str | None:
    """The settings of a picture's content, None where it carries none; WrongKind for what is no picture."""
    if not _is_picture(content):
        raise WrongKind(f"{name} is no picture; give a PNG, JPEG or WebP", field="image")
    return next(iter(_read_picture(Path(name), content)), None)


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise WrongKind(
                f"{path.name} is no file of its own; give a picture or a text file with settings", field="settings"
            )
        return read_content(file, path.name)


def read_content(file: BinaryIO, name: str) -> bytes:
    """All of an open picture or text, or WrongKind when it is too large for either."""
    start = file.read(16)
    most = MOST_BYTES if _is_picture(start) else MOST_TEXT
    content = start + file.read(most)
    if len(content) > most:
        raise WrongKind(
            f"{name} is over {most:,} bytes, more than settings take; give a picture or a text file with settings",
            field="settings",
        )
    return content


def _is_picture(content: bytes) -> bool:
    start = content[:12]
    return start.startswith((b"\x89PNG", b"\xff\xd8\xff", b"GIF8")) or (start[:4] == b"RIFF" and start[8:12] == b"WEBP")


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
        known = not isinstance(error, UnidentifiedImageError)  # whose own words show an address in memory
        reason = (" ".join(str(error).split()) if known else "no PNG, JPEG or WebP") or type(error).__name__
        raise DamagedFile(
            f"{path.name} is a damaged picture ({reason[:120]}); get it again", field="settings"
        ) from None


def _bounded(path: Path, text: str) -> str:
    """The text; WrongKind for more of it than settings ever are, which every answer would repeat."""
    if len(text) > MOST_LETTERS:
        raise WrongKind(
            f"{path.name} carries {len(text):,} characters of text; {MOST_LETTERS:,} is the most that settings take",
            field="settings",
        )
    return text


def _too_large(path: Path, claimed: str) -> WrongKind:
    return WrongKind(
        f"{path.name} claims {claimed} pixels and is not opened; {MOST_PIXELS:,} is the most; "
        "paste the settings into a text file",
        field="settings",
    )


def _settings_of(picture: Image.Image) -> list[str]:
    """EXIF wins over PNG text where both are there, as in A1111 (modules/images.py read_info_from_image)."""
    chunks = {str(key): str(value) for key, value in picture.info.items() if isinstance(value, str)}
    found = [*_exif_texts(picture), *_chunk_texts(chunks, picture.size), picture.info.get("comment")]
    decoded = [text.decode("utf-8", "replace") if isinstance(text, bytes) else text for text in found]
    texts = [text for text in decoded if isinstance(text, str) and text.strip("\0 \r\n\t")]
    if not texts and (hidden := _hidden_text(picture)):
        texts = [hidden]
    return list(dict.fromkeys(texts))


def _hidden_text(picture: Image.Image) -> str | None:
    """The text in the lowest bits of the pixels ("stealth PNG info"), which NovelAI writes too, with all its chunks."""
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
    for comment in (exif.get_ifd(EXIF_FOLDER).get(USER_COMMENT), exif.get(USER_COMMENT)):  # Fooocus has it outside
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


def _xmp(packet: str, name: str) -> str:
    """The first text of a property in a picture's XMP, or nothing."""
    at = packet.find(f"<{name}>")
    start = packet.find(">", packet.find("<rdf:li", at)) + 1 if at >= 0 else 0
    end = packet.find("</rdf:li>", start)
    return html.unescape(packet[start:end]).strip() if 0 < start <= end else ""


def _with_graph(key: str, texts: Mapping[str, str]) -> str:
    """The text of a chunk; TensorArt's, where it names no sampler, with the graph beside it, which does."""
    record, graph = texts[key].strip("\0 \r\n\t"), texts.get("prompt", "").strip("\0 \r\n\t")
    whole = all(text.startswith("{") and text.endswith("}") for text in (record, graph))
    if key != "generation_data" or not whole or record == "{}" or "amplerName" in record:
        return texts[key]
    return f'{record[:-1]}, "graph": {graph}}}'


def _with_size(text: str, size: tuple[int, int]) -> str:
    """ComfyUI's graph, with the picture's size where the graph may not say it: it begins with another picture, or elsewhere."""
    graph = text.strip("\0 \r\n\t")
    says_it = '"class_type"' not in graph or ("VAEEncode" not in graph and '"EmptyLatentImage"' in graph)
    if says_it or not (graph.startswith("{") and graph.endswith("}")):
        return text
    return f'{{"prompt": {graph}, "size": "{size[0]}x{size[1]}"}}'


def _novelai(texts: Mapping[str, str], size: tuple[int, int]) -> str:
    """NovelAI keeps its prompt in the description and the rest in a JSON comment; the size may be the picture's alone,
    as A1111 takes it (modules/images.py)."""
    beside = {key: text for key, text in texts.items() if key not in ("Comment", "Description", "Software")}
    record = beside | {"prompt": texts.get("Description", ""), "uc": ""} | json.loads(texts["Comment"])
    if not record.keys() & {"width", "height"}:
        record |= {"width": size[0], "height": size[1]}
    return json.dumps(record)


def _user_comment(comment: bytes) -> str:
    """EXIF's UserComment: eight bytes say how the rest is encoded (Exif 2.32, 4.6.5)."""
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
