"""Measures of the UNet's predictions on the way to a picture, at several Clip Skips.

Effects are ratios of lengths and projections of vectors that the UNet predicted for the same latents: means over the views of
[views, skips, numbers]. Three things say whether a picture is sound: the conditioning, the guidance, and the guess of the clean
picture that a sampler would make from it (Ho et al. 2020, equation 15), as ratios to the reference, the Clip Skip that the model
was trained at.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clipskip.encode import condition
from clipskip.measures.probe import Latent, Probe, TextRows
from clipskip.sample import Picture, find_sampler, sample

SAMPLER, STEPS = "Euler", 10
SEEN = (1, 3, 5, 7)
"""After which of the steps the UNet is asked: from almost noise to where small things are settled."""

Answers = Float[Tensor, "views skips numbers"]
"""Predictions of one text at several Clip Skips, each as one long vector."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LatentView:
    """A latent on the way from noise to a picture."""

    latent: Latent
    """Scaled as the UNet sees it."""
    timestep: float


def views_of(probe: Probe, *, seeds: Sequence[int]) -> tuple[LatentView, ...]:
    """Four latents on the way to each seed's picture, with the LoRAs that are merged now, at the render's Clip Skip."""
    sigmas = replace(find_sampler(SAMPLER)[0], trained=probe.levels).sigmas(STEPS)
    guesses = []
    for seed in seeds:
        plain = replace(probe.render, sampler=SAMPLER, scheduler="Automatic", steps=STEPS, seed=seed)
        picture = Picture(render=plain, conditioning=condition(probe.reader, plain))
        for step in sample(probe.unet, [picture], prediction=probe.prediction):
            if step.number in SEEN:
                sigma = float(sigmas[step.number])
                seen = step.latent[0] / math.hypot(1, sigma)
                guesses.append(LatentView(latent=seen, timestep=probe.levels.timestep(sigma)))
            if step.number == SEEN[-1]:
                break
    return tuple(guesses)


def view_rows(seeds: int) -> int:
    """UNet evaluations that `views_of` takes."""
    return 2 * SEEN[-1] * seeds


def answers(probe: Probe, views: Sequence[LatentView], texts: Mapping[str, TextRows]) -> dict[str, Answers]:
    """Return the UNet's predictions for each view with each text, by the text's name; texts of one length share a batch."""
    answers: dict[str, Answers] = {}
    for length in sorted({text.tokens.shape[1] for text in texts.values()}):
        alike = {name: text for name, text in texts.items() if text.tokens.shape[1] == length}
        whole = TextRows.joined(list(alike.values()))
        said = torch.stack([probe.predict(view.latent, view.timestep, whole).flatten(1) for view in views])
        answers |= dict(zip(alike, torch.split(said, [len(text) for text in alike.values()], dim=1), strict=True))
    return answers


def guesses_of(
    probe: Probe, views: Sequence[LatentView], predicted: Answers
) -> Float[Tensor, "views skips channels height width"]:
    """Return the clean picture, as a latent, that each prediction makes of its view."""
    return torch.stack(
        [
            probe.clean(view.latent.cpu()[None], view.timestep, answer.unflatten(1, view.latent.shape))
            for view, answer in zip(views, predicted, strict=True)
        ]
    )


Curve = Float[Tensor, " skips"]
OneOrAll = Float[Tensor, "views #skips numbers"]
"""Answers at each Clip Skip, or one that stands beside all of them."""
TINY = 1e-12


def share_kept(effect: Answers, *, reference: int) -> Curve:
    """Return how much of the effect at the Clip Skip of column `reference` is in the effect at each: <e_s, e_r> / <e_r, e_r>.

    1 at the reference; 0 where the effect points elsewhere; negative where it points against it.
    """
    anchor = effect[:, reference : reference + 1]
    dots, own = (effect * anchor).sum(-1), anchor.square().sum(-1)
    return dots.sum(0) / own.sum(0).clamp_min(TINY)


def size_beside(effect: Answers, other: OneOrAll) -> Curve:
    """Return the effect's length as a share of another's, at each Clip Skip: root mean squares over the views."""
    return (effect.square().sum((0, 2)) / other.square().sum((0, 2)).clamp_min(TINY)).sqrt()


