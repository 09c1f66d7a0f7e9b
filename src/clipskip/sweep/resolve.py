"""A request to its render: names become files by content, and every default is filled in."""

import secrets
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipskip import __version__
from clipskip.encode import check_phrase
from clipskip.errors import SpecError
from clipskip.image import prepare
from clipskip.prompt import Emphasis, Rules, read_prompt
from clipskip.sample import AUTOMATIC, Sampler, check_start, find_sampler
from clipskip.spec import (
    ZERO_TERMINAL_SNR,
    ClipSkip,
    Hires,
    Render,
    Request,
    Skip,
    asked_negative_skip,
    asked_skip,
    check_request,
    skip_for,
)
from clipskip.sweep.drawn import Extras
from clipskip.sweep.picture_files import PictureFiles, find_picture_files
from clipskip.sweep.second import calls_of_passes, denoiser_calls
from clipskip.weights import (
    CheckpointFacts,
    Embedding,
    Library,
    answers_file,
    remembered_for,
)

Resolver = Callable[[Request], tuple[Render, Extras]]
FAR_AREA = 1.25
"""How many times larger or smaller than SDXL's a picture's area may be without a note: the shapes that it was trained at
have 0.9 to 1 times 1024 x 1024."""
MAX_RANDOM_SEED = 2**32 - 2
"""A1111 draws seeds below this (modules/processing.py get_fixed_seed)."""


Pictures = Mapping[str, NDArray[np.uint8]]
"""Pictures to begin at [height, width, 3], by the hash of their pixels."""
NO_PICTURES: Pictures = MappingProxyType({})


def fix_seed(seed: int) -> int:
    """Return the seed, drawing one if it is -1."""
    return secrets.randbelow(MAX_RANDOM_SEED) if seed == -1 else seed


def seeded(base: Render, count: int) -> list[Render]:
    """Return the picture with rising seeds, as in A1111's batches; with a variation, the variation seed rises
    instead."""
    if base.variation_strength:
        return [replace(base, variation_seed=base.variation_seed + i) for i in range(count)]
    return [replace(base, seed=base.seed + i) for i in range(count)]


def resolve(
    request: Request,
    model: CheckpointFacts,
    library: Library,
    *,
    pictures: Pictures = NO_PICTURES,
    allow_pickle: bool = False,
) -> tuple[Render, Extras]:
    """Return the render that was asked for on this model, with the files that it uses. `pictures` are those to begin
    at.

    LoRAs in the prompt's tags come before those named beside it. Raises an error for each file that is missing or does
    not fit, and for settings that the picture cannot have.
    """
    check_request(request)
    _check_start(request, pictures)
    begun = request.start is not None or request.hires is not None
    sampler, schedule = find_sampler(request.sampler, request.scheduler, begun=begun)
    rules = Rules(emphasis=Emphasis.parse(request.emphasis))
    calls = request.steps * sampler.order
    prompt = read_prompt(request.prompt, steps=calls, rules=rules)
    request = replace(
        request,
        prompt=prompt.text,
        sampler=sampler.name,
        scheduler=schedule,
        hires=request.hires and _resolve_hires(request.hires, request, sampler=sampler.name, schedule=schedule),
    )
    files = find_picture_files(
        request, model, library, tagged=prompt.loras, rules=rules, calls=calls, allow_pickle=allow_pickle
    )
    skip, note = _skip_of(request, model, files)
    render = _render(request, model, files, skip=skip, noise=noise_of(request, sampler))
    _check_drawable(render, model, files.embeddings, pictures=pictures)
    prediction_note = None if request.prediction else model.prediction_note
    return render, Extras(
        loras=files.loras_by_hash,
        embeddings=files.embeddings,
        starts=pictures,
        notes=tuple(filter(None, (note, files.unused_vae, prediction_note, _idle(render), _off_size(render, model)))),
        vaes={files.vae.ref.hash: files.vae} if files.vae else {},
        upscalers={files.upscaler.ref.hash: files.upscaler} if files.upscaler else {},
        refiner=files.refiner,
    )


def _skip_of(request: Request, model: CheckpointFacts, files: PictureFiles) -> tuple[Skip, str]:
    """Return the Clip Skip, and a note on where it is from: what was asked, else what advise found for these files, else
    the model's own."""
    asked = asked_skip(request, model.family)
    if asked is not None:
        return asked.skip, asked.remark or ""
    answer = remembered_for(model.source, (ref.hash for ref, _ in files.loras))
    if answer is None:
        return model.default_clip_skip, ""
    return ClipSkip(answer.clip_skip), (
        f"Clip Skip {answer.clip_skip} is used, as advise found for these files on {answer.date} "
        f"({answers_file(model.source).name}); give --clip-skip to use another"
    )


def _render(
    request: Request, model: CheckpointFacts, files: PictureFiles, *, skip: Skip, noise: dict[str, Any]
) -> Render:
    """Return the render of a request whose names are resolved: every default filled in, and nothing that would change
    nothing."""
    negative_skip, varied = asked_negative_skip(request, model.family), request.variation_seed
    return Render(
        prompt=request.prompt.strip(),
        negative_prompt=request.negative_prompt.strip(),
        model=model.ref,
        loras=tuple(ref for ref, _ in files.loras),
        embeddings=files.embedding_refs,
        clip_skip=skip,
        negative_clip_skip=None if negative_skip == skip else negative_skip,
        phrase_skips=request.phrase_skips,
        steps=request.steps,
        sampler=request.sampler,
        scheduler=request.scheduler,
        cfg_scale=request.cfg_scale,
        rng=request.rng,
        ensd=request.ensd,
        seed=fix_seed(request.seed),
        width=_side(request.width, request.height, model.native_px),
        height=_side(request.height, request.width, model.native_px),
        variation_seed=fix_seed(varied) if request.variation_strength or varied != -1 else 0,
        variation_strength=request.variation_strength,
        refiner_switch_at=request.refiner_switch_at,
        refiner=files.refiner.ref if files.refiner else None,
        noise_schedule=ZERO_TERMINAL_SNR if model.zero_terminal_snr else request.noise_schedule,
        vae=files.vae.ref if files.vae else None,
        hires=request.hires and files.name_in(request.hires),
        start=request.start,
        prediction=request.prediction,
        emphasis=request.emphasis,
        empty_negative=request.empty_negative,
        crop_top=request.crop_top,
        crop_left=request.crop_left,
        **noise,
        version=__version__,
    )


