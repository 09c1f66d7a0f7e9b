"""A picture to begin at, resized and masked as in A1111's img2img, and put together again after drawing.

Sources: 1.10 modules/processing.py StableDiffusionProcessingImg2Img.init, modules/images.py resize_image,
modules/masking.py.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from PIL import Image, ImageFilter, ImageOps

from clipskip.errors import SpecError
from clipskip.spec import MASKED_CONTENT, RESIZE_MODES, Mask, Start

Pixels = NDArray[np.uint8]
Box = tuple[int, int, int, int]
LATENT_RESIZE = RESIZE_MODES[3]
SMALLEST = 8
"""The fewest pixels each way that become a latent."""
KERNEL_SIGMAS = 2.5
"""How far a mask's blur reaches each way, in sigmas."""
FILL_BLURS = ((256, 1), (64, 1), (16, 2), (4, 4), (2, 2), (0, 1))
"""The blurs that masked content is filled with: the radius of each and how often it is laid over (masking.py fill)."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Canvas:
    """A picture that drawing begins at."""

    pixels: Pixels
    """[height, width, 3], what the VAE encodes."""
    mask: Pixels | None = None
    """[height, width] of the same size; white is drawn anew."""
    overlay: Image.Image | None = None
    """The picture with a hole where it is drawn anew, to be laid over the result."""
    box: Box | None = None
    """Left, top, width and height of the drawn region in the overlay; None means all of it."""
    rounded: bool = True
    """Whether grey in the mask is rounded to black or white."""

    def drawn(self, cells: tuple[int, int]) -> Float[np.ndarray, "height width"] | None:
        """Return a mask over so many latent cells across and down: 1 where drawn anew, 0 where kept; None without a
        mask."""
        if self.mask is None:
            return None
        small = Image.fromarray(self.mask).convert("RGB").resize(cells)
        share = np.asarray(small, dtype=np.float32)[..., 0] / 255
        return np.around(share) if self.rounded else share

    def finish(self, pixels: Pixels) -> Pixels:
        """Return the result with the kept parts of the picture as they were."""
        if self.overlay is None:
            return pixels
        drawn_part = Image.fromarray(pixels)
        if self.box is not None:
            left, top, width, height = self.box
            base = Image.new("RGBA", self.overlay.size)
            base.paste(resize(drawn_part, (width, height), RESIZE_MODES[1]), (left, top))
            drawn_part = base
        whole = drawn_part.convert("RGBA")
        if whole.size != self.overlay.size:
            whole = whole.resize(self.overlay.size, Image.Resampling.LANCZOS)
        whole.alpha_composite(self.overlay)
        return np.array(whole.convert("RGB"))


def prepare(start: Start, pixels: Pixels, mask: Pixels | None, *, size: tuple[int, int]) -> Canvas:
    """Return the canvas of a picture at a size (width, height). A mask of another size is stretched to the
    picture's."""
    picture = Image.fromarray(pixels)
    if start.resize_mode == LATENT_RESIZE and min(picture.size) < SMALLEST:
        raise SpecError(
            f"the picture is {picture.width} x {picture.height}; {LATENT_RESIZE!r} needs {SMALLEST} pixels each way: "
            "use another resize mode",
            field="resize_mode",
        )
    if start.mask is None or mask is None:
        return Canvas(pixels=np.array(resize(picture, size, start.resize_mode)))
    soft = _soft(start.mask, mask, picture.size)
    if start.mask.cropped:
        return _cropped(start.mask, picture, soft, size)
    if start.resize_mode == LATENT_RESIZE and picture.size != size:
        raise SpecError(
            f"the picture is {picture.width} x {picture.height}; with a mask, {LATENT_RESIZE!r} needs a picture of the size that is "
            f"drawn, {size[0]} x {size[1]}: use another resize mode",
            field="resize_mode",
        )
    fitted = resize(picture, size, start.resize_mode)
    fitted_mask = resize(
        soft, size, RESIZE_MODES[2] if start.resize_mode == LATENT_RESIZE else start.resize_mode
    ).convert("L")
    hole = Image.fromarray(np.clip(np.asarray(fitted_mask, dtype=np.float32) * 2, 0, 255).astype(np.uint8))
    filled = _filled(fitted, fitted_mask, start.mask.content)
    return Canvas(
        pixels=np.array(filled), mask=np.array(fitted_mask), overlay=_without(fitted, hole), rounded=start.mask.rounded
    )


def _cropped(mask: Mask, picture: Image.Image, soft: Image.Image, size: tuple[int, int]) -> Canvas:
    """Return a canvas of only the mask's surroundings, at the whole size."""
    region = soft.getbbox()
    if region is None:
        raise SpecError(
            "the mask has no white, so nothing would be drawn; give a mask that is white where to draw", field="mask"
        )
    pad = mask.padding
    left, top, right, bottom = region
    around = (max(left - pad, 0), max(top - pad, 0), min(right + pad, picture.width), min(bottom + pad, picture.height))
    left, top, right, bottom = _shaped(around, size, picture.size)
    fitted = resize(picture.crop((left, top, right, bottom)), size, RESIZE_MODES[2])
    fitted_mask = resize(soft.crop((left, top, right, bottom)), size, RESIZE_MODES[2]).convert("L")
    return Canvas(
        pixels=np.array(_filled(fitted, fitted_mask, mask.content)),
        mask=np.array(fitted_mask),
        overlay=_without(picture, soft),
        box=(left, top, right - left, bottom - top),
        rounded=mask.rounded,
    )


