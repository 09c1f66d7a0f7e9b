"""The loop from noise to latent: guidance for one or several pictures, yielded step by step."""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clipskip.encode import Conditioning, TextVectors, vectors_at
from clipskip.errors import SpecError
from clipskip.networks import Memory, UNet
from clipskip.sample.noise import Latent, PictureNoise, paths, step_noise
from clipskip.sample.ode import AddedNoise, Model, Steps
from clipskip.sample.samplers import Sampler, find_sampler
from clipskip.sample.sigmas import NoiseTable, stable_diffusion
from clipskip.sample.start import Begin, Kept, Way, noised, way_down, whole_way
from clipskip.spec import ZERO_TERMINAL_SNR, Render

LCM_SIGMA_DATA = 0.5
LCM_TIME_SCALE = 10.0
PREDICTIONS = ("epsilon", "v")
COMFYUI = "ComfyUI"
"""The emphasis of pictures that are drawn as ComfyUI draws them."""
TOGETHER = (
    "sampler", "scheduler", "noise_schedule", "refiner", "refiner_switch_at",
    "steps", "width", "height", "emphasis", "eta", "s_churn", "s_tmin", "s_tmax", "s_noise",
)  # fmt: skip
"""The settings that must be equal in pictures drawn at once."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Picture:
    """One picture to draw."""

    render: Render
    conditioning: Conditioning
    index: int = 0
    """Its number in a batch of one seed; A1111 adds it to the seed."""
    start: Begin | None = None
    """Where it begins, unless it begins at noise alone."""
    beside: Float[Tensor, "5 height width"] | None = None
    """What an inpainting model is given beside the latent: the mask, and the latent of the picture without the masked
    part."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Refiner:
    """A second model that takes over once the render's share of the noise is gone."""

    unet: UNet
    prediction: str
    conditionings: Sequence[Conditioning]
    """Each picture's conditioning by the refiner's own text encoder."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Step:
    """The pictures after a step."""

    number: int
    """Counted from 1."""
    total: int
    latent: Latent
    """After the last step this is what the VAE decodes (times 1 / its scaling factor)."""
    denoised: Latent
    """The model's estimate of the finished pictures at this step, for previews."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Row:
    """One text that the UNet is asked about."""

    picture: int
    share: float
    """The weight of its prediction in the picture's."""
    text: TextVectors


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class UNetBatch:
    """Rows that the UNet takes at once: texts of one length."""

    pictures: Int[Tensor, " rows"]
    seen: Int[Tensor, " seen"]
    """The pictures among them, each once."""
    copies: Int[Tensor, " rows"] | None
    """For each row, its place in `seen`; None where each row has a picture of its own."""
    shares: Float[Tensor, "rows 1 1 1"]
    texts: Float[Tensor, "rows tokens width"]
    added: Float[Tensor, "rows added"] | None
    """The vector beside each text, where the family has one."""


@torch.inference_mode()
def sample(
    unet: UNet,
    pictures: Sequence[Picture],
    *,
    prediction: str = "epsilon",
    rows: int | None = None,
    refiner: Refiner | None = None,
) -> Iterator[Step]:
    """Yield the steps of drawing several pictures at once; stop iterating to cancel.

    The pictures may differ in text, guidance, seed and the picture that they begin at, but must share sampler, schedule
    type, steps, size and denoising strength. Each comes out as if drawn alone, up to rounding. `rows` limits how many
    texts the UNet takes at once: 2 is best on a CPU, None (all) on a GPU with enough memory. Raises SpecError for
    pictures that cannot be drawn together.
    """
    render = _shared(pictures)
    begins = [p.start for p in pictures if p.start is not None]
    sampler, schedule = find_sampler(render.sampler, render.scheduler, begun=bool(begins))
    sampler = replace(sampler, trained=trained_levels(render, sdxl=_is_sdxl(pictures[0])))
    way = _way(sampler, schedule, render, begins)
    noises = [PictureNoise(p.render, index=p.index, shape=_latent_shape(p.start)) for p in pictures]
    first = torch.stack([noise.first() for noise in noises]).to(unet.device)
    kept = Kept.of(begins, first, before=sampler.unit_scale)
    model = Denoiser(unet, pictures, table=sampler.table, prediction=prediction, rows=rows, kept=kept)
    if refiner is not None:
        refined = [replace(p, conditioning=c) for p, c in zip(pictures, refiner.conditionings, strict=True)]
        then = Denoiser(refiner.unet, refined, table=sampler.table, prediction=refiner.prediction, rows=rows)
        model.hand_over(then, at=render.refiner_switch_at)
    if begins:
        x = noised(begins, first, way.first)
        x = x * (math.hypot(1, way.sigmas[0]) / math.hypot(1, way.first)) if sampler.unit_scale and way.sigmas else x
    else:
        x = first * first_scale(sampler, way.first)
    if len(way.sigmas) < 2:
        yield _unmoved(x / math.hypot(1, way.sigmas[0] if way.sigmas else way.first), kept)
    for number, (latent, denoised) in enumerate(_moves(sampler, model, x, way, noises), start=1):
        latent = kept.put_back(latent) if kept else latent
        yield Step(number=number, total=max(number, len(way.sigmas) - 1), latent=latent, denoised=denoised)


