"""Which Clip Skip was the model trained at, and how sure is that? Four ways to ask, each with its own sources below.

A paired, sequential test between Clip Skips, on captioned pictures or on the model's own drawings; the mark that training
left in a LoRA's weights, or in what a checkpoint changed of its base.

Own drawings: a denoiser's guess of the clean picture is a mean, so it cannot drift: the mean of the guesses one noise level
lower is the guess itself (Daras et al. 2023, "Consistent diffusion models", equation 4; de Bortoli et al. call it a
martingale). Training teaches that only for the texts that training showed, as they come from one Clip Skip; texts from another
layer leave the network to improvise, and its guesses drift. The drift's square is estimated without bias as the product of two
guesses from independent noise.

Weights: training moves a matrix only along the inputs that it saw: its gradient is a sum of (something) times input (for a
LoRA's `down`: Hu et al. 2021, h = W x + B A x). In cross-attention those inputs are the text's vectors at the trained Clip
Skip. So there the change answers most, for its size, to how the text's vectors vary.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from clipskip.encode import TextReader, condition, encode_layers
from clipskip.errors import DamagedFile, NotFound, WrongKind
from clipskip.image import encode
from clipskip.measures import Latent, Probe, TextRows, chances, spread_out
from clipskip.prompt import token_ids
from clipskip.sample import Picture, sample
from clipskip.spec import ClipSkip, Render
from clipskip.sweep import Model
from clipskip.weights import load_checkpoint
from clipskip.weights.lora import Lora

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
    """The state of the contest after some looks."""

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
    """Yield the state of the contest after each look, until it is decided or there is no more to look at.

    A picture that comes again counts once, with the mean of its scores. `flaw` is how often the method itself is taken
    to be wrong, whatever it sees.
    """
    left, rows = list(skips), 0
    errors = np.full((rounds, pictures, len(skips)), np.nan)
    for number in range(min(pictures * rounds, MOST)):
        turn, at = divmod(number, pictures)
        columns = [skips.index(skip) for skip in left]
        errors[turn, at, columns], asked = ask(number, left)
        rows += asked
        seen = np.nanmean(errors[: turn + 1, : at + 1 if turn == 0 else None, columns], axis=0)
        now = dict(zip(left, chances(seen).tolist(), strict=True))
        best = max(now, key=lambda skip: now[skip])
        flat = errors.reshape(-1, len(skips))
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
    """Return the test on captioned pictures: the error of denoising them, with the text at each Clip Skip.

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


DRAWN_CANDIDATES = (1, 2, 3, 4)
LEVELS = (200.0, 400.0, 600.0)
"""Noise levels at which guesses are compared with those at three quarters of the level."""
LOWER = 0.75
DRAWING_STEPS = 12
"""Of a drawing: without guidance, so one UNet evaluation each."""
DRAWING_ROWS = DRAWING_STEPS + 3 * len(DRAWN_CANDIDATES) * len(LEVELS)
"""UNet evaluations for one drawing, at most."""
DRAWINGS = 48
DRAWINGS_FLAW = 0.5
"""It tells a long training, and nothing of a short one after it: right on two of five models (docs/advise.md)."""


def by_drawings(
    probe: Probe, renders: Sequence[Render], *, skips: Sequence[int] = DRAWN_CANDIDATES
) -> Iterator[Trained]:
    """Return the test on pictures that the model draws of some prompts, at the candidates by turns."""
    known = [skip for skip in skips if skip <= probe.depth]

    def ask(number: int, left: Sequence[int]) -> tuple[NDArray[np.float64], int]:
        render = renders[number % len(renders)]
        latent = drawing(probe, render, skip=known[number % len(known)])
        probe.tell(DRAWING_STEPS)
        texts = probe.layers(render.prompt, left)
        drifts = [drift(probe, latent, level, texts, seed=render.seed + 7919 * n) for n, level in enumerate(LEVELS)]
        return np.mean(drifts, axis=0), DRAWING_STEPS + 3 * len(left) * len(LEVELS)

    return contest(ask, way="its own drawings", pictures=len(renders), skips=known, flaw=DRAWINGS_FLAW, rounds=1)


