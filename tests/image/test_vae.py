"""The VAE beside diffusers' on the same weights: whole, by tiles, in half precision, and back."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

from clipskip.errors import DamagedFile
from clipskip.image import decode, encode, vae
from clipskip.networks import VAEShape, build_vae
from clipskip.sample import memory

SHAPE = VAEShape(block_out_channels=(8, 16, 16), layers_per_block=2, norm_num_groups=4, scaling_factor=0.5)


@pytest.fixture(scope="module", params=[SHAPE, replace(SHAPE, block_out_channels=(8,), latent_channels=3)])
def both(request: pytest.FixtureRequest) -> tuple[vae.VAE, AutoencoderKL]:
    torch.manual_seed(0)
    theirs = AutoencoderKL(**request.param.config()).eval().requires_grad_(False)
    return build_vae({name: value.clone() for name, value in theirs.state_dict().items()}, request.param), theirs


Both = tuple[vae.VAE, AutoencoderKL]


def latent_for(one: vae.VAE, *size: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, one.shape.latent_channels, *size, generator=generator)


@torch.no_grad()
def test_it_decodes_and_encodes_what_diffusers_does(both: Both) -> None:
    ours, theirs = both
    latent = latent_for(ours, 6, 5)
    picture = theirs.decode(latent).sample
    # float32, sums in another order
    assert torch.allclose(ours.decode(latent), picture, atol=2e-5)
    assert torch.allclose(ours.encode(picture), theirs.encode(picture).latent_dist.mode(), atol=2e-5)


def test_pixels_are_the_decoders_scaled_and_truncated(both: Both) -> None:
    ours, theirs = both
    latent = latent_for(ours, 6, 5)
    expected = ((theirs.decode(latent / 0.5).sample / 2 + 0.5).clamp(0, 1) * 255).permute(0, 2, 3, 1).numpy()
    # A rounding of 1e-5 may fall on the other side of a whole number.
    assert np.abs(decode(ours, latent) - np.floor(expected)).max() <= 1


def test_encoded_pixels_are_latents_as_a_unet_sees_them(both: Both) -> None:
    ours, theirs = both
    pixels = np.random.default_rng(0).integers(0, 256, (1, 24, 16, 3), dtype=np.uint8)
    exact = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 127.5 - 1
    assert torch.allclose(encode(ours, pixels), theirs.encode(exact).latent_dist.mode() * 0.5, atol=2e-5)


def test_a_vae_too_large_for_half_precision_goes_on_in_float32(both: Both) -> None:
    """As NovelAI's: its numbers pass 65504 on the way, which half precision turns into NaN and a black picture."""
    state = {name: value.clone() for name, value in both[1].state_dict().items()}
    for part in ("encoder", "decoder"):
        state[f"{part}.conv_in.weight"] *= 1e6
    state = {name: value.clamp(-60000, 60000).half() for name, value in state.items()}
    small = build_vae(state, both[0].shape)
    exact = build_vae({name: value.float() for name, value in state.items()}, both[0].shape)
    latent = latent_for(small, 6, 5)
    assert not small.decode(latent.half()).isfinite().all()
    assert np.array_equal(decode(small, latent), decode(exact, latent))
    assert small.dtype is torch.float32
    again = build_vae({name: value.clone() for name, value in state.items()}, both[0].shape)
    pixels = np.random.default_rng(0).integers(0, 256, (1, 24, 16, 3), dtype=np.uint8)
    assert torch.equal(encode(again, pixels), encode(exact, pixels))


@torch.no_grad()
def test_bfloat16_is_no_further_from_float32_than_diffusers_bfloat16(both: Both) -> None:
    shape = both[0].shape
    low = build_vae({name: value.bfloat16() for name, value in both[1].state_dict().items()}, shape)
    theirs = AutoencoderKL(**shape.config()).eval()
    theirs.load_state_dict(both[1].state_dict())
    theirs.bfloat16()
    latent = latent_for(low, 8, 8)
    exact = both[1].decode(latent).sample
    ours, other = (
        (p.float() - exact).norm() for p in (low.decode(latent.bfloat16()), theirs.decode(latent.bfloat16()).sample)
    )
    # The last layer is not rounded; the noise of one random network may still tip it by a few per cent.
    assert low.decode(latent.bfloat16()).dtype == torch.float32
    assert ours <= 1.05 * other


def constant_network(both: Both) -> vae.VAE:
    """A decoder whose every pixel is the same, so that tiles must agree exactly."""
    ours = build_vae({name: torch.zeros_like(value) for name, value in both[1].state_dict().items()}, both[0].shape)
    ours.decoder.conv_out.bias += torch.tensor([0.5, -0.25, 0.0])
    return ours


@pytest.mark.parametrize("size", [(64, 64), (65, 64), (70, 130), (64, 200)])
@torch.no_grad()
def test_tiles_cover_exactly_and_blend_to_one(both: Both, size: tuple[int, int]) -> None:
    ours = constant_network(both)
    scale = 2 ** (len(ours.shape.block_out_channels) - 1)
    picture = vae.decode_tiles(ours, latent_for(ours, *size)[:1])
    assert picture.shape == (1, 3, size[0] * scale, size[1] * scale)
    assert torch.allclose(picture, torch.tensor([0.5, -0.25, 0.0]).view(1, 3, 1, 1).expand_as(picture), atol=1e-6)


def test_decoding_goes_by_tiles_only_where_memory_is_short(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, used = both[0], []
    latent = latent_for(ours, 8, 70)[:1]
    tiles = vae.decode_tiles
    monkeypatch.setattr(vae, "decode_tiles", lambda *args: used.append(1) or tiles(*args))
    whole = decode(ours, latent)
    assert not used
    monkeypatch.setattr(memory, "free_bytes", lambda device: 2 * vae.decoding_bytes(ours, latent.shape) - 2)
    tiled = decode(ours, latent)
    assert used == [1] and tiled.shape == whole.shape
    # A random network leans on its norms' statistics more than a trained one: alike, not the same.
    assert np.corrcoef(whole.ravel(), tiled.ravel())[0, 1] > 0.9


def test_weights_that_do_not_fit_are_said(both: Both) -> None:
    state = dict(both[0].state_dict())
    del state["decoder.conv_in.bias"]
    with pytest.raises(DamagedFile, match=r"decoder\.conv_in\.bias"):
        build_vae(state, both[0].shape)