def _resolve_hires(hires: Hires, request: Request, *, sampler: str, schedule: str) -> Hires:
    """Return the second pass with its prompt read, and without settings that equal the first's."""
    second_sampler, second_schedule = find_sampler(hires.sampler or sampler, hires.scheduler or AUTOMATIC, begun=True)
    given_schedule = second_schedule if hires.scheduler or second_schedule != AUTOMATIC else None
    own_prompt = None if hires.prompt is None else read_prompt(hires.prompt, steps=1, rules=Rules())
    negative = hires.negative_prompt
    return replace(
        hires,
        sampler=None if second_sampler.name == sampler else second_sampler.name,
        scheduler=None if given_schedule == schedule else given_schedule,
        prompt=None if own_prompt is None else own_prompt.text.strip(),
        loras=None if own_prompt is None else tuple(own_prompt.loras),
        negative_prompt=None if negative in (None, request.negative_prompt.strip()) else negative.strip(),
    )


def _off_size(render: Render, model: CheckpointFacts) -> str | None:
    """Return a note on a size far from those that SDXL was trained at, with the one of the nearest shape."""
    near, native_px = model.family.size_like(render.width, render.height), model.family.value.native_px
    share = render.width * render.height / native_px**2
    if near is None or model.native_px != native_px or 1 / FAR_AREA <= share <= FAR_AREA:
        return None
    return (
        f"{model.family.label} was trained at areas of about {native_px}x{native_px}, and {render.width}x{render.height} is "
        f"{share:.2g} times that; its own size of the nearest shape is {near[0]}x{near[1]}"
    )


def _idle(render: Render) -> str | None:
    """Return a note on a refiner that never takes over."""
    hires = render.hires
    if render.refiner is None or hires is None or hires.strength or hires.refines(second=False):
        return None
    return (
        f"the refiner {render.refiner.name} does nothing: it takes over in the second pass, which has no steps at a "
        "denoising strength of 0; ask for --hires-refiner 'first pass'"
    )


def _side(asked: int | None, other: int | None, own: int) -> int:
    """Return one side in pixels: a missing side equals the other, because models are trained on squares."""
    return next(side for side in (asked, other, own) if side is not None)


def noise_of(request: Request, sampler: Sampler) -> dict[str, Any]:  # Any: fields of a Render
    """Return what the sampler uses of eta, churn and noise; a value without effect stays at its default."""
    churned = sampler.churns and request.s_churn > 0
    eta = None if sampler.eta is None or request.eta == sampler.eta else request.eta
    churn = {name: getattr(request, name) for name in ("s_churn", "s_tmin", "s_tmax") if churned}
    noise = {"s_noise": request.s_noise} if churned or sampler.scales_noise else {}
    return {"eta": eta, **churn, **noise}


def _check_start(request: Request, pictures: Pictures) -> None:
    """Raise SpecError when a picture to begin at, or its mask, is missing."""
    start = request.start
    needed = {"init": start.hash, "mask": start.mask.hash if start.mask else start.hash} if start else {}
    for option, digits in needed.items():
        if digits not in pictures:
            what = "begin at the picture" if option == "init" else "are drawn within the mask"
            raise SpecError(
                f"these settings {what} {digits[:12]}, which is missing; give it with --{option}, or remove its hash from "
                "the settings to begin at noise",
                field=option,
            )


def _check_drawable(
    render: Render, model: CheckpointFacts, embeddings: tuple[Embedding, ...], *, pictures: Pictures
) -> None:
    """Raise the errors that drawing would raise later."""
    sampler, schedule = find_sampler(render.sampler, render.scheduler)
    check_start(render)
    if render.start and render.start.mask:
        size = (render.width, render.height)
        prepare(render.start, pictures[render.start.hash], pictures[render.start.mask.hash], size=size)
    if sampler.own_times and not render.start:
        sampler.sigmas(render.steps, schedule=schedule)
    calls, phrases = denoiser_calls(render), render.phrase_skips
    for skip in (render.clip_skip, render.negative_clip_skip or render.clip_skip, *(phrase.skip for phrase in phrases)):
        for pass_calls in calls_of_passes(render):
            check_skip(skip, model, calls=pass_calls)
    if phrases:
        counts = {embedding.name: embedding.count for embedding in embeddings}
        rules = Rules(emphasis=Emphasis.parse(render.emphasis))
        read = read_prompt(render.prompt, steps=calls, embeddings=counts, rules=rules)
        for phrase in phrases:
            check_phrase(phrase, read)


def check_skip(skip: Skip, model: CheckpointFacts, *, calls: int) -> None:
    """Raise SpecError for a Clip Skip that the model lacks, or that a picture with so many calls would not use
    fully."""
    model.check(skip)
    for encoder_skip in dict.fromkeys((skip_for(skip, 0), skip_for(skip, 1))):
        if not isinstance(encoder_skip, ClipSkip):
            encoder_skip.check_calls(calls)
