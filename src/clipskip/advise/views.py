"""A render in; what the model's UNet says on the way to its picture, text by text and layer by layer, out."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from clipskip.advise.probe import Latent, Probe, TextRows
from clipskip.encode import condition
from clipskip.sample import Picture, find_sampler, sample

SAMPLER, STEPS = "Euler", 10
SEEN = (1, 3, 5, 7)
"""After which of the steps the UNet is asked: from almost noise to where small things are settled."""

Answers = Float[Tensor, "views skips numbers"]
"""Predictions of one text at several Clip Skips, each as one long vector."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class View:
    """A latent on the way from noise to a picture."""

    latent: Latent
    """Scaled as the UNet sees it."""
    timestep: float


def views_of(probe: Probe, *, seeds: Sequence[int]) -> tuple[View, ...]:
    """Four latents on the way to each seed's picture, with the LoRAs that are merged now, at the render's Clip Skip."""
    sigmas = replace(find_sampler(SAMPLER)[0], trained=probe.levels).sigmas(STEPS)
    found = []
    for seed in seeds:
        plain = replace(probe.render, sampler=SAMPLER, scheduler="Automatic", steps=STEPS, seed=seed)
        picture = Picture(render=plain, conditioning=condition(probe.reader, plain))
        for step in sample(probe.unet, [picture], prediction=probe.prediction):
            if step.number in SEEN:
                sigma = float(sigmas[step.number])
                seen = step.latent[0] / math.hypot(1, sigma)
                found.append(View(latent=seen, timestep=probe.levels.timestep(sigma)))
            if step.number == SEEN[-1]:
                break
    return tuple(found)


def view_rows(seeds: int) -> int:
    """UNet evaluations that `views_of` takes."""
    return 2 * SEEN[-1] * seeds


def answers(probe: Probe, views: Sequence[View], texts: Mapping[str, TextRows]) -> dict[str, Answers]:
    """What the UNet predicts of each view with each text, by the text's name; texts of one length go together."""
    found: dict[str, Answers] = {}
    for length in sorted({text.tokens.shape[1] for text in texts.values()}):
        alike = {name: text for name, text in texts.items() if text.tokens.shape[1] == length}
        whole = TextRows.joined(list(alike.values()))
        said = torch.stack([probe.predict(view.latent, view.timestep, whole).flatten(1) for view in views])
        found |= dict(zip(alike, torch.split(said, [len(text) for text in alike.values()], dim=1), strict=True))
    return found


def guesses_of(
    probe: Probe, views: Sequence[View], predicted: Answers
) -> Float[Tensor, "views skips channels height width"]:
    """The clean picture, as a latent, that each prediction makes of its view."""
    return torch.stack(
        [
            probe.clean(view.latent.cpu()[None], view.timestep, one.unflatten(1, view.latent.shape))
            for view, one in zip(views, predicted, strict=True)
        ]
    )
