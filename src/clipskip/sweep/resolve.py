"""From a request to what it resolves to: names become files by content, and every default is filled in."""

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipskip import __version__
from clipskip.encode import check_phrase
from clipskip.errors import NotFound, SpecError, WrongKind
from clipskip.image import LATENT_MODES, UPSCALERS, prepare
from clipskip.prompt import Emphasis, Rules, missing_embeddings, read_prompt
from clipskip.sample import AUTOMATIC, Sampler, check_start, find_sampler
from clipskip.spec import (
    ZERO_TERMINAL_SNR,
    ClipSkip,
    FileRef,
    Hires,
    LoraRef,
    Render,
    Request,
    Skip,
    asked_negative_skip,
    asked_skip,
    check_request,
    skip_for,
)
from clipskip.sweep.model import Extras
from clipskip.sweep.second import calls_of_passes, denoiser_calls
from clipskip.weights import (
    CheckpointFacts,
    Embedding,
    FileKind,
    Library,
    RememberedSkip,
    SourceFile,
    UpscalerFile,
    VAEFile,
    answers_file,
    beside,
    find_fitting,
    find_upscaler,
    identify,
    is_pickle,
    load_embedding,
    read_allowed,
    read_facts,
    read_header,
    remembered_for,
)
from clipskip.weights.lora import Lora, check_fit, load_lora, table_for

NOT_LORAS = {
    FileKind.CHECKPOINT: "a checkpoint, not a LoRA; give it with --model",
    FileKind.EMBEDDING: "an embedding (textual inversion), not a LoRA; its name goes into the prompt",
    FileKind.VAE: "a VAE, not a LoRA",
    FileKind.UPSCALER: "an upscaler, not a LoRA; give it with --hires-upscaler",
}
"""Advice on a file of another kind that was named as a LoRA."""
Resolver = Callable[[Request], tuple[Render, Extras]]
MAX_RANDOM_SEED = 2**32 - 2
"""A1111 draws seeds below this (modules/processing.py get_fixed_seed)."""


Pictures = Mapping[str, NDArray[np.uint8]]
"""Pictures to begin at [height, width, 3], by the hash of their pixels."""
FoundLoras = Sequence[tuple[LoraRef, Lora]]
OWN_VAE = "none"
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
    hires = request.hires and _hires(request.hires, request, sampler=sampler.name, schedule=schedule)
    upscaler = _hires_upscaler(hires, library, allow_pickle=allow_pickle) if hires else None
    noted = dict(request.lora_hashes)

    def find(tagged: Sequence[LoraRef]) -> FoundLoras:
        loras, missing = list[tuple[LoraRef, Lora]](), list[str]()
        for ref, typed in [*((ref, False) for ref in tagged), *((ref, True) for ref in request.loras)]:
            try:
                noted_hash = noted.get(ref.name, "")
                loras.append(
                    _find_lora(ref, library, noted_hash, model=model, allow_pickle=allow_pickle, allow_path=typed)
                )
            except NotFound as error:
                missing.append(str(error))
        if missing:
            raise NotFound("; ".join(dict.fromkeys(missing)), field="lora")
        return loras

    found = find(prompt.loras)
    again = None if hires is None or hires.loras is None else find(hires.loras)
    _check_loras([*found, *(again or ())], model, allow_pickle=allow_pickle)
    remembered = remembered_for(model.source, (ref.hash for ref, _ in found)) if request.clip_skip is None else None
    own_skip = ClipSkip(remembered.clip_skip) if remembered else model.default_clip_skip
    asked, varied = asked_skip(request, model.family), request.variation_seed
    skip, negative_skip = asked.skip if asked else own_skip, asked_negative_skip(request, model.family)
    above = "\n".join([prompt.text, (hires and hires.prompt) or ""])
    below = "\n".join([request.negative_prompt, (hires and hires.negative_prompt) or ""])
    called = _called(above, below, library, calls=calls, rules=rules)
    _check_embeddings(request, library, rules)
    embeddings = tuple(load_embedding(path, widths=model.widths, allow_pickle=allow_pickle) for path in called)
    refiner = _refiner(request, model, library, allow_pickle=allow_pickle)
    vae, unused_vae = _find_vae(request, model, library, allow_pickle=allow_pickle)
    render = Render(
        prompt=prompt.text.strip(),
        negative_prompt=request.negative_prompt.strip(),
        model=model.ref,
        loras=tuple(ref for ref, _ in found),
        embeddings=tuple(FileRef(name=e.name, hash=e.hash) for e in embeddings),
        clip_skip=skip,
        negative_clip_skip=None if negative_skip == skip else negative_skip,
        phrase_skips=request.phrase_skips,
        steps=request.steps,
        sampler=sampler.name,
        scheduler=schedule,
        cfg_scale=request.cfg_scale,
        seed=fix_seed(request.seed),
        width=_side(request.width, request.height, model.native_px),
        height=_side(request.height, request.width, model.native_px),
        emphasis=request.emphasis,
        rng=request.rng,
        ensd=request.ensd,
        variation_seed=fix_seed(varied) if request.variation_strength or varied != -1 else 0,
        variation_strength=request.variation_strength,
        prediction=request.prediction,
        crop_top=request.crop_top,
        crop_left=request.crop_left,
        refiner=None if refiner is None else refiner.ref,
        refiner_switch_at=request.refiner_switch_at,
        noise_schedule=ZERO_TERMINAL_SNR if model.zero_terminal_snr else request.noise_schedule,
        empty_negative=request.empty_negative,
        vae=vae.ref if vae else None,
        start=request.start,
        hires=hires and _with_files(hires, upscaler, found, again),
        **noise_of(request, sampler),
        version=__version__,
    )
    _check(render, model, embeddings, pictures=pictures)
    loras = {lora.hash: lora for _, lora in [*found, *(again or ())]}
    notes = (
        (_remembered_note(remembered, model.source),)
        if remembered
        else (asked.remark,)
        if asked and asked.remark
        else ()
    )
    return render, Extras(
        loras=loras,
        embeddings=embeddings,
        starts=pictures,
        notes=(*notes, *filter(None, [unused_vae, None if request.prediction else model.prediction_note])),
        vaes={vae.ref.hash: vae} if vae else {},
        upscalers={upscaler.ref.hash: upscaler} if upscaler else {},
        refiner=refiner,
    )


