"""What a picture would be drawn with that is likely not meant: told, and asked about, before it is drawn."""

from collections.abc import Iterator
from dataclasses import dataclass

from clipskip.prompt import ends_word, token_ids
from clipskip.sample import AUTOMATIC, find_sampler, find_schedule
from clipskip.spec import Render, Request
from clipskip.sweep.model import Extras
from clipskip.sweep.resolve import noise_of
from clipskip.weights import CheckpointFacts, hash_file

LEAST, MOST = 0.2, 2.5
"""Times the area that a model was trained at: below, pictures lose their parts; beyond, they repeat themselves."""
LONGEST_WORD = 40
"""Letters of a name that can be an ordinary word."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubt:
    """One thing that is used all the same if the user says so."""

    field: str
    """The setting that it is about."""
    text: str


def doubts_of(request: Request, render: Render, model: CheckpointFacts, extras: Extras) -> tuple[Doubt, ...]:
    """Files that are not those of a settings text, and a size far from the model's own."""
    return (*_other_files(request, model, extras), *_absent_files(request, render), *_far_size(render, model))


def warnings_of(request: Request, extras: Extras) -> tuple[str, ...]:
    """What is odd about the settings and the LoRAs, and no reason to ask."""
    odd = (f"{lora.name}: {warning}" for lora in extras.loras.values() for warning in lora.warnings)
    words = (line for one in extras.embeddings if (line := _hides_word(one.name)) is not None)
    return (*extras.notes, *_idle(request), *odd, *words)


def _hides_word(name: str) -> str | None:
    """A line for an embedding that is called by an ordinary word, one that CLIP has a token of its own for."""
    ids = token_ids(name) if name.isalpha() and len(name) <= LONGEST_WORD else []
    if len(ids) != 1 or not ends_word(ids[0]):
        return None
    return f"the embedding {name!r} stands in the place of the ordinary word {name!r}; rename its file to use the word"


def _idle(request: Request) -> Iterator[str]:
    """A line for each setting that the sampler does not take."""
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
    """A line for each file that has the name in a settings text, and not the content that its hash tells of."""
    noted = dict(request.lora_hashes)
    used = [("loras", lora.name, lora.path, noted.get(lora.name, "")) for lora in extras.loras.values()]
    used += [("vae", file.ref.name, file.path, request.vae_hash or "") for file in extras.vaes.values()]
    wanted = request.hires.upscaler_hash if request.hires else ""
    used += [("hires_upscaler", file.ref.name, file.path, wanted) for file in extras.upscalers.values()]
    if not model.source.path.is_dir():
        used.insert(0, ("model", model.ref.name, model.source.path, request.model_hash or ""))
    for field, name, path, wanted in used:
        if wanted and not (found := hash_file(path)).matches(wanted):
            own = {8: found.autov1, 12: found.autov3}.get(len(wanted), found.autov2)
            yield Doubt(
                field=field,
                text=f"{name} is another file than these settings were made with: its hash is {own}, not {wanted[:64]}",
            )


def _absent_files(request: Request, render: Render) -> Iterator[Doubt]:
    """Embeddings that a settings text notes and no folder has."""
    here = {one.name.casefold() for one in render.embeddings}
    for name, _ in request.embedding_hashes:
        if name.casefold() not in here:
            yield Doubt(
                field="prompt",
                text=f"these settings were made with the embedding {name[:80]}, which no model folder has: "
                "its name is read as plain words",
            )


def _far_size(render: Render, model: CheckpointFacts) -> Iterator[Doubt]:
    own, share = model.native_px, render.width * render.height / model.native_px**2
    if LEAST < share < MOST:
        return
    size = f"{render.width}x{render.height} is {share:.2g} times the area that {model.ref.name} was trained at ({own}x{own})"
    what = (
        f"pictures repeat themselves, and each takes at least {share:.2g} times as long"
        if share > 1
        else "pictures lose their parts"
    )
    yield Doubt(field="width", text=f"{size}: {what}; leave width and height out for its own size")
