"""What a user asks -> what it resolves to: names become files by content, every default is filled in."""

import secrets
from dataclasses import replace

from clipskip import __version__
from clipskip.encode import check_phrase
from clipskip.errors import NotFound, WrongKind
from clipskip.prompt import Emphasis, Rules, read_prompt
from clipskip.sample import find_sampler
from clipskip.spec import FileRef, LoraRef, Render, Request, Skip, SkipSchedule
from clipskip.sweep.model import Extras, Model
from clipskip.weights import Embedding, FileKind, Library, identify, load_embedding, read_header
from clipskip.weights.lora import Lora, load_lora

MAX_RANDOM_SEED = 2**32 - 2
"""A1111 draws seeds below this (modules/processing.py get_fixed_seed)."""


def resolve(request: Request, model: Model, library: Library, *, allow_pickle: bool = False) -> tuple[Render, Extras]:
    """The render that was asked for, on this model, and the files that it names.

    LoRAs of the prompt's tags come before those named beside it.
    """
    sampler, schedule = find_sampler(request.sampler, request.scheduler)
    rules = Rules(emphasis=Emphasis.parse(request.emphasis))
    calls = request.steps * sampler.order
    prompt = read_prompt(request.prompt, steps=calls, rules=rules)
    skip = request.clip_skip or model.default_clip_skip
    for one in (skip, request.negative_clip_skip or skip, *(phrase.skip for phrase in request.phrase_skips)):
        check_skip(one, model, calls=calls)
    noted = dict(request.lora_hashes)
    found = [_find_lora(ref, library, noted.get(ref.name, "")) for ref in (*prompt.loras, *request.loras)]
    embeddings = find_embeddings(f"{prompt.text}\n{request.negative_prompt}", model, library, allow_pickle=allow_pickle)
    counts = {one.name: len(one.vectors) for one in embeddings}
    for phrase in request.phrase_skips:
        check_phrase(phrase, read_prompt(prompt.text, steps=calls, embeddings=counts, rules=rules))
    render = Render(
        prompt=prompt.text.strip(),
        negative_prompt=request.negative_prompt.strip(),
        model=model.ref,
        loras=tuple(ref for ref, _ in found),
        embeddings=tuple(FileRef(name=e.name, hash=e.hash) for e in embeddings),
        clip_skip=skip,
        negative_clip_skip=None if request.negative_clip_skip == skip else request.negative_clip_skip,
        phrase_skips=request.phrase_skips,
        steps=request.steps,
        sampler=sampler.name,
        scheduler=schedule,
        cfg_scale=request.cfg_scale,
        seed=secrets.randbelow(MAX_RANDOM_SEED) if request.seed == -1 else request.seed,
        width=model.native_px if request.width is None else request.width,
        height=model.native_px if request.height is None else request.height,
        emphasis=request.emphasis,
        rng=request.rng,
        ensd=request.ensd,
        variation_seed=request.variation_seed,
        variation_strength=request.variation_strength,
        version=__version__,
    )
    return render, Extras(loras={lora.hash: lora for _, lora in found}, embeddings=embeddings)


def check_skip(skip: Skip, model: Model, *, calls: int) -> None:
    """SpecError for a Clip Skip that the model does not have, or that a picture of so many calls would not use whole."""
    skip.check(model.depth)
    if isinstance(skip, SkipSchedule):
        skip.check_calls(calls)


def _find_lora(ref: LoraRef, library: Library, noted: str) -> tuple[LoraRef, Lora]:
    """The LoRA of this name, else of the hash that a settings text notes, and the reference with stem and content hash."""
    try:
        path = library.find(ref.name, FileKind.LORA)
    except NotFound:
        by_hash = library.find_hash(noted, FileKind.LORA) if noted else None
        if by_hash is None:
            raise
        path = by_hash
    kind = identify(read_header(path)).kind
    if kind not in (FileKind.LORA, FileKind.UNKNOWN):
        raise WrongKind(
            f"{path.name} is a {kind}, not a LoRA; give it with --model if that is what you want", field="lora"
        )
    lora = load_lora(path)
    return replace(ref, name=lora.name, hash=lora.hash), lora


def find_embeddings(text: str, model: Model, library: Library, *, allow_pickle: bool) -> tuple[Embedding, ...]:
    """The embeddings that the text may name: files whose stem occurs in it, whatever the case."""
    plain, width = text.casefold(), model.reader.encoder.shape.width
    named = {
        found.stem: found.path
        for found in reversed(library.files(FileKind.EMBEDDING))
        if found.stem.casefold() in plain
    }
    return tuple(load_embedding(path, width=width, allow_pickle=allow_pickle) for _, path in sorted(named.items()))