def _remembered_note(answer: RememberedSkip, source: SourceFile) -> str:
    """Return the note on a Clip Skip that advise found for these files."""
    return (
        f"Clip Skip {answer.clip_skip} is used, as advise found for these files on {answer.date} "
        f"({answers_file(source).name}); give --clip-skip to use another"
    )


def _hires(hires: Hires, request: Request, *, sampler: str, schedule: str) -> Hires:
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


def _hires_upscaler(hires: Hires, library: Library, *, allow_pickle: bool) -> UpscalerFile | None:
    """Return the upscaler model of the second pass; None where it needs none."""
    if hires.upscaler in (*LATENT_MODES, *UPSCALERS):
        return None
    try:
        return find_upscaler(hires.upscaler, library, hash=hires.upscaler_hash, allow_pickle=allow_pickle)
    except NotFound as error:
        without = ", ".join((*LATENT_MODES, *UPSCALERS))
        raise NotFound(f"{error}; without a model: {without}", field="hires_upscaler") from None


def _with_files(hires: Hires, upscaler: UpscalerFile | None, first: FoundLoras, second: FoundLoras | None) -> Hires:
    """Return the second pass with its files; without a prompt of its own, its LoRAs are the first's."""
    own_loras = None if second is None else tuple(ref for ref, _ in second)
    return replace(
        hires,
        upscaler=upscaler.ref.name if upscaler else hires.upscaler,
        upscaler_hash=upscaler.ref.hash if upscaler else "",
        loras=None if own_loras == tuple(ref for ref, _ in first) else own_loras,
    )


def _refiner(
    request: Request, model: CheckpointFacts, library: Library, *, allow_pickle: bool
) -> CheckpointFacts | None:
    """Return the checkpoint that finishes the picture; an error for one that cannot."""
    if request.refiner is None and request.refiner_hash is None:
        return None
    if request.hires is not None:
        raise SpecError("a refiner and a hires pass cannot be drawn together; leave one of them out", field="refiner")
    by_hash = library.find_hash(request.refiner_hash, FileKind.CHECKPOINT) if request.refiner_hash else None
    path = by_hash or library.find(request.refiner or request.refiner_hash or "", FileKind.CHECKPOINT)
    facts = read_facts(path, allow_pickle=allow_pickle, refiner=True)
    if facts.family is not model.family:
        raise WrongKind(
            f"the refiner {path.name} is {facts.family.label} and {model.ref.name} is {model.family.label}, whose latents "
            "differ; give a refiner of the same family",
            field="refiner",
        )
    return facts


