"""A folder of captioned pictures in (kohya's layout: x.png beside x.txt); latents and captions out."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from clipskip.advise.trained import MOST, Captioned
from clipskip.errors import DamagedFile, NotFound
from clipskip.image import encode
from clipskip.sweep import Model

KINDS = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}
CAPTIONS = (".txt", ".caption")


def read_pictures(folder: Path, model: Model) -> tuple[Captioned, ...]:
    """The pictures that have a caption, at most 256, cut to the model's square and encoded.

    NotFound where the folder is not there or none has a caption.
    """
    if not folder.is_dir():
        raise NotFound(
            f"{folder} is not a folder; give one that holds pictures and captions (x.png and x.txt)", field="images"
        )
    pictures = sorted(path for path in folder.rglob("*") if path.suffix.lower() in KINDS)
    captioned = [(path, text) for path in pictures if (text := _caption(path))]
    if not captioned:
        raise NotFound(
            f"{folder} holds {len(pictures)} pictures and no caption; put a text of the same name beside each "
            "(x.png and x.txt)",
            field="images",
        )
    return tuple(_encoded(path, text, model) for path, text in captioned[:MOST])


def _caption(path: Path) -> str:
    for kind in CAPTIONS:
        beside = path.with_suffix(kind)
        if beside.is_file():
            return beside.read_text(encoding="utf-8-sig", errors="replace").strip()
    return ""


def _encoded(path: Path, caption: str, model: Model) -> Captioned:
    side = model.facts.native_px
    try:
        with Image.open(path) as opened:
            square = ImageOps.fit(
                ImageOps.exif_transpose(opened).convert("RGB"), (side, side), Image.Resampling.LANCZOS
            )
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise DamagedFile(
            f"{path} cannot be read as a picture: {error}; take it out of the folder", field="images"
        ) from None
    return Captioned(latent=encode(model.vae, np.array(square)[None])[0].cpu(), caption=caption)
