"""Rough looks from latents: published colours, fitted colours, and what a preview is."""

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from clipskip.image import Colours, decode, preview, preview_colours
from clipskip.networks import VAEShape, build_vae
from clipskip.networks.autoencoder import VAE
from clipskip.weights import FileKind, Library, load_checkpoint


def tiny_vae(scaling_factor: float) -> VAE:
    shape = VAEShape(block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4, scaling_factor=scaling_factor)
    torch.manual_seed(0)
    return build_vae(VAE(shape).state_dict(), shape)


class LinearVAE:
    """A VAE whose colours are exactly linear: each cell becomes 2 x 2 equal pixels."""

    dtype, device = torch.float32, torch.device("cpu")

    def __init__(self, channels: torch.Tensor, base: torch.Tensor) -> None:
        self.channels, self.base = channels, base
        self.shape = VAEShape(
            block_out_channels=(8, 8), layers_per_block=1, latent_channels=len(channels), scaling_factor=0.5
        )

    def decode(self, latent: torch.Tensor) -> torch.Tensor:
        cells = (0.5 * latent).movedim(1, -1) @ self.channels + self.base
        return cells.movedim(-1, 1).repeat_interleave(2, 2).repeat_interleave(2, 3)


def test_an_sd1_vae_has_the_published_colours() -> None:
    colours = preview_colours(tiny_vae(0.18215))
    assert colours.channels.shape == (4, 3) and colours.channels[0, 0] == pytest.approx(0.3512)
    grey = preview(colours, torch.zeros(1, 4, 2, 3))
    assert grey.shape == (1, 2, 3, 3) and (grey == 127).all()


@pytest.mark.parametrize("channels", [3, 4, 16])
def test_a_fit_finds_the_colours_of_a_linear_vae(channels: int) -> None:
    torch.manual_seed(1)
    true = Colours(channels=0.02 * torch.randn(channels, 3), base=torch.tensor([0.1, -0.2, 0.3]))
    found = preview_colours(LinearVAE(true.channels, true.base))
    # Exact up to float32 least squares; the colours are small so that nothing is clamped.
    assert torch.allclose(found.channels, true.channels, atol=1e-5) and torch.allclose(found.base, true.base, atol=1e-5)


def test_the_starters_preview_resembles_its_picture() -> None:
    path = Library.of_user().find("starter", FileKind.CHECKPOINT)
    checkpoint = load_checkpoint(path, dtype=torch.float32, text_dtype=torch.float32, device=torch.device("cpu"))
    vae = build_vae(checkpoint.vae, checkpoint.facts.vae)
    torch.manual_seed(0)
    latent = interpolate(torch.randn(1, 4, 4, 4), size=(16, 16), mode="bicubic")
    seen = decode(vae, latent)[0].astype(float).reshape(16, 8, 16, 8, 3).mean((1, 3))
    guess = preview(preview_colours(vae), latent)[0].astype(float)
    assert np.corrcoef(guess.ravel(), seen.ravel())[0, 1] > 0.7


def test_colours_beyond_white_and_black_are_white_and_black() -> None:
    colours = Colours(channels=torch.eye(3), base=torch.zeros(3))
    assert preview(colours, torch.full((1, 3, 1, 1), 9.0)).tolist() == [[[[255, 255, 255]]]]
    assert preview(colours, torch.full((1, 3, 1, 1), -9.0)).tolist() == [[[[0, 0, 0]]]]
