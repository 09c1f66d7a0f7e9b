"""Pictures that somebody sends, as the pixels and the latents that a run may begin at."""

import hashlib
import io
import warnings

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from clipskip.errors import DamagedFile, WrongKind
from clipskip.image.metadata import FORMATS
from clipskip.image.vae import encode
from clipskip.networks.autoencoder import VAE

MOST_SENT_PIXELS = 25_000_000
"""Six times the largest picture that is drawn, as a good camera has; each takes 12 bytes a pixel while it is read."""
LATENT_PX = 8
WHITE = (255, 255, 255)


def read_pixels(content: bytes, *, field: str) -> NDArray[np.uint8]:
    """The pixels [height, width, 3] of a PNG, JPEG or WebP, upright, on white where it lets light through."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's own limit, and broken EXIF in sound pictures
            with Image.open(io.BytesIO(content), formats=FORMATS) as picture:
                if picture.width * picture.height > MOST_SENT_PIXELS:
                    raise _too_large(field)
                upright = ImageOps.exif_transpose(picture)
                if not upright.has_transparency_data:
                    return np.asarray(upright.convert("RGB"))
                whole = Image.new("RGBA", upright.size, (*WHITE, 255))
                whole.alpha_composite(upright.convert("RGBA"))
                return np.asarray(whole.convert("RGB"))
    except Image.DecompressionBombError:
        raise _too_large(field) from None
    except WrongKind:
        raise
    except Exception as error:  # whatever a decoder does with a hostile file, the user gets one line
        known = not isinstance(error, UnidentifiedImageError)  # whose own words show an address in memory
        reason = (" ".join(str(error).split()) if known else "no PNG, JPEG or WebP") or type(error).__name__
        raise DamagedFile(
            f"{field} is no picture that can be read ({reason[:120]}); send it again", field=field
        ) from None


def hash_pixels(pixels: NDArray[np.uint8]) -> str:
    """A1111's "Init image hash": 32 hex digits of the pixels."""
    return hashlib.md5(pixels.tobytes(), usedforsecurity=False).hexdigest()


def encode_resized(vae: VAE, pixels: NDArray[np.uint8], *, width: int, height: int) -> Float[Tensor, "channels h w"]:
    """The latent of a picture that is stretched to this size, in the pixels of a render (A1111's resize mode 0)."""
    cell_px = 2 ** (len(vae.shape.block_out_channels) - 1)
    size = (width // LATENT_PX * cell_px, height // LATENT_PX * cell_px)
    fitted = Image.fromarray(pixels)
    if fitted.size != size:
        fitted = fitted.resize(size, Image.Resampling.LANCZOS)
    return encode(vae, np.array(fitted)[None])[0]


def _too_large(field: str) -> WrongKind:
    return WrongKind(
        f"{field} has more pixels than {MOST_SENT_PIXELS:,}, which is the most; send a smaller one", field=field
    )