def drawing(probe: Probe, render: Render, *, skip: int) -> Latent:
    """Return a picture's latent, without guidance."""
    plain = replace(
        render, clip_skip=ClipSkip(skip), negative_clip_skip=None, cfg_scale=1.0, steps=DRAWING_STEPS, sampler="Euler a",
        scheduler="Automatic",
    )  # fmt: skip
    picture = Picture(render=plain, conditioning=condition(probe.reader, plain))
    latent = None
    for step in sample(probe.unet, [picture], prediction=probe.prediction):
        latent = step.latent[0]
    assert latent is not None
    return latent.cpu()


def drift(probe: Probe, latent: Latent, level: float, texts: TextRows, *, seed: int) -> NDArray[np.float64]:
    """[skips]: the square of each text's drift from a noise level to a lower one, as a share of the guesses' spread."""
    table = probe.levels
    high, low = table.sigma(level), table.sigma(LOWER * level)
    generator = torch.Generator().manual_seed(seed)
    noises = [torch.randn(latent.shape, generator=generator) for _ in range(3)]
    x = latent + high * noises[0]
    first = _guesses(probe, x.expand(len(texts), *x.shape), high, texts)
    share = (low / high) ** 2
    spread = low * math.sqrt(1 - share)
    moved = [_guesses(probe, first + share * (x - first) + spread * noise, low, texts) - first for noise in noises[1:]]
    squares = (moved[0] * moved[1]).mean(dim=(1, 2, 3)).double().numpy()
    scale = float((moved[0] - moved[1]).square().mean()) / 2
    return np.asarray(squares / max(scale, 1e-12))


def _guesses(
    probe: Probe,
    x: Float[Tensor, "skips channels height width"],
    sigma: float,
    texts: TextRows,
) -> Float[Tensor, "skips channels height width"]:
    """Return the clean picture that each text makes of its latent."""
    scaled, timestep = x / math.hypot(1, sigma), probe.levels.timestep(sigma)
    return probe.clean(scaled, timestep, probe.predict_each(scaled, timestep, texts))


CROSS = ("attn2.to_k", "attn2.to_v")
"""The only modules of the UNet that see the text."""
LEAST_MODULES = 8
"""Modules below which nothing is concluded."""
FOOTPRINT_FLAW = 0.1


def by_footprint(lora: Lora, reader: TextReader, texts: Sequence[str], *, skips: Sequence[int]) -> Trained | None:
    """Return what the LoRA's cross-attention says; None for one that has too few plain down matrices there.

    `reader` reads texts with this LoRA merged, and the texts should be like those that it was trained on.
    """
    downs = {
        name: module.parts["down"].float().flatten(1)
        for name, module in lora.modules.items()
        if name.endswith(CROSS) and "down" in module.parts
    }
    return (
        _concluded(downs, reader, texts, skips=skips, way="the LoRA's weights") if len(downs) >= LEAST_MODULES else None
    )


def by_difference(
    model: Path,
    base: Path,
    reader: TextReader,
    texts: Sequence[str],
    *,
    skips: Sequence[int],
    allow_pickle: bool = False,
) -> Trained:
    """Return what the difference between a checkpoint and the one that it was made from says.

    WrongKind where their cross-attention has other shapes, or does not differ.
    """
    own, other = (_cross_attention(path, allow_pickle=allow_pickle) for path in (model, base))
    if {name: one.shape for name, one in own.items()} != {name: weight.shape for name, weight in other.items()}:
        raise WrongKind(f"{base.name} is not what {model.name} was made from: its UNet has other shapes", field="base")
    changes = {name: weight - other[name] for name, weight in own.items()}
    changes = {name: change for name, change in changes.items() if change.any()}
    if len(changes) < LEAST_MODULES:
        raise WrongKind(
            f"{model.name} reads texts with the weights of {base.name}: nothing was trained between them; give the "
            "checkpoint that it was made from",
            field="base",
        )
    return _concluded(changes, reader, texts, skips=skips, way="the change from its base")