def _way(sampler: Sampler, schedule: str, render: Render, begins: Sequence[Begin]) -> Way:
    """Return the noise levels that the pictures visit."""
    if not begins:
        return whole_way(sampler, schedule, render.steps)
    begin = begins[0]
    return way_down(sampler, schedule, render.steps, strength=begin.strength, every_step=begin.every_step)


def _moves(sampler: Sampler, model: Model, x: Latent, way: Way, noises: Sequence[PictureNoise]) -> Steps:
    """Return the sampler's moves with the noise that the renders ask for."""
    render, device = noises[0].render, x.device
    drawn = paths(noises, way.whole, device=device) if sampler.brownian else step_noise(noises, device=device)
    size = render.s_noise if sampler.scales_noise or sampler.churns else 1.0
    added = AddedNoise(
        eta=sampler.eta or 0.0 if render.eta is None else render.eta,
        churn=render.s_churn,
        tmin=render.s_tmin,
        tmax=render.s_tmax or math.inf,
    )
    return sampler.solve(model, x, way.sigmas, drawn if size == 1 else lambda *move: drawn(*move) * size, added)


def _unmoved(latent: Latent, kept: Kept | None) -> Step:
    """Return the only step of a run without a move: as in A1111, the picture with its noise in it."""
    latent = kept.put_back(latent) if kept else latent
    return Step(number=1, total=1, latent=latent, denoised=latent)


def _latent_shape(begin: Begin | None) -> tuple[int, int, int] | None:
    """Return the size of the latent that a picture begins at; None where the render gives it."""
    if begin is None:
        return None
    channels, height, width = begin.latent.shape
    return channels, height, width


def trained_levels(render: Render, *, sdxl: bool = False) -> NoiseTable:
    """Return the noise levels that the model was trained at, for the render's noise schedule."""
    table = stable_diffusion(zero_terminal_snr=render.noise_schedule == ZERO_TERMINAL_SNR, sdxl=sdxl)
    return replace(table, comfyui=True) if render.emphasis == COMFYUI else table


def _is_sdxl(picture: Picture) -> bool:
    return picture.conditioning.negative[0][1].added is not None


@final
class Denoiser:
    """model(x, sigma) -> denoised, with guidance, for one run. It counts its calls, on which prompt editing depends."""

    def __init__(
        self,
        unet: UNet,
        pictures: Sequence[Picture],
        *,
        table: NoiseTable,
        prediction: str,
        rows: int | None = None,
        kept: Kept | None = None,
    ) -> None:
        if prediction not in PREDICTIONS:
            raise SpecError(f"prediction {prediction!r} is unknown; use one of {', '.join(PREDICTIONS)}")
        self._unet = unet
        self._cfg = [float(p.render.cfg_scale) for p in pictures]
        self._conditionings = [p.conditioning.to(device=unet.device, dtype=unet.dtype) for p in pictures]
        self._table = table
        self._prediction = prediction
        self._limit = rows
        self._kept = kept
        beside = [p.beside for p in pictures if p.beside is not None]
        self._beside = torch.stack(beside).to(device=unet.device, dtype=unet.dtype) if beside else None
        self._calls = 0
        self._batches: dict[tuple[int, ...], list[UNetBatch]] = {}
        self._memory: Memory = {}
        self._then: Denoiser | None = None
        self._switch_at, self._switched = 1.0, False

    def hand_over(self, then: "Denoiser", *, at: float) -> None:
        """Let another denoiser take over for good when this share of the noise is gone."""
        self._then, self._switch_at = then, at

    def __call__(self, x: Latent, sigma: float) -> Latent:
        """Return the model's estimate of the pictures without noise, with what masks keep put back."""
        return self._kept.around(self._denoise, x, sigma) if self._kept else self._denoise(x, sigma)

    def _denoise(self, x: Latent, sigma: float) -> Latent:
        if self._then is not None:
            self._switched = self._switched or self._table.gone(sigma) >= self._switch_at
            if self._switched:
                self._then._calls, self._calls = self._calls, self._calls + 1
                return self._then._denoise(x, sigma)
        unit, timestep = math.hypot(1, sigma), self._table.timestep(sigma)
        kept, removed = (1 / unit**2, sigma / unit) if self._prediction == "v" else (1.0, sigma)
        denoised = x * kept - self._predict(x / unit, timestep) * removed
        return _at_boundary(x, denoised, timestep) if self._table.quantized else denoised

    def _predict(self, x: Latent, timestep: float) -> Latent:
        """Return the UNet's guided prediction, uncond + sum of w cfg (cond - uncond), as one weighted sum over rows."""
        scaled = x.to(self._unet.dtype)
        scaled = scaled if self._beside is None else torch.cat([scaled, self._beside], dim=1)
        total = torch.zeros_like(x)
        time = torch.tensor(timestep, device=x.device, dtype=torch.float32)
        for batch in self._current_batches():
            out = self._unet(scaled[batch.seen], time, batch.texts, self._memory, batch.copies, batch.added)
            total.index_add_(0, batch.pictures, out.float() * batch.shares)
        self._calls += 1
        return total

    def _current_batches(self) -> list[UNetBatch]:
        """Return this call's rows in batches. The same texts give the same tensors, by which attention recognises
        them."""
        rows = [
            row
            for picture, (conditioning, cfg) in enumerate(zip(self._conditionings, self._cfg, strict=True))
            for row in _weighted_rows(picture, conditioning, cfg=cfg, call=self._calls)
        ]
        key = tuple(id(row.text) for row in rows)
        if key not in self._batches:
            self._batches[key] = _batches(rows, limit=self._limit or len(rows), device=self._unet.device)
        return self._batches[key]


