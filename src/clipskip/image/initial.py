"""Pictures that users send, as the pixels and latents that a run can begin at."""

import hashlib
import io
import warnings
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from clipskip.errors import DamagedFile, WrongKind
from clipskip.image.metadata import FORMATS, why_unreadable

MOST_SENT_PIXELS = 25_000_000
"""Six times the largest picture that is drawn, as a good camera has it; reading takes 12 bytes a pixel."""
WHITE = (255, 255, 255)
OPAQUE = 128
"""A mask counts where its alpha is above this."""


def read_pixels(content: bytes, *, field: str) -> NDArray[np.uint8]:
    """Return the pixels [height, width, 3] of a PNG, JPEG or WebP, upright and on white where it is transparent."""
    return np.asarray(_read_upright(content, _on_white, field=field))


def read_mask(content: bytes, *, field: str, soft: bool = False) -> NDArray[np.uint8]:
    """Return the pixels [height, width, 3] of a mask.

    Where the mask is transparent in parts, its opaque pixels are white (A1111's create_binary_mask); with `soft`, each
    is as white as it is opaque.
    """
    return np.asarray(_read_upright(content, _opaque_softly if soft else _opaque, field=field))


def read_opacity(content: bytes, *, field: str) -> NDArray[np.uint8]:
    """Return pixels [height, width, 3] that are white where a picture is opaque and black where it is transparent."""
    return np.asarray(_read_upright(content, _opacity, field=field))


def _opacity(picture: Image.Image) -> Image.Image:
    alpha = np.asarray(picture.convert("RGBA").getchannel("A"))
    return Image.fromarray(np.where(alpha > OPAQUE, 255, 0).astype(np.uint8)).convert("RGB")


def _on_white(picture: Image.Image) -> Image.Image:
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    whole = Image.new("RGBA", picture.size, (*WHITE, 255))
    whole.alpha_composite(picture.convert("RGBA"))
    return whole.convert("RGB")


def _opaque(picture: Image.Image) -> Image.Image:
    softly = _opaque_softly(picture)
    if not _lets_light_through(picture):
        return softly
    return softly.point(lambda share: 255 if share > OPAQUE else 0)


def _opaque_softly(picture: Image.Image) -> Image.Image:
    alpha = picture.convert("RGBA").getchannel("A") if _lets_light_through(picture) else picture.convert("L")
    return alpha.convert("RGB")


def _lets_light_through(picture: Image.Image) -> bool:
    return picture.has_transparency_data and picture.convert("RGBA").getchannel("A").getextrema() != (255, 255)


def _read_upright(content: bytes, convert: Callable[[Image.Image], Image.Image], *, field: str) -> Image.Image:
    """Read a picture, turned upright and converted."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's own limit, and broken EXIF in sound pictures
            with Image.open(io.BytesIO(content), formats=FORMATS) as picture:
                if picture.width * picture.height > MOST_SENT_PIXELS:
                    raise _too_large(field)
                return convert(ImageOps.exif_transpose(picture))
    except Image.DecompressionBombError:
        raise _too_large(field) from None
    except WrongKind:
        raise
    except Exception as error:  # whatever a decoder does with a hostile file, the user gets one line
        raise DamagedFile(
            f"{field} cannot be read as a picture ({why_unreadable(error)}); send a PNG, JPEG or WebP", field=field
        ) from None


def hash_pixels(pixels: NDArray[np.uint8]) -> str:
    """Return A1111's "Init image hash": 32 hex digits of the pixels."""
    return hashlib.md5(pixels.tobytes(), usedforsecurity=False).hexdigest()


def _too_large(field: str) -> WrongKind:
    return WrongKind(
        f"{field} has more than {MOST_SENT_PIXELS:,} pixels, the most that are read; send a smaller picture",
        field=field,
    )
