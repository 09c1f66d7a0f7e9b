"""A paired, sequential test between Clip Skips: which one was the model trained at, and how sure is that?"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clipskip.advise.chances import chances, spread_out
from clipskip.advise.probe import Latent, Probe

CANDIDATES = (1, 2, 3, 4, 5, 6)
"""Models are trained at 1 or 2, rarely at more; the further ones show where the error rises."""
LEAST, MOST, ROUNDS = 8, 256, 4
"""Looks before anything is concluded, at most, and at most at one picture."""
SURE, HOPELESS = 0.995, 0.0005
"""The chance at which the test ends, and that at which a Clip Skip is not asked about any more."""
HIGHEST = 600
"""The noise level below which the text's share of the error stands out most from the noise's."""

Ask = Callable[[int, Sequence[int]], tuple[NDArray[np.float64], int]]
"""(number of the look, Clip Skips) -> each Clip Skip's score, lower is better, and the UNet evaluations it took."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Captioned:
    """One picture of the user's."""

    latent: Latent
    """Scaled as the UNet sees it."""
    caption: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What is known after some looks."""

    way: str
    """How it was asked: "captioned pictures" or "its own drawings"."""
    skip: int
    """The best."""
    sure: float
    """0 to 1: that it is the one that the model was trained at."""
    scores: tuple[tuple[int, float], ...]
    """(Clip Skip, how much worse its score is than the best one's)."""
    chances: tuple[tuple[int, float], ...]
    """(Clip Skip, chance that its mean score is the lowest)."""
    pictures: int
    looks: int
    rows: int
    """UNet evaluations: a guided step of a picture is two."""


def contest(
    ask: Ask, *, way: str, pictures: int, skips: Sequence[int], flaw: float, rounds: int = ROUNDS
) -> Iterator[Trained]:
    """What is known after each look, until it is sure or there is no more to look at.

    A picture that comes again counts once, with the mean of its scores. `flaw` is how often the method itself is taken
    to be wrong, whatever it sees.
    """
    left, rows = list(skips), 0
    found = np.full((rounds, pictures, len(skips)), np.nan)
    for number in range(min(pictures * rounds, MOST)):
        turn, at = divmod(number, pictures)
        columns = [skips.index(skip) for skip in left]
        found[turn, at, columns], asked = ask(number, left)
        rows += asked
        seen = np.nanmean(found[: turn + 1, : at + 1 if turn == 0 else None, columns], axis=0)
        now = dict(zip(left, chances(seen).tolist(), strict=True))
        best = max(now, key=lambda skip: now[skip])
        flat = found.reshape(-1, len(skips))
        worse = np.nanmean(flat - flat[:, [skips.index(best)]], axis=0)
        yield Trained(
            way=way,
            skip=best,
            sure=(1 - flaw) * now[best] + flaw / len(skips),
            scores=tuple((skip, round(float(gap), 5)) for skip, gap in zip(skips, worse, strict=True)),
            chances=tuple((skip, round(now.get(skip, 0.0), 4)) for skip in skips),
            pictures=len(seen),
            looks=number + 1,
            rows=rows,
        )
        if number + 1 >= LEAST:
            if max(now.values()) >= SURE:
                return
            left = [skip for skip in left if now[skip] > HOPELESS]


def by_pictures(
    probe: Probe, pictures: Sequence[Captioned], *, skips: Sequence[int] = CANDIDATES, seed: int = 0
) -> Iterator[Trained]:
    """The test on captioned pictures: the error of denoising them, with the text at each Clip Skip.

    A denoiser is trained to predict the noise on captioned pictures (Ho et al. 2020, equation 14) with the text at one
    Clip Skip, so there its error is the lowest; with the same picture, noise and noise level at every Clip Skip
    nothing else differs. Errors count as logarithms: a picture by how much the Clip Skips differ on it, not by how hard
    it is.
    """

    def ask(number: int, left: Sequence[int]) -> tuple[NDArray[np.float64], int]:
        picture = pictures[number % len(pictures)]
        noisy = probe.add_noise(picture.latent, HIGHEST * spread_out(number + 1), seed=seed + number)
        said = probe.predict(noisy.latent, noisy.timestep, probe.layers(picture.caption, left))
        squares = (said - noisy.target.cpu()).square().mean(dim=(1, 2, 3))
        return squares.double().log().numpy(), len(left)

    known = [skip for skip in skips if skip <= probe.depth]
    return contest(ask, way="captioned pictures", pictures=len(pictures), skips=known, flaw=PICTURES_FLAW)


PICTURES_FLAW = 0.04
"""See docs/advise.md: none of its cases was wrong, and there were too few to say less."""
