import numpy as np
import torch

from clipskip.measures.effects import agreement, share_kept, size_beside


def test_shares_sizes_and_cosines_are_those_of_the_vectors_of_all_views() -> None:
    """Against numpy over one long vector for each Clip Skip."""
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(3, 4, 10)), rng.normal(size=(3, 4, 10))
    a, b = (x.transpose(1, 0, 2).reshape(4, -1) for x in (one, other))
    first, second = torch.from_numpy(one), torch.from_numpy(other)
    assert np.allclose(share_kept(first, reference=2), a @ a[2] / (a[2] @ a[2]))
    assert np.allclose(size_beside(first, second), np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1))
    cosines = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert np.allclose(agreement(first, second), cosines)


def test_an_effect_keeps_all_of_itself_and_agrees_with_itself() -> None:
    effect = torch.randn(2, 3, 5)
    assert share_kept(effect, reference=1)[1] == 1
    assert torch.allclose(agreement(effect, effect), torch.ones(3))