def _cross_attention(path: Path, *, allow_pickle: bool) -> dict[str, Tensor]:
    weights = load_checkpoint(path, dtype=torch.float32, allow_pickle=allow_pickle).unet
    return {name: value for name, value in weights.items() if name.removesuffix(".weight").endswith(CROSS)}


def _concluded(
    matrices: Mapping[str, Float[Tensor, "rank width"]],
    reader: TextReader,
    texts: Sequence[str],
    *,
    skips: Sequence[int],
    way: str,
) -> Trained:
    known = [skip for skip in skips if skip <= reader.depth]
    answers = gains(matrices, _variations(reader, texts, known)).log().double().numpy()
    now = chances(-answers)
    best = int(now.argmax())
    return Trained(
        way=way,
        skip=known[best],
        sure=(1 - FOOTPRINT_FLAW) * float(now[best]) + FOOTPRINT_FLAW / len(known),
        scores=tuple(
            (skip, round(float(worse), 5))
            for skip, worse in zip(known, (answers[:, best : best + 1] - answers).mean(0), strict=True)
        ),
        chances=tuple((skip, round(float(chance), 4)) for skip, chance in zip(known, now, strict=True)),
        pictures=0,
        looks=len(matrices),
        rows=0,
    )


def gains(
    downs: Mapping[str, Float[Tensor, "rank width"]], variations: Float[Tensor, "skips tokens width"]
) -> Float[Tensor, "modules skips"]:
    """Return how strongly each module answers to each Clip Skip's vectors, for their size: |down x|^2 / |x|^2, summed."""
    size = variations.square().sum((1, 2))
    return torch.stack([(variations @ down.T).square().sum((1, 2)) / size for down in downs.values()])


def _variations(reader: TextReader, texts: Sequence[str], skips: Sequence[int]) -> Float[Tensor, "skips tokens width"]:
    """Return the texts' vectors at each Clip Skip without their mean: what differs from word to word."""
    wanted = [ClipSkip(skip) for skip in skips]
    scores = []
    for text in texts:
        layers = encode_layers(reader, text, wanted)
        scores.append(torch.stack([layers[skip][1 : _said(text, layers[skip])] for skip in wanted]))
    whole = torch.cat(scores, dim=1).float().cpu()
    return whole - whole.mean(dim=1, keepdim=True)


def _said(text: str, vectors: Tensor) -> int:
    """Return the place after the text's last token, in its first chunk."""
    return min(1 + max(1, len(token_ids(text))), 76, len(vectors))


KINDS = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}
CAPTIONS = (".txt", ".caption")


def read_pictures(folder: Path, model: Model) -> tuple[Captioned, ...]:
    """Return the pictures that have a caption, at most 256, cut to the model's square and encoded.

    NotFound where the folder is not there or none has a caption.
    """
    if not folder.is_dir():
        raise NotFound(
            f"{folder} is not a folder; give one that holds pictures and captions (x.png and x.txt)", field="images"
        )
    pictures = sorted(path for path in folder.rglob("*") if path.suffix.lower() in KINDS)
    captioned = [(path, text) for path in pictures if (text := _caption(path))]
    if not captioned:
        raise NotFound(
            f"{folder} holds {len(pictures)} pictures and no caption; put a text of the same name beside each "
            "(x.png and x.txt)",
            field="images",
        )
    return tuple(_encoded(path, text, model) for path, text in captioned[:MOST])


def _caption(path: Path) -> str:
    for kind in CAPTIONS:
        beside = path.with_suffix(kind)
        if beside.is_file():
            return beside.read_text(encoding="utf-8-sig", errors="replace").strip()
    return ""


def _encoded(path: Path, caption: str, model: Model) -> Captioned:
    side = model.facts.native_px
    try:
        with Image.open(path) as opened:
            square = ImageOps.fit(
                ImageOps.exif_transpose(opened).convert("RGB"), (side, side), Image.Resampling.LANCZOS
            )
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise DamagedFile(
            f"{path} cannot be read as a picture: {error}; take it out of the folder", field="images"
        ) from None
    return Captioned(latent=encode(model.vae, np.array(square)[None])[0].cpu(), caption=caption)
