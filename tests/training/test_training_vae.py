"""The VAE's training with held latents: pictures of any split beside their own latents, and what the distance costs."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.append(str(Path(__file__).parents[2] / "training"))

SCALE, COUNT = 0.5, 6


def cached(folder: Path, latents: torch.Tensor, split: str = "train") -> None:
    """A shard of even pictures, each of its own grey, and latents as latents.py writes them."""
    greys = (40 * np.arange(COUNT, dtype=np.uint8)).reshape(COUNT, 1, 1, 1)
    np.savez(folder / f"{split}-000.npz", images=np.broadcast_to(greys, (COUNT, 16, 16, 3)))
    torch.save({"latents": (SCALE * latents).half()}, folder / f"{split}-000.latents.pt")
    (folder / "scale.json").write_text(json.dumps({"scaling_factor": SCALE}))


def test_a_picture_comes_with_its_own_latents_as_the_vae_gave_them(tmp_path: Path) -> None:
    from vae import encoded

    numbers = torch.arange(COUNT).float()
    cached(tmp_path, numbers.view(-1, 1, 1, 1).expand(COUNT, 4, 2, 2))
    pictures, former = encoded(tmp_path, tmp_path, 32)(torch.Generator().manual_seed(0), 0.0)
    assert former is not None
    assert former.shape == (32, 4, 2, 2)
    assert set(former[:, 0, 0, 0].tolist()) == set(numbers.tolist())
    assert torch.equal(((pictures[:, 0, 0, 0] + 1) * 127.5 / 40).round(), former[:, 0, 0, 0])


def test_distance_joins_the_loss_in_units_of_the_latents_variance(tmp_path: Path) -> None:
    from vae import HOLD, Autoencoding, new_vae, to_floats

    task = Autoencoding(tmp_path, COUNT, "cpu", None, tmp_path)
    vae = new_vae()
    greys = (40 * np.arange(COUNT, dtype=np.uint8)).reshape(COUNT, 1, 1, 1)
    with torch.no_grad():
        latents = vae.encode(to_floats(np.broadcast_to(greys, (COUNT, 16, 16, 3)).copy())).latent_dist.mean

    def loss(former: torch.Tensor) -> float:
        cached(tmp_path, former)
        torch.manual_seed(0)
        return float(task.feed()(vae, torch.Generator().manual_seed(0), 1.0).detach())

    # pictures are drawn with repetition, so former latents of the same variance for every choice: a constant shift of all
    chosen = torch.randint(COUNT, (COUNT,), generator=_after_the_shard())
    shift = 3 * latents.std()
    wanted = HOLD * float(shift.square() / latents[chosen].var())
    # kept in half precision: 2 ** -11 of a number, here of one about 4 deviations large
    assert loss(latents + shift) - loss(latents) == pytest.approx(wanted, rel=5e-3)


def _after_the_shard() -> torch.Generator:
    generator = torch.Generator().manual_seed(0)
    torch.multinomial(torch.tensor([float(COUNT)]), 1, generator=generator)
    return generator