def _find_vae(
    request: Request, model: CheckpointFacts, library: Library, *, allow_pickle: bool
) -> tuple[VAEFile | None, str]:
    """Return the VAE that is asked for, else the one beside the checkpoint, and a note on one that cannot be used.

    "None" asks for the checkpoint's own.
    """
    name, digits = request.vae, request.vae_hash
    if name is not None and name.casefold() == OWN_VAE:
        return None, ""
    if name or digits:
        path = library.find_hash(digits, FileKind.VAE, likely=name or "") if digits else None
        path = path or _vae_file(name or digits or "", library)
        return find_fitting(path, model.vae, allow_pickle=allow_pickle), ""
    for path in beside(model.source.path):
        if allow_pickle or not is_pickle(path):
            return find_fitting(path, model.vae, allow_pickle=allow_pickle), ""
        return None, f"{path.name} beside the model is a pickle and is not used; add --allow-pickle to use it"
    return None, ""


def _vae_file(name: str, library: Library) -> Path:
    """Find the VAE file of this name, or else the checkpoint of this name, whose VAE is taken, as ComfyUI's graphs can."""
    try:
        return library.find(name, FileKind.VAE)
    except NotFound:
        try:
            checkpoint = library.find(name, FileKind.CHECKPOINT)
        except NotFound:
            checkpoint = None
        if checkpoint is None or not checkpoint.is_file():
            raise
        return checkpoint


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


def _check_loras(loras: Sequence[tuple[LoraRef, Lora]], model: CheckpointFacts, *, allow_pickle: bool) -> None:
    """Raise LoraError for one that does not fit the model's file; models without a file check when merging."""
    if loras and model.source.stamps:
        header, _ = read_allowed(model.source.path, allow_pickle=allow_pickle)
        for ref, lora in loras:
            check_fit(lora, header, text_encoder=ref.text_encoder, unet=ref.unet)


def _check(render: Render, model: CheckpointFacts, embeddings: tuple[Embedding, ...], *, pictures: Pictures) -> None:
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


def _find_lora(
    ref: LoraRef, library: Library, noted: str, *, model: CheckpointFacts, allow_pickle: bool, allow_path: bool
) -> tuple[LoraRef, Lora]:
    """Find the LoRA by name, else by the hash in a settings text, and return the reference with stem and content hash.

    A name in a prompt's tag is searched in the folders, and never opened as a path.
    """
    try:
        path = library.find(ref.name, FileKind.LORA, allow_path=allow_path)
    except NotFound as error:
        by_hash = library.find_hash(noted, FileKind.LORA) if noted else None
        if by_hash is None:
            fetch = f"; --fetch looks for its hash {noted} on Civitai" if noted and not library.names_only else ""
            raise NotFound(f"{error}{fetch}", field="lora") from None
        path = by_hash
    kind = FileKind.UNKNOWN if allow_pickle and is_pickle(path) else identify(read_header(path)).kind
    if kind not in (FileKind.LORA, FileKind.UNKNOWN):
        raise WrongKind(f"{path.name} is {NOT_LORAS.get(kind, f'a {kind}, not a LoRA')}", field="lora")
    table = table_for(model.family, model.unet)
    lora = load_lora(path, family=model.family, table=table, allow_pickle=allow_pickle)
    return replace(ref, name=lora.name, hash=lora.hash), lora


def _called(text: str, negative: str, library: Library, *, calls: int, rules: Rules) -> Iterator[Path]:
    """Find the embeddings that the prompts call, by the tokens of their file names; letters alone would find "bad" in
    "badge"."""
    known = library.named_in(f"{text}\n{negative}", FileKind.EMBEDDING)
    names = {file.stem: 1 for file in known}
    above = read_prompt(text, steps=calls, embeddings=names, rules=rules).embeddings if known else ()
    below = read_prompt(negative, steps=calls, embeddings=names, rules=rules, negative=True).embeddings if known else ()
    return (file.path for file in known if file.stem in {*above, *below})


def _check_embeddings(request: Request, library: Library, rules: Rules) -> None:
    """Raise NotFound for an embedding in a ComfyUI prompt that no folder has; ComfyUI would leave it out silently."""
    if not rules.comfy:
        return
    known = [file.stem for file in library.files(FileKind.EMBEDDING)]
    texts = (request.prompt, request.negative_prompt)
    for name in (name for text in texts for name in missing_embeddings(text, known)):
        raise NotFound(
            f"the prompt calls the embedding {name[:120]!r}, but no model folder has it; put it there, or remove it from "
            "the prompt",
            field="prompt",
        )
