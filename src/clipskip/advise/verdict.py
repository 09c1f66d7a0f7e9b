"""The verdict: evidence on the model, its LoRAs and the prompt in; one Clip Skip, the reason, and how sure it is, out.

Of a LoRA's epochs: measurements at each Clip Skip in; the epoch to use, and how sure that is, out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from clipskip.advise.prompted import Prompted
from clipskip.measures import DRAWS, chances

MOST_SURE = 0.99
"""Nothing is called surer than this."""
KNOWN = 0.6
"""A trained Clip Skip that is less probable than this counts as not known."""
ALIKE = 0.03
"""Guidance that changes by less than this share between Clip Skips makes no difference that matters."""
NO_WORSE = 0.05
"""An epoch and Clip Skip that is better than the best with at least this chance counts as no worse."""
MODEST = 0.6
"""Without pictures nothing is surer than this: what a LoRA adds is not yet what it was to learn."""
SPECIFIC = 1.2
"""A LoRA of which no epoch adds so many times what it changes besides acts on every prompt alike, as a style does."""
MODEL = "the model"
FITS = "With it the model denoises the captioned pictures best"
STANDS_OUT = "There what its prompt calls stands out most from what it changes besides"
EVERYWHERE = (
    "It acts on prompts that do not call it as much as on those that do, as styles do, so what it adds cannot be told from what it "
    "spoils; captioned pictures of what it was to learn (--images) would tell"
)

Chances = Mapping[int, float]
"""How probable it is, by Clip Skip, that something was trained at it."""
Cells = NDArray[np.float64]
"""[looks, epochs, skips]"""


class Answer(StrEnum):
    """The kind of a verdict."""

    VALUE = "value"
    NO_DIFFERENCE = "no difference that matters"
    NOT_KNOWN = "not known"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One Clip Skip."""

    answer: Answer
    skip: int
    """What to use; where nothing is known, where to start."""
    sure: float
    """0 to 1."""
    text: str
    """At most two sentences, without the number: a tool may count otherwise."""


def decide(model: Chances, loras: Mapping[str, Chances], prompted: Prompted | None, *, default: int) -> Verdict:
    """Return the verdict; `default` is where the model's family starts."""
    trained, sure = _most(model)
    if prompted is not None and _skips_alike(prompted):
        text = "Every Clip Skip that was asked about guides this prompt alike" + _ignored(prompted)
        return Verdict(answer=Answer.NO_DIFFERENCE, skip=trained if sure >= KNOWN else default, sure=1.0, text=text)
    if sure < KNOWN and not any(_most(chances)[1] >= KNOWN for chances in loras.values()):
        text = "Nothing says what this was trained at; captioned pictures of its kind (--images) would"
        return Verdict(answer=Answer.NOT_KNOWN, skip=default, sure=sure, text=text)
    if not loras:
        text = "This model was most probably trained at it" + _ignored(prompted)
        return Verdict(answer=Answer.VALUE, skip=trained, sure=sure, text=text)
    return _with_loras(model, loras, prompted)


def _with_loras(model: Chances, loras: Mapping[str, Chances], prompted: Prompted | None) -> Verdict:
    """Return the Clip Skip that what is known of the model and LoRAs was trained at if it is one; else the one that loses
    the least of them."""
    every = [(name, *_most(chances)) for name, chances in ((MODEL, model), *loras.items())]
    known = [one for one in every if one[2] >= KNOWN]
    best = known[0][1]
    others = [f"{name} at {skip}" for name, skip, _ in known if skip != best]
    if not others or prompted is None or not prompted.loras:
        least = min(sure for _, skip, sure in known if skip == best)
        text = ", ".join([_trained([name for name, skip, _ in known if skip == best], "it"), *others])
        unknown = [name for name, _, sure in every if sure < KNOWN]
        text += f"; nothing tells what {' and '.join(unknown)} {_was(unknown)} trained at" if unknown else ""
        return Verdict(answer=Answer.VALUE, skip=best, sure=least, text=text + _ignored(prompted))
    worth = {skip: _kept(prompted, column) for column, skip in enumerate(prompted.skips)}
    kept = max(worth, key=lambda skip: worth[skip])
    text = (
        f"{_trained([known[0][0]], str(best))}, {', '.join(others)}; here the least of both is lost: "
        f"{worth[kept]:.0%} is left of the weaker"
    )
    return Verdict(answer=Answer.VALUE, skip=kept, sure=min(sure for _, _, sure in known), text=text)


def _trained(names: Sequence[str], at: str) -> str:
    """Return the start of a sentence that says what was trained at a Clip Skip."""
    text = f"{' and '.join(names)} {_was(names)} most probably trained at {at}"
    return f"The{text.removeprefix('the')}" if names[0] == MODEL else text


def _was(names: Sequence[str]) -> str:
    return "was" if len(names) == 1 else "were"


def _kept(prompted: Prompted, column: int) -> float:
    """Return the weakest of the guidance and the LoRAs' uptake at a Clip Skip, of what each is at its own."""
    return min([prompted.guidance_kept[column], *(lora.uptake[column] for lora in prompted.loras)])


def _most(chances: Chances) -> tuple[int, float]:
    best = max(chances, key=lambda skip: chances[skip])
    return best, chances[best]


def _skips_alike(prompted: Prompted) -> bool:
    both = zip(prompted.guidance_kept, prompted.guidance_size, strict=True)
    return all(abs(kept - 1) < ALIKE and abs(size - 1) < ALIKE for kept, size in both)


def _ignored(prompted: Prompted | None) -> str:
    """Return a second sentence about phrases that nothing reacts to."""
    ignored: Sequence[str] = [phrase.phrase for phrase in prompted.phrases if phrase.ignored] if prompted else []
    if not ignored:
        return ""
    return (
        f". No Clip Skip makes the model react to {', '.join(repr(phrase) for phrase in ignored[:3])}: say it otherwise"
    )


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
    alike = [divmod(int(cell), columns) for cell in np.flatnonzero(no_worse(flat, best) >= NO_WORSE)]
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
