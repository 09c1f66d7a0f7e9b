"""Pictures and their settings: PNG out with its infotext, the settings of anybody's picture in."""

import errno
import io
import json
import os
import shutil
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from clipskip.errors import DamagedFile, FileError, NotFound, OutputError, WrongKind

USER_COMMENT, EXIF_FOLDER = 0x9286, 0x8769
MOST_PIXELS, MOST_TEXT = 300_000_000, 10_000_000
TEXT_KEYS = ("parameters", "prompt", "invokeai_metadata", "sd-metadata", "Comment")
"""PNG text chunks by tool: A1111 and most; ComfyUI; InvokeAI; InvokeAI 2; NovelAI."""


def write_png(path: Path, pixels: NDArray[np.uint8], infotext: str) -> None:
    """Writes pixels [height, width, 3] with their settings, whole or not at all, readable by whom the umask lets."""
    stored = io.BytesIO()
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", infotext)
    Image.fromarray(pixels).save(stored, "PNG", pnginfo=info)
    write_bytes(path, stored.getvalue())


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file through a temporary one beside it, so that no reader ever meets half of it."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise _cannot_write(path, error, len(content)) from None


def _cannot_write(path: Path, error: OSError, size: int) -> OutputError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        free = shutil.disk_usage(path.parent).free
        return OutputError(
            f"{path} needs {size:,} bytes and {free:,} are free; make room and run the same command again", field="out"
        )
    return OutputError(f"cannot write {path}: {error.strerror}; choose another folder with --out", field="out")


def read_infotext(path: Path) -> str:
    """The settings in a PNG, JPEG or WebP, as the tool that made it wrote them, or a text file's text."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise NotFound(
            f"{path} does not exist; give a picture or a text file with settings", field="settings"
        ) from None
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror}", field="settings") from None
    if not content.strip():
        raise DamagedFile(f"{path.name} is empty; give a picture or a text file with settings", field="settings")
    if not _is_picture(content):
        return _read_text(path, content)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content)) as picture:
                text = _settings_of(picture)
    except Image.DecompressionBombError:
        raise WrongKind(
            f"{path.name} claims more than {MOST_PIXELS:,} pixels and is not opened", field="settings"
        ) from None
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise DamagedFile(f"{path.name} is a damaged picture ({error}); get it again", field="settings") from None
    if text is None:
        raise WrongKind(
            f"{path.name} carries no settings: sites and editors often strip them; paste the settings into a text file",
            field="settings",
        )
    return text


def _is_picture(content: bytes) -> bool:
    start = content[:12]
    return start.startswith((b"\x89PNG", b"\xff\xd8\xff", b"GIF8")) or (start[:4] == b"RIFF" and start[8:12] == b"WEBP")


def _read_text(path: Path, content: bytes) -> str:
    if len(content) > MOST_TEXT:
        raise WrongKind(
            f"{path.name} is {len(content):,} bytes, too long for settings; give a picture or a text file",
            field="settings",
        )
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise WrongKind(
            f"{path.name} is neither a picture nor text; give a PNG, JPEG, WebP or a text file", field="settings"
        ) from None
    if text.lstrip().lower().startswith(("<svg", "<?xml", "<!doctype", "<html")):
        raise WrongKind(f"{path.name} is a web page or SVG, not settings; save the picture itself", field="settings")
    return text


def _settings_of(picture: Image.Image) -> str | None:
    """EXIF wins over PNG text where both are there, as in A1111 (modules/images.py read_info_from_image)."""
    comment = picture.getexif().get_ifd(EXIF_FOLDER).get(USER_COMMENT)
    if isinstance(comment, bytes) and (text := _user_comment(comment)):
        return text
    if picture.info.get("Software") == "NovelAI" and isinstance(picture.info.get("Comment"), str):
        return _novelai(picture.info)
    for key in TEXT_KEYS:
        if isinstance(picture.info.get(key), str):
            return str(picture.info[key])
    comment = picture.info.get("comment")
    return comment.decode("utf-8", "replace") if isinstance(comment, bytes) and comment else None


def _novelai(info: dict[str | tuple[int, int], object]) -> str:
    """NovelAI keeps its prompt in the description and the rest in a JSON comment."""
    record = json.loads(str(info["Comment"]))
    return json.dumps({"prompt": info.get("Description", ""), "uc": ""} | record)


def _user_comment(comment: bytes) -> str | None:
    """EXIF's UserComment: eight bytes say how the rest is encoded (Exif 2.32, 4.6.5)."""
    kind, text = comment[:8], comment[8:]
    if kind == b"UNICODE\0":
        little = text[1:2] == b"\0" and text[:1] != b"\0"
        return text.decode("utf-16-le" if little else "utf-16-be", "replace").strip("\0")
    if kind == b"ASCII\0\0\0":
        return text.decode("utf-8", "replace").strip("\0")
    return None