def agreement(effect: Answers, other: Answers) -> Curve:
    """Return the cosine between two effects at each Clip Skip: 1 they pull together, 0 apart, -1 against each other."""
    dots = (effect * other).sum(-1).sum(0)
    return dots / (effect.square().sum((0, 2)) * other.square().sum((0, 2))).sqrt().clamp_min(TINY)


LEAST_KEPT, MOST_MOVED, MOST_CHANGED = 0.5, 1.0, 1.0
SIGNS = 2
"""How many of them make a broken picture: one alone warns of more broken ones, and of more sound ones (docs/advise.md)."""

Texts = Float[Tensor, "skips tokens width"]
Others = Float[Tensor, "skips other_tokens width"]
"""Texts of another length."""
Guesses = Float[Tensor, "views skips channels height width"]


def distance(texts: Texts, other: Others) -> Curve:
    """Between two conditionings, over the tokens that both have: the length of their difference, on the CPU."""
    tokens = min(texts.shape[1], other.shape[1])
    return (texts[:, :tokens] - other[:, :tokens]).square().sum((1, 2)).sqrt().cpu()


def conditioning_distance(prompt: Texts, negative: Others, *, reference: int) -> Curve:
    """Return how far the prompt's conditioning is from that of column `reference`, as a share of how far the negative prompt's
    is from it there: |c_s - c_r| / |c_r - n_r|. At 1 the layer has moved the prompt as far as leaving it out would."""
    anchor, apart = prompt[reference : reference + 1], negative[reference : reference + 1]
    return distance(prompt, anchor.expand_as(prompt)) / distance(anchor, apart).clamp_min(TINY)


def contrast(guesses: Guesses, *, reference: int) -> Curve:
    """Return how far the guesses spread about their own means, relative to the reference, which is 1."""
    return _beside(_spread(guesses), reference)


def detail(guesses: Guesses, *, reference: int) -> Curve:
    """Return how far neighbouring cells of the guesses differ, relative to the reference, which is 1."""
    steps = torch.stack([guesses.diff(dim=dim).square().mean((2, 3, 4)) for dim in (-1, -2)]).mean(0)
    return _beside(steps, reference)


def change(guesses: Guesses, *, reference: int) -> Curve:
    """Return how far the guesses are from those at the reference, over how far those spread about their own means: 0 there, 1 where
    as much has changed as there was to see, 1.4 between pictures that have nothing to do with each other."""
    anchor = guesses[:, reference : reference + 1]
    moved = (guesses - anchor).square().mean((2, 3, 4))
    return (moved.mean(0) / _spread(anchor).mean(0).clamp_min(TINY)).sqrt()


def signs(*, kept: Curve, moved: Curve, changed: Curve) -> Int[Tensor, " skips"]:
    """Return how many of the three signs of a broken picture hold at each Clip Skip."""
    return torch.stack([kept < LEAST_KEPT, moved > MOST_MOVED, changed > MOST_CHANGED]).sum(0)


def broken_from(skips: Sequence[int], *, kept: Curve, moved: Curve, changed: Curve) -> int | None:
    """Return the Clip Skip from which on the picture is likely to fall apart, to the deepest of `skips`; None for nowhere.

    So it is where at least two of three hold: less than half of the guidance is kept, the conditioning has moved farther
    than the negative prompt is away, more of the guessed picture has changed than there was to see in it.
    """
    counts = signs(kept=kept, moved=moved, changed=changed).tolist()
    first = None
    for skip, count in sorted(zip(skips, counts, strict=True), reverse=True):
        if count < SIGNS:
            return first
        first = skip
    return first


def _spread(guesses: Guesses) -> Float[Tensor, "views skips"]:
    return (guesses - guesses.mean((3, 4), keepdim=True)).square().mean((2, 3, 4))


def _beside(squares: Float[Tensor, "views skips"], reference: int) -> Curve:
    whole = squares.mean(0)
    return (whole / whole[reference].clamp_min(TINY)).sqrt()
