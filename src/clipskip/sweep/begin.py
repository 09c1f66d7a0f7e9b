"""Start pictures to the latents, masks and canvases that drawing needs (A1111 1.10
modules/processing.py)."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from clipskip.image import LATENT_RESIZE, Canvas, encode, encode_exact, picture_px, prepare
from clipskip.networks import VAE
from clipskip.sample import Begin, PictureLatent, PictureNoise
from clipskip.spec import MASKED_CONTENT, Render

CELL_PX = 8
INPAINTING_CHANNELS = 9
"""Input channels of a UNet that takes the mask and the rest of the picture beside the latent."""
NOISE, NOTHING = MASKED_CONTENT[2:]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Opening:
    """The latent, mask and canvas that one picture begins with."""

    begin: Begin | None = None
    beside: Float[Tensor, "5 height width"] | None = None
    """For inpainting models."""
    canvas: Canvas | None = None


class Openings:
    """The openings of pictures; what several share is made once."""

    def __init__(self, vae: VAE, pictures: Mapping[str, NDArray[np.uint8]], *, channels: int) -> None:
        self._vae, self._pictures, self._channels = vae, pictures, channels
        self._canvases: dict[tuple[object, ...], Canvas] = {}
        self._latents: dict[tuple[object, ...], PictureLatent] = {}

    def of(self, render: Render) -> Opening:
        """Return what this picture begins with."""
        cells = (render.width // CELL_PX, render.height // CELL_PX)
        if render.start is None:
            return Opening(beside=self._beside(None, cells, seed=render.seed))
        canvas = self._canvas(render)
        drawn = canvas.drawn(cells)
        mask = None if drawn is None else torch.from_numpy(drawn)[None]
        latent = self._latent(render, canvas, cells)
        content, weight = (
            (picture_mask.content, picture_mask.weight) if (picture_mask := render.start.mask) else ("", 1.0)
        )
        if mask is not None and content in (NOISE, NOTHING):
            fresh = PictureNoise(replace(render, variation_strength=0.0)).first().to(latent)
            latent = latent * (1 - mask.to(latent)) + (fresh * mask.to(latent) if content == NOISE else 0)
        return Opening(
            begin=Begin(
                latent=latent,
                strength=render.start.strength,
                noise_multiplier=render.start.noise_multiplier,
                drawn=mask,
            ),
            beside=self._beside(canvas, cells, seed=render.seed, weight=weight),
            canvas=canvas if canvas.overlay else None,
        )

    def larger(self, latent: PictureLatent, *, seed: int) -> Float[Tensor, "5 height width"] | None:
        """Return what an inpainting model is given beside the latent of a second pass, in which nothing is kept."""
        _, height, width = latent.shape
        return self._beside(None, (width, height), seed=seed)

    def _canvas(self, render: Render) -> Canvas:
        start = render.start
        assert start is not None
        size = picture_px(self._vae, render.width), picture_px(self._vae, render.height)
        key = (start.hash, start.resize_mode, start.mask, size)
        if key not in self._canvases:
            mask = self._pictures[start.mask.hash] if start.mask else None
            self._canvases[key] = prepare(start, self._pictures[start.hash], mask, size=size)
        return self._canvases[key]

    def _latent(self, render: Render, canvas: Canvas, cells: tuple[int, int]) -> PictureLatent:
        key = (id(canvas), render.seed)
        if key not in self._latents:
            latent = encode(self._vae, canvas.pixels[None], seed=render.seed)
            if render.start and render.start.resize_mode == LATENT_RESIZE:
                latent = interpolate(latent, size=cells[::-1], mode="bilinear")
            self._latents[key] = latent[0]
        return self._latents[key]

    def _beside(
        self, canvas: Canvas | None, cells: tuple[int, int], *, seed: int, weight: float = 1.0
    ) -> Float[Tensor, "5 height width"] | None:
        """Return the mask and the latent of the picture, grey under the mask by this weight; all grey without a
        mask."""
        if self._channels != INPAINTING_CHANNELS:
            return None
        if canvas is None or canvas.mask is None:
            side = picture_px(self._vae, CELL_PX)
            mask, picture = torch.ones(1, 1, cells[1] * side, cells[0] * side), torch.zeros(1, 3, 1, 1)
        else:
            share = canvas.mask / np.float32(255)
            mask = torch.from_numpy(np.around(share) if canvas.rounded else share)[None, None]
            picture = torch.from_numpy(canvas.pixels).permute(2, 0, 1)[None].float() / 127.5 - 1
        latent = encode_exact(self._vae, picture * (1 - mask * weight), seed=seed)
        small = interpolate(mask, size=cells[::-1]).to(latent)
        return torch.cat([small, latent], dim=1)[0]
