"""Latents to pixels and back, through the checkpoint's own VAE.

Both ways change a VAE in float16 that overflows, as those of some anime models do: it is converted to float32 where it is, and
stays so for every later call. Else each picture would be made twice.
"""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from torch import Tensor

from clipskip.networks import VAE
from clipskip.sample import empty_cache, has_room

Latent = Float[Tensor, "batch channels height width"]

LATENT_PX = 8
TILE, OVERLAP = 64, 16
"""Sides, in latent cells, of a tile and of its overlap with the next."""
SHARE = 0.5
"""The share of free memory that decoding may take before it works in tiles."""
LIVE = 4
"""How many maps of the last-but-one width decoding holds at once at full size: input, norm, output, shortcut."""
LARGE = 96 * 96
"""Latent cells beyond which a CPU gives back what the UNet's maps took before the decoder's, which are of other sizes, take
as much beside it: 1.3 GB at 1024 x 1024."""


def decode(vae: VAE, latent: Latent) -> NDArray[np.uint8]:
    """Decode latents to pixels [batch, height, width, 3]. A1111 truncates to whole values, although rounding would be
    nearer."""
    result: NDArray[np.uint8] = decode_on_device(vae, latent).cpu().numpy()
    return result


@torch.inference_mode()
def decode_on_device(vae: VAE, latent: Latent) -> UInt8[Tensor, "batch height_px width_px 3"]:
    """Decode latents as `decode` does, but leave the pixels on the VAE's device; on a GPU this returns before it is
    done.

    Works in tiles where memory is short. A tile's group norms see only the tile, so large even areas may differ a
    little in tone from a decoding in one piece; the seams are blended.
    """
    scaled = (latent / vae.shape.scaling_factor).to(dtype=vae.dtype, device=vae.device)
    if vae.device.type == "cpu" and latent[0, 0].numel() > LARGE:
        empty_cache(vae.device)
    whole = has_room(vae.device, decoding_bytes(vae, latent.shape) / SHARE)
    pixels = vae.decode(scaled) if whole or max(latent.shape[2:]) <= TILE else decode_tiles(vae, scaled)
    if _overflows(vae, pixels):
        vae.float()
        return decode_on_device(vae, latent)
    return ((pixels / 2 + 0.5).clamp(0, 1) * 255).to(torch.uint8).permute(0, 2, 3, 1)


@torch.inference_mode()
def encode(vae: VAE, pixels: NDArray[np.uint8], *, seed: int | None = None) -> Latent:
    """Encode pictures [batch, height, width, 3] to latents in float32, scaled as for the UNet.

    Returns the mean of the latent distribution or, with a seed, a sample from it as A1111 draws it.
    """
    return encode_exact(vae, torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1, seed=seed)


@torch.inference_mode()
def encode_exact(vae: VAE, exact: Float[Tensor, "batch 3 height_px width_px"], *, seed: int | None = None) -> Latent:
    """Encode pictures with values in -1..1, as `encode` does."""
    mean, spread = (part.float() for part in vae.distribution(exact.to(dtype=vae.dtype, device=vae.device)))
    if seed is not None:
        mean = mean + spread * torch.randn(mean.shape, generator=torch.Generator().manual_seed(seed)).to(mean.device)
    latents = mean * vae.shape.scaling_factor
    if _overflows(vae, latents):
        vae.float()
        return encode_exact(vae, exact, seed=seed)
    return latents


def picture_px(vae: VAE, side_px: int) -> int:
    """Return a render's side in this VAE's pixels: only the starter's VAE has other than 8 pixels per latent cell."""
    cell_px: int = 2 ** (len(vae.shape.block_out_channels) - 1)
    return side_px if cell_px == LATENT_PX else side_px // LATENT_PX * cell_px


def _overflows(vae: VAE, values: Float[Tensor, "..."]) -> bool:
    """Return whether half precision overflowed in this VAE, as for some anime models; it then stays in float32."""
    return vae.dtype is torch.float16 and not bool(values.isfinite().all())


def decoding_bytes(vae: VAE, latent: torch.Size) -> int:
    """Estimate the peak memory, in bytes, of decoding these latents in one piece."""
    batch, _, height, width = latent
    widths = vae.shape.block_out_channels
    scale = 2 ** (len(widths) - 1)
    pixels: int = batch * height * width * scale**2
    return LIVE * pixels * widths[:2][-1] * vae.dtype.itemsize


def decode_tiles(vae: VAE, scaled: Latent) -> Float[Tensor, "batch colours height_px width_px"]:
    """Pictures from unscaled latents, tile by tile; each tile fades into the next over what they share."""
    batch, _, height, width = scaled.shape
    scale = 2 ** (len(vae.shape.block_out_channels) - 1)
    total = torch.zeros(batch, vae.shape.in_channels, height * scale, width * scale, device=scaled.device)
    weights = torch.zeros(height * scale, width * scale, device=scaled.device)
    for top in _starts(height):
        for left in _starts(width):
            tile = vae.decode(scaled[:, :, top : top + TILE, left : left + TILE])
            share = _fade(tile.shape[2], scale)[:, None] * _fade(tile.shape[3], scale)
            rows = slice(top * scale, top * scale + tile.shape[2])
            columns = slice(left * scale, left * scale + tile.shape[3])
            total[:, :, rows, columns] += tile * share.to(tile.device)
            weights[rows, columns] += share.to(tile.device)
    return total / weights


def _starts(side: int) -> Iterator[int]:
    """Yield where tiles begin, so that the last one ends where the latent does."""
    last = max(0, side - TILE)
    yield from range(0, last, TILE - OVERLAP)
    yield last


def _fade(side_px: int, scale: int) -> Float[Tensor, " side_px"]:
    """Return the weight of each pixel across a tile, falling towards both ends but never 0."""
    place = torch.arange(side_px) + 0.5
    return (torch.minimum(place, side_px - place) / (OVERLAP * scale)).clamp(max=1)