def _shaped(region: Box, size: tuple[int, int], whole: tuple[int, int]) -> Box:
    """Return the region widened or heightened to the proportions of what is drawn, as far as the picture reaches."""
    left, top, right, bottom = region
    width, height = right - left, bottom - top
    if width / height > size[0] / size[1]:
        top, bottom = _longer(top, bottom, int(width / (size[0] / size[1]) - height), whole[1])
    else:
        left, right = _longer(left, right, int(height * (size[0] / size[1]) - width), whole[0])
    return left, top, right, bottom


def _longer(low: int, high: int, by: int, most: int) -> tuple[int, int]:
    low, high = low - by // 2, high + by - by // 2
    if high >= most:
        low, high = low - (high - most), most
    if low < 0:
        low, high = 0, high - low
    return low, min(high, most)


def resize(picture: Image.Image, size: tuple[int, int], mode: str) -> Image.Image:
    """Return the picture at a size by one of A1111's resize modes; the mode for latents leaves it as it is."""
    if mode == LATENT_RESIZE or (mode == RESIZE_MODES[0] and picture.size == size):
        return picture
    if mode == RESIZE_MODES[0]:
        return picture.resize(size, Image.Resampling.LANCZOS)
    (width, height), wider = size, size[0] / size[1] > picture.width / picture.height
    covers = mode == RESIZE_MODES[1]
    across = width if wider == covers else picture.width * height // picture.height
    down = height if wider != covers else picture.height * width // picture.width
    fitted = picture if picture.size == (across, down) else picture.resize((across, down), Image.Resampling.LANCZOS)
    whole = Image.new("RGB", size)
    whole.paste(fitted, (width // 2 - across // 2, height // 2 - down // 2))
    if not covers:
        _stretch_edges(whole, fitted)
    return whole


def _stretch_edges(whole: Image.Image, fitted: Image.Image) -> None:
    """Fill what the picture leaves free with its outermost lines."""
    (width, height), (across, down) = whole.size, fitted.size
    above, beside = height // 2 - down // 2, width // 2 - across // 2
    if above > 0:
        whole.paste(fitted.resize((width, above), box=(0, 0, width, 0)), (0, 0))
        whole.paste(fitted.resize((width, above), box=(0, down, width, down)), (0, above + down))
    elif beside > 0:
        whole.paste(fitted.resize((beside, height), box=(0, 0, 0, height)), (0, 0))
        whole.paste(fitted.resize((beside, height), box=(across, 0, across, height)), (beside + across, 0))


def _soft(mask: Mask, pixels: Pixels, size: tuple[int, int]) -> Image.Image:
    """Return the mask in grey, inverted and blurred as it asks."""
    grey = Image.fromarray(pixels).convert("L")
    grey = grey if grey.size == size else grey.resize(size, Image.Resampling.LANCZOS)
    grey = ImageOps.invert(grey) if mask.inverted else grey
    return Image.fromarray(blurred(np.array(grey), mask.blur, mask.blur if mask.blur_y is None else mask.blur_y))


def blurred(grey: Pixels, across: int, down: int) -> Pixels:
    """Blur pixels [height, width] with Gaussians of these sigmas, across and then down; edges are mirrored."""
    for axis, sigma in ((1, across), (0, down)):
        if not sigma:
            continue
        reach = int(KERNEL_SIGMAS * sigma + 0.5)
        weights = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * sigma**2))
        weights /= weights.sum()
        wide = np.pad(
            grey.astype(np.float64), [(0, 0) if a != axis else (reach, reach) for a in (0, 1)], mode="reflect"
        )
        shifted = (np.take(wide, range(i, i + grey.shape[axis]), axis) * w for i, w in enumerate(weights))
        grey = np.rint(sum(shifted)).astype(np.uint8)
    return grey


def _without(picture: Image.Image, mask: Image.Image) -> Image.Image:
    """Return the picture with a hole where the mask is white."""
    kept = Image.new("RGBa", picture.size)
    kept.paste(picture.convert("RGBA").convert("RGBa"), mask=ImageOps.invert(mask))
    return kept.convert("RGBA")


def _filled(picture: Image.Image, mask: Image.Image, content: str) -> Image.Image:
    """Return the picture, its masked part filled with the colours around it unless its content is to stay the
    original."""
    if content == MASKED_CONTENT[1]:
        return picture
    kept, whole = _without(picture, mask).convert("RGBa"), Image.new("RGBA", picture.size)
    for radius, times in FILL_BLURS:
        layer = kept.filter(ImageFilter.GaussianBlur(radius)).convert("RGBA")
        for _ in range(times):
            whole.alpha_composite(layer)
    return whole.convert("RGB")
