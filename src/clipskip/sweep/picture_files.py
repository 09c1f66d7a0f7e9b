"""The files that a picture uses: LoRAs, embeddings, the VAE, upscaler and refiner that a request names or calls."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from clipskip.errors import NotFound, WrongKind
from clipskip.image import LATENT_MODES, UPSCALERS
from clipskip.prompt import Rules, missing_embeddings, read_prompt
from clipskip.spec import FileRef, Hires, LoraRef, Request
from clipskip.weights import (
    CheckpointFacts,
    Embedding,
    FileKind,
    Library,
    UpscalerFile,
    VAEFile,
    beside,
    find_fitting,
    find_upscaler,
    identify,
    is_pickle,
    load_embedding,
    read_allowed,
    read_facts,
    read_header,
)
from clipskip.weights.lora import Lora, check_fit, load_lora, table_for

NOT_LORAS = {
    FileKind.CHECKPOINT: "a checkpoint, not a LoRA; give it with --model",
    FileKind.EMBEDDING: "an embedding (textual inversion), not a LoRA; its name goes into the prompt",
    FileKind.VAE: "a VAE, not a LoRA",
    FileKind.UPSCALER: "an upscaler, not a LoRA; give it with --hires-upscaler",
}
"""Advice on a file of another kind that was named as a LoRA."""
OWN_VAE = "none"
FoundLoras = tuple[tuple[LoraRef, Lora], ...]
"""LoRAs with the strengths that they were named at."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PictureFiles:
    """The files besides the checkpoint that a picture uses."""

    loras: FoundLoras
    hires_loras: FoundLoras | None
    """The second pass' own; None where it has no prompt of its own."""
    embeddings: tuple[Embedding, ...]
    vae: VAEFile | None
    unused_vae: str
    """A note on a VAE beside the checkpoint that cannot be used; empty for none."""
    upscaler: UpscalerFile | None
    refiner: CheckpointFacts | None

    @property
    def loras_by_hash(self) -> dict[str, Lora]:
        """The LoRAs of both passes."""
        return {lora.hash: lora for _, lora in (*self.loras, *(self.hires_loras or ()))}

    @property
    def embedding_refs(self) -> tuple[FileRef, ...]:
        """The embeddings' names and hashes."""
        return tuple(FileRef(name=embedding.name, hash=embedding.hash) for embedding in self.embeddings)

    def name_in(self, hires: Hires) -> Hires:
        """Return the second pass with its files; without a prompt of its own, its LoRAs are the first's."""
        first = tuple(ref for ref, _ in self.loras)
        own = None if self.hires_loras is None else tuple(ref for ref, _ in self.hires_loras)
        return replace(
            hires,
            upscaler=self.upscaler.ref.name if self.upscaler else hires.upscaler,
            upscaler_hash=self.upscaler.ref.hash if self.upscaler else "",
            loras=None if own == first else own,
        )


def find_picture_files(
    request: Request,
    model: CheckpointFacts,
    library: Library,
    *,
    tagged: Sequence[LoraRef],
    rules: Rules,
    calls: int,
    allow_pickle: bool,
) -> PictureFiles:
    """Find and read the files of a request. `tagged` are the LoRAs of its prompt's tags, `calls` is the
    number of denoiser calls, which prompt editing counts.

    Raises an error for each file that is missing or does not fit.
    """
    hires = request.hires
    upscaler = _hires_upscaler(hires, library, allow_pickle=allow_pickle) if hires else None
    loras = _find_loras(request, tagged, library, model=model, allow_pickle=allow_pickle)
    own = None if hires is None else hires.loras
    hires_loras = None if own is None else _find_loras(request, own, library, model=model, allow_pickle=allow_pickle)
    _check_loras((*loras, *(hires_loras or ())), model, allow_pickle=allow_pickle)
    _check_embeddings(request, library, rules)
    above = "\n".join([request.prompt, (hires and hires.prompt) or ""])
    below = "\n".join([request.negative_prompt, (hires and hires.negative_prompt) or ""])
    called = _called(above, below, library, calls=calls, rules=rules)
    vae, unused_vae = _find_vae(request, model, library, allow_pickle=allow_pickle)
    return PictureFiles(
        loras=loras,
        hires_loras=hires_loras,
        embeddings=tuple(load_embedding(path, widths=model.widths, allow_pickle=allow_pickle) for path in called),
        vae=vae,
        unused_vae=unused_vae,
        upscaler=upscaler,
        refiner=_find_refiner(request, model, library, allow_pickle=allow_pickle),
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


def _find_loras(
    request: Request, tagged: Sequence[LoraRef], library: Library, *, model: CheckpointFacts, allow_pickle: bool
) -> FoundLoras:
    """Find the LoRAs of a prompt's tags, then those named beside it. Raises NotFound with all that are missing."""
    noted = dict(request.lora_hashes)
    loras: list[tuple[LoraRef, Lora]] = []
    missing: list[str] = []
    for ref, typed in (*((ref, False) for ref in tagged), *((ref, True) for ref in request.loras)):
        noted_hash = noted.get(ref.name, "")
        try:
            loras.append(_find_lora(ref, library, noted_hash, model=model, allow_pickle=allow_pickle, allow_path=typed))
        except NotFound as error:
            missing.append(str(error))
    if missing:
        raise NotFound("; ".join(dict.fromkeys(missing)), field="lora")
    return tuple(loras)


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


def _check_loras(loras: Sequence[tuple[LoraRef, Lora]], model: CheckpointFacts, *, allow_pickle: bool) -> None:
    """Raise LoraError for one that does not fit the model's file; models without a file check when merging."""
    if loras and model.source.stamps:
        header, _ = read_allowed(model.source.path, allow_pickle=allow_pickle)
        for ref, lora in loras:
            check_fit(lora, header, text_encoder=ref.text_encoder, unet=ref.unet)


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


def _find_refiner(
    request: Request, model: CheckpointFacts, library: Library, *, allow_pickle: bool
) -> CheckpointFacts | None:
    """Return the checkpoint that finishes the picture; an error for one that cannot."""
    if request.refiner is None and request.refiner_hash is None:
        return None
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
