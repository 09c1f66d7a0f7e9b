"""Choices that are probably not meant: the user is told and asked about them before anything is drawn."""

from collections.abc import Iterator
from dataclasses import dataclass

from clipskip.prompt import ends_word, token_ids
from clipskip.sample import AUTOMATIC, find_sampler, find_schedule
from clipskip.spec import Render, Request
from clipskip.sweep.drawn import Extras
from clipskip.sweep.resolve import noise_of
from clipskip.weights import CheckpointFacts, hash_file

LEAST, MOST = 0.2, 2.5
"""Shares of the area that a model was trained at: below the first, pictures lose parts; beyond the second, they
repeat."""
LONGEST_WORD = 40
"""The most letters of a name that can be an ordinary word."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubt:
    """Something that is used only if the user confirms it."""

    field: str
    """The setting that it is about."""
    text: str


def doubts_of(request: Request, render: Render, model: CheckpointFacts, extras: Extras) -> tuple[Doubt, ...]:
    """Return doubts about files that differ from those of a settings text, and about a size far from the model's
    own."""
    return (*_other_files(request, model, extras), *_absent_files(request, render), *_far_size(render, model))


def warnings_of(request: Request, extras: Extras) -> tuple[str, ...]:
    """Return what is odd about the settings and LoRAs but needs no confirmation."""
    odd = (f"{lora.name}: {warning}" for lora in extras.loras.values() for warning in lora.warnings)
    words = (line for embedding in extras.embeddings if (line := _hides_word(embedding.name)) is not None)
    return (*extras.notes, *_idle(request), *odd, *words)


def _hides_word(name: str) -> str | None:
    """Return a warning for an embedding named like an ordinary word, one with a CLIP token of its own."""
    ids = token_ids(name) if name.isalpha() and len(name) <= LONGEST_WORD else []
    if len(ids) != 1 or not ends_word(ids[0]):
        return None
    return f"the embedding {name!r} replaces the ordinary word {name!r}; rename its file to use the word"


def _idle(request: Request) -> Iterator[str]:
    """Yield a line for each setting that the sampler does not use."""
    sampler, _ = find_sampler(request.sampler, request.scheduler)
    begun = request.start is not None or request.hires is not None
    if sampler.leaves_schedule(begun=begun) and find_schedule(request.scheduler) != AUTOMATIC:
        yield f"schedule type {request.scheduler} changes nothing: {sampler.name} visits its own timesteps"
    if request.eta is not None and sampler.eta is None:
        yield f"eta {request.eta:g} changes nothing: {sampler.name} has none"
    if request.s_churn and not sampler.churns:
        yield f"sigma churn {request.s_churn:g} changes nothing: {sampler.name} has none"
    if request.s_noise != 1 and "s_noise" not in noise_of(request, sampler):
        yield f"sigma noise {request.s_noise:g} changes nothing: {sampler.name} adds no noise that it scales"


def _other_files(request: Request, model: CheckpointFacts, extras: Extras) -> Iterator[Doubt]:
    """Yield a doubt for each file that has the name in a settings text but not the content of its hash."""
    noted = dict(request.lora_hashes)
    used = [("loras", lora.name, lora.path, noted.get(lora.name, "")) for lora in extras.loras.values()]
    used += [("vae", file.ref.name, file.path, request.vae_hash or "") for file in extras.vaes.values()]
    noted_hash = request.hires.upscaler_hash if request.hires else ""
    used += [("hires_upscaler", file.ref.name, file.path, noted_hash) for file in extras.upscalers.values()]
    if not model.source.path.is_dir():
        used.insert(0, ("model", model.ref.name, model.source.path, request.model_hash or ""))
    for field, name, path, noted_hash in used:
        if noted_hash and not (hashes := hash_file(path)).matches(noted_hash):
            own_hash = {8: hashes.autov1, 12: hashes.autov3}.get(len(noted_hash), hashes.autov2)
            yield Doubt(
                field=field,
                text=f"{name} is another file than these settings were made with: its hash is {own_hash}, not {noted_hash[:64]}",
            )


def _absent_files(request: Request, render: Render) -> Iterator[Doubt]:
    """Yield a doubt for each embedding in a settings text that no folder has."""
    here = {embedding.name.casefold() for embedding in render.embeddings}
    for name, _ in request.embedding_hashes:
        if name.casefold() not in here:
            yield Doubt(
                field="prompt",
                text=f"these settings were made with the embedding {name[:80]}, which no model folder has; "
                "its name is read as plain words",
            )


def _far_size(render: Render, model: CheckpointFacts) -> Iterator[Doubt]:
    native_px, share = model.native_px, render.width * render.height / model.native_px**2
    if LEAST < share < MOST:
        return
    size = f"{render.width}x{render.height} is {share:.2g} times the area that {model.ref.name} was trained at ({native_px}x{native_px})"
    what = (
        f"pictures repeat themselves, and each takes at least {share:.2g} times as long"
        if share > 1
        else "pictures lose their parts"
    )
    yield Doubt(field="width", text=f"{size}: {what}; leave width and height out for its own size")