def _weighted_rows(picture: int, conditioning: Conditioning, *, cfg: float, call: int) -> list[Row]:
    """Return each text with a weight at this call; at a guidance of 1 the negative prompt has none."""
    parts = [
        Row(picture=picture, share=cfg * part.weight, text=vectors_at(part.schedule, call))
        for part in conditioning.positive
    ]
    negative_share = 1.0 - sum(part.share for part in parts)
    negative = Row(picture=picture, share=negative_share, text=vectors_at(conditioning.negative, call))
    return [row for row in (*parts, negative) if row.share]


def _batches(rows: Sequence[Row], *, limit: int, device: torch.device) -> list[UNetBatch]:
    """Group rows by their number of tokens, at most `limit` in one batch."""
    by_length: defaultdict[int, list[Row]] = defaultdict(list)
    for row in rows:
        by_length[len(row.text.tokens)].append(row)
    groups = [group[i : i + limit] for group in by_length.values() for i in range(0, len(group), limit)]
    return [_batch(group, device) for group in groups]


def _batch(group: Sequence[Row], device: torch.device) -> UNetBatch:
    pictures = torch.tensor([row.picture for row in group])
    added = [row.text.added for row in group if row.text.added is not None]
    seen, copies = torch.unique(pictures, return_inverse=True)
    return UNetBatch(
        pictures=pictures.to(device),
        seen=seen.to(device),
        copies=copies.to(device) if len(seen) < len(group) else None,
        shares=torch.tensor([row.share for row in group], device=device).view(-1, 1, 1, 1),
        texts=torch.stack([row.text.tokens for row in group]),
        added=torch.stack(added) if added else None,
    )


def _at_boundary(x: Latent, denoised: Latent, timestep: float) -> Latent:
    """Return an LCM's picture: its boundary condition mixes in the input near timestep 0 (Luo et al. 2023, equation
    7)."""
    scaled = timestep * LCM_TIME_SCALE
    whole = math.hypot(scaled, LCM_SIGMA_DATA)
    return denoised * (scaled / whole) + x * (LCM_SIGMA_DATA / whole) ** 2


def first_scale(sampler: Sampler, sigma: float) -> float:
    """Return the scale of the first latent: k-diffusion's sigma, or what the model was trained on where DDIM begins.

    ComfyUI begins so at the model's largest sigma, whatever the sampler (comfy/samplers.py max_denoise).
    """
    table = sampler.table
    whole = table.comfyui and (sigma > table.high or math.isclose(sigma, table.high, rel_tol=1e-5))
    return math.hypot(1, sigma) if sampler.unit_scale or whole else sigma


def _shared(pictures: Sequence[Picture]) -> Render:
    """Return one of the renders, after checking that they can be drawn together."""
    if not pictures:
        raise SpecError("no picture was given to draw; give at least one")
    render = pictures[0].render
    for other in (p.render for p in pictures[1:]):
        for field in TOGETHER:
            if getattr(other, field) != getattr(render, field):
                raise SpecError(
                    f"pictures drawn at once must have the same {field}, but one has {getattr(render, field)!r} and "
                    f"another {getattr(other, field)!r}; draw them separately",
                    field=field,
                )
    if len({_how(p.start) for p in pictures}) > 1:
        raise SpecError(
            "pictures drawn at once must have the same denoising strength, or all begin at noise; draw them separately",
            field="denoising_strength",
        )
    if any(p.render.start and not p.start for p in pictures):
        raise SpecError(
            "a render that begins at a picture was given without that picture's latent; give the latent",
            field="init_images",
        )
    return render


def _how(begin: Begin | None) -> tuple[object, ...] | None:
    """Return what pictures that begin at other pictures must share to be drawn at once."""
    return None if begin is None else (begin.strength, begin.every_step, begin.latent.shape, begin.drawn is None)
