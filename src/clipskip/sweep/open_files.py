"""The files beside an open checkpoint that its pictures use: another VAE, and a model that enlarges them."""

from typing import final

import torch

from clipskip.image import Enlarge, Upscaler, upscale_by, upscale_with
from clipskip.networks import VAE, VAEShape, build_vae
from clipskip.spec import FileRef, Hires
from clipskip.sweep.drawn import Extras
from clipskip.weights import load_upscaler, load_vae


@final
class OpenFiles:
    """One of each kind stays open until another is asked for."""

    def __init__(self, own: VAE, shape: VAEShape, *, device: torch.device) -> None:
        self._own, self._shape, self._device = own, shape, device
        self._other: tuple[FileRef, VAE] | None = None
        self._upscaler: tuple[str, Enlarge] | None = None

    def vae(self, file: FileRef | None, extras: Extras) -> VAE:
        """Return the checkpoint's own VAE, or a file's, which stays open until another is asked for."""
        if file is None:
            return self._own
        if self._other is None or self._other[0] != file:
            self._other = None
            state = load_vae(extras.vaes[file.hash], self._shape, dtype=self._own.dtype, device=self._device)
            self._other = file, build_vae(state, self._shape)
        return self._other[1]

    def upscaler(self, hires: Hires, extras: Extras) -> Upscaler | None:
        """Return what enlarges pictures for a second pass; an upscaler model stays open until another is asked for."""
        digits = hires.upscaler_hash
        if not digits:
            return upscale_by(hires.upscaler)
        if self._upscaler is None or self._upscaler[0] != digits:
            self._upscaler = None
            self._upscaler = digits, load_upscaler(extras.upscalers[digits], device=self._device)
        return upscale_with(self._upscaler[1], device=self._device)
