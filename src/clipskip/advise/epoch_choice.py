"""Choosing among a LoRA's epochs: measurements at each Clip Skip in; the epoch to use, and how sure that is, out."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clipskip.advise.chances import DRAWS, chances
from clipskip.advise.verdict import Answer

ALIKE = 0.05
"""An epoch and Clip Skip that is better than the best with at least this chance counts as no worse."""
MODEST = 0.6
"""Without pictures nothing is surer than this: what a LoRA adds is not yet what it was to learn."""
SPECIFIC = 1.2
"""A LoRA of which no epoch adds so many times what it changes besides acts on every prompt alike, as a style does."""
FITS = "With it the model denoises the captioned pictures best"
STANDS_OUT = "There what its prompt calls stands out most from what it changes besides"
EVERYWHERE = (
    "It acts on prompts that do not call it as much as on those that do, as styles do, so what it adds cannot be told from what it "
    "spoils; captioned pictures of what it was to learn (--images) would tell"
)

Cells = NDArray[np.float64]
"""[looks, epochs, skips]"""


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochChoice:
    """The epoch to use."""

    answer: Answer
    epoch: int
    """Its place among the epochs, from 0; where nothing is known, where to start."""
    skip: int
    sure: float
    """0 to 1: that nothing else is better by more than noise."""
    alike: tuple[tuple[int, int], ...]
    """(Place, Clip Skip) of all that the measure cannot tell from the best, itself among them."""
    text: str


def choose_epoch(
    called: Cells, besides: Cells, error: Cells | None, *, skips: Sequence[int], trained: int
) -> tuple[EpochChoice, NDArray[np.float64]]:
    """Return the earliest epoch that nothing beats by more than noise, at the Clip Skip where it was trained if that is among them."""
    epochs, columns = called.shape[1:]
    losses = besides - called if error is None else error
    flat = losses.reshape(len(losses), -1)
    chance = chances(flat)
    best = int(flat.mean(0).argmin())
    alike = [divmod(int(cell), columns) for cell in np.flatnonzero(no_worse(flat, best) >= ALIKE)]
    epoch = min(row for row, _ in alike)
    own = [column for row, column in alike if row == epoch]
    column = next(
        (at for at in own if skips[at] == trained), min(own, key=lambda at: float(losses[:, epoch, at].mean()))
    )
    sure = float(sum(chance[row * columns + at] for row, at in alike))
    answer, text = Answer.VALUE, FITS if error is not None else STANDS_OUT
    if len(alike) == epochs * columns:
        answer, text = Answer.NO_DIFFERENCE, "What tells all of them apart is noise, so the earliest will do"
    elif error is None and not bool((called.mean(0) >= SPECIFIC * besides.mean(0)).any()):
        answer, text = Answer.NOT_KNOWN, EVERYWHERE
    elif len(alike) > 1:
        text += f"; {len(alike)} of {epochs * columns} cannot be told from the best, and this is the earliest of them"
    choice = EpochChoice(
        answer=answer,
        epoch=epoch,
        skip=skips[column],
        sure=sure if error is not None else min(sure, MODEST),
        alike=tuple((row, skips[at]) for row, at in alike),
        text=text,
    )
    return choice, chance.reshape(epochs, columns)


def no_worse(losses: NDArray[np.float64], best: int) -> NDArray[np.float64]:
    """Return for each cell how probable it is that its mean is no higher than that of column `best` (Bayesian bootstrap, as in
    `chances`)."""
    shares = np.random.default_rng(1).dirichlet(np.ones(len(losses)), DRAWS)
    share: NDArray[np.float64] = ((shares @ (losses - losses[:, [best]])) <= 0).mean(axis=0)
    return share
