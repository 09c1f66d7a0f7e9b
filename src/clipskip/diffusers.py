"""Clip Skip in diffusers' pipelines: a loaded pipeline's prompts as vectors at any Clip Skip, and whole sweeps.

`StableDiffusionPipeline` (SD 1.x and 2.x), `StableDiffusionXLPipeline` and pipelines made from them are read through
their own text encoders' weights, with any version of transformers; diffusers itself is not imported.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast, final

import numpy as np
import torch
from torch import Tensor, nn

from clipskip.encode import PromptEmbeds, TextReader, read_encoders
from clipskip.encode import prompt_embeds as embeds_of
from clipskip.errors import SpecError, WrongKind
from clipskip.prompt import token_ids
from clipskip.spec import ClipSkip, EncoderSkips, Family, LoraRef, Render, Request, Skip, parse_columns, parse_skip
from clipskip.sweep import Advance, Drawn, Extras, SweepFolder, draw_missing, plan_sweep
from clipskip.weights import (
    TEXT_PARTS,
    CheckpointFacts,
    Embedding,
    Header,
    Library,
    SourceFile,
    TensorInfo,
    native_px,
    unet_shape,
    vae_shape,
)
from clipskip.weights.lora import Lora, load_lora, merged, module_names, name_table

Pipe = Any  # a pipeline of diffusers, whose classes are not imported
Number = str | int | float | Skip
SAMPLERS: Mapping[str, str] = MappingProxyType(
    {
        "EulerDiscreteScheduler": "Euler",
        "EulerAncestralDiscreteScheduler": "Euler a",
        "DPMSolverMultistepScheduler": "DPM++ 2M",
        "HeunDiscreteScheduler": "Heun",
        "LMSDiscreteScheduler": "LMS",
        "KDPM2DiscreteScheduler": "DPM2",
        "KDPM2AncestralDiscreteScheduler": "DPM2 a",
        "DDIMScheduler": "DDIM",
        "PNDMScheduler": "PLMS",
        "UniPCMultistepScheduler": "UniPC bh2",
        "LCMScheduler": "LCM",
    }
)
"""diffusers' schedulers, with the sampler names that pictures' settings use for them."""
VOCABULARY = 49408
"""Number of CLIP's tokens; added tokens come after them."""
CHECKED = "a (red:1.2) ball, masterpiece, 8k"
"""A text that distinguishes CLIP's tokenizer from others."""


def prompt_embeds(
    pipe: Pipe,
    prompt: str,
    negative_prompt: str = "",
    *,
    clip_skip: Number | None = None,
    negative_clip_skip: Number | None = None,
    loras: Sequence[LoraRef] = (),
) -> PromptEmbeds:
    """Return the keyword arguments with which the pipeline draws a prompt at a Clip Skip: `pipe(**prompt_embeds(pipe,
    ...))`.

    Clip Skip counts as in A1111: 1 is the last layer (diffusers' None; its `clip_skip=1` is our 2). It applies to the
    negative prompt too, unless that has its own. `2/5` or `EncoderSkips` gives SDXL's encoders one each; None is the
    family's default. `loras` change the text encoder only here: draw inside `with_loras` to have them in the UNet too.
    """
    with _merged(_lora_modules(pipe, unet=False), _load(pipe, loras)):
        embeds = embeds_of(
            read_pipeline(pipe),
            prompt,
            negative_prompt,
            clip_skip=_parse_skip(clip_skip),
            negative_clip_skip=_parse_skip(negative_clip_skip),
        )
    return _for_unet(pipe, embeds)


@contextmanager
def with_loras(pipe: Pipe, loras: Sequence[LoraRef]) -> Iterator[None]:
    """Merge LoRAs into the pipeline's text encoders and UNet while the `with` block lasts; the weights are then
    restored bit for bit.

    Each LoRA is a file, given by its path, and merged with its own alphas; diffusers' `load_lora_weights` uses other
    scales where alphas differ between modules.
    """
    with _merged(_lora_modules(pipe), _load(pipe, loras)):
        yield


def sweep(
    pipe: Pipe,
    prompt: str,
    negative_prompt: str = "",
    *,
    folder: str | Path,
    clip_skips: str | Sequence[Skip] = "1-5",
    loras: Sequence[LoraRef] = (),
    steps: int = 20,
    guidance_scale: float = 7.0,
    seed: int = -1,
    width: int | None = None,
    height: int | None = None,
) -> SweepFolder:
    """Draw a prompt at each Clip Skip, without and with the LoRAs, by the pipeline on its device: pictures, grid and
    page.

    The pipeline's own scheduler draws, and pictures in the folder are kept. Seed -1 draws a seed. A text that changes
    from step to step is an error, because a pipeline takes one set of vectors.
    """
    drawer = PipelineDrawer(pipe)
    asked = Request(
        prompt=prompt,
        negative_prompt=negative_prompt,
        loras=tuple(loras),
        steps=steps,
        cfg_scale=guidance_scale,
        seed=seed,
        width=width,
        height=height,
        sampler=drawer.sampler,
        scheduler=drawer.schedule,
    )
    skips = parse_columns(clip_skips) if isinstance(clip_skips, str) else tuple(clip_skips)
    plan, extras = plan_sweep(asked, skips, drawer.facts, Library.of_user())
    plan = replace(plan, base=replace(plan.base, version=f"diffusers {version('diffusers')}"))
    into = SweepFolder.create(Path(folder), plan, model=drawer.facts)
    for _ in draw_missing(drawer, into, extras):
        pass
    into.finish()
    return into


@final
class PipelineDrawer:
    """A pipeline that draws a sweep's pictures one after the other."""

    def __init__(self, pipe: Pipe) -> None:
        self.pipe = pipe
        self.facts = pipeline_facts(pipe)
        self.sampler, self.schedule = scheduler_name(pipe.scheduler)

    def draw(self, renders: Sequence[Render], extras: Extras, *, previews: bool = False) -> Iterator[Advance | Drawn]:
        """Yield each picture in turn; a pipeline reports no steps."""
        assert not previews, "a pipeline gives no previews"
        for index, render in enumerate(renders):
            weighted = [(extras.loras[ref.hash], ref.text_encoder, ref.unet) for ref in render.loras]
            with _merged(_lora_modules(self.pipe), weighted):
                yield Drawn(index=index, render=render, pixels=self._pixels(render, extras.embeddings))

    def _pixels(self, render: Render, embeddings: tuple[Embedding, ...]) -> Any:  # Any: an array of numpy
        pipe, reader = self.pipe, read_pipeline(self.pipe)
        reader = replace(reader, embeddings=reader.embeddings + embeddings)
        embeds = embeds_of(reader, render.prompt, render.negative_prompt, clip_skip=render.clip_skip)
        pictures = pipe(
            **_for_unet(pipe, embeds),
            num_inference_steps=render.steps,
            guidance_scale=render.cfg_scale,
            width=render.width,
            height=render.height,
            generator=torch.Generator().manual_seed(render.seed),
            output_type="np",
        ).images
        return (np.clip(pictures[0], 0, 1) * 255).round().astype(np.uint8)


def read_pipeline(pipe: Pipe) -> TextReader:
    """Return a reader of the pipeline's text encoders in their present state, with its textual inversions."""
    family = family_of(pipe)
    encoders = _encoders(pipe)
    _check_tokenizer(pipe)
    reader = read_encoders(*encoders, family=family)
    return replace(reader, embeddings=tuple(_inversions(pipe, encoders)))


def family_of(pipe: Pipe) -> Family:
    """Return SD 1.x, SD 2.x or SDXL; WrongKind where other encoders than CLIP read this pipeline's prompts."""
    name, encoder = type(pipe).__name__, getattr(pipe, "text_encoder", None)
    if getattr(pipe, "unet", None) is None:
        raise WrongKind(
            f"{name} has no UNet: use a pipeline of Stable Diffusion 1.x, 2.x or SDXL, whose "
            "prompts are read by CLIP alone"
        )
    if encoder is None or (hasattr(pipe, "text_encoder_2") and pipe.text_encoder_2 is None):
        missing = "text_encoder" if encoder is None else "text_encoder_2"
        raise WrongKind(
            f"this {name} has no {missing} (an SDXL refiner, or a pipeline loaded without it); load the whole pipeline"
        )
    if hasattr(pipe, "text_encoder_2"):
        return Family.SDXL
    return Family.SD2 if getattr(encoder.config, "hidden_act", "") == "gelu" else Family.SD1


def scheduler_name(scheduler: Any) -> tuple[str, str]:  # Any: a scheduler of diffusers
    """Return the sampler and schedule type that stand in the settings of pictures drawn with this scheduler."""
    kind, config = type(scheduler).__name__, scheduler.config
    sampler = SAMPLERS.get(kind)
    if kind == "DPMSolverMultistepScheduler":
        algorithm = (config.get("algorithm_type"), config.get("solver_order"))
        sampler = {("dpmsolver++", 2): "DPM++ 2M", ("sde-dpmsolver++", 2): "DPM++ 2M SDE"}.get(algorithm)
    if sampler is None:
        raise SpecError(
            f"pictures' settings have no name for the pipeline's scheduler {kind}; for a sweep, use one of "
            f"{', '.join(SAMPLERS)}",
            field="sampler",
        )
    spacings = {"use_karras_sigmas": "Karras", "use_exponential_sigmas": "Exponential", "use_beta_sigmas": "Beta"}
    return sampler, next((name for key, name in spacings.items() if config.get(key)), "Automatic")


def pipeline_facts(pipe: Pipe) -> CheckpointFacts:
    """Return the facts of a pipeline for a sweep; its hash covers all weights as they are in memory."""
    family, reader = family_of(pipe), read_pipeline(pipe)
    tensors = {part: getattr(pipe, part).state_dict() for part in ("unet", "vae")}
    path = Path(str(getattr(pipe.config, "_name_or_path", "") or type(pipe).__name__))
    header = Header(
        path=path,
        size=0,
        tensors={
            f"{part}/{name}": TensorInfo(dtype="", shape=tuple(tensor.shape), file=path)
            for part, state in tensors.items()
            for name, tensor in state.items()
        },
        configs={part: {**getattr(pipe, part).config} for part in tensors},
    )
    sizes = {part: {name: tuple(t.shape) for name, t in state.items()} for part, state in tensors.items()}
    prediction = pipe.scheduler.config.get("prediction_type", "epsilon")
    return CheckpointFacts(
        source=SourceFile(name=path.stem or "pipeline", path=path, sha256=_hash(pipe)),
        family=family,
        encoders=tuple(encoder.facts for encoder in reader.encoders),
        unet=unet_shape(sizes["unet"], header, row=family.value),
        vae=vae_shape(sizes["vae"], header, row=family.value),
        prediction="v" if prediction == "v_prediction" else "epsilon",
        native_px=native_px(header, row=family.value),
        metadata={},
    )


def _for_unet(pipe: Pipe, embeds: PromptEmbeds) -> PromptEmbeds:
    """Return the vectors on the UNet's device and in its dtype."""
    like = next(pipe.unet.parameters())
    return cast(PromptEmbeds, {name: cast(Tensor, tensor).to(like) for name, tensor in embeds.items()})


def _hash(pipe: Pipe) -> str:
    """Return the sha256 of the names and bytes of all tensors."""
    digest = hashlib.sha256()
    for part, module in _modules(pipe):
        for name, tensor in sorted(module.state_dict().items()):
            digest.update(f"{part}.{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _modules(pipe: Pipe) -> Iterable[tuple[str, nn.Module]]:
    parts = (*TEXT_PARTS, "unet", "vae")
    return [(part, getattr(pipe, part)) for part in parts if getattr(pipe, part, None) is not None]


def _encoders(pipe: Pipe) -> list[nn.Module]:
    return [getattr(pipe, part) for part in TEXT_PARTS if getattr(pipe, part, None) is not None]


def _lora_modules(pipe: Pipe, *, unet: bool = True) -> dict[str, nn.Module]:
    """Return the modules that LoRAs change, by the names that LoRAs use."""
    family_of(pipe)
    named = zip(TEXT_PARTS, _encoders(pipe), strict=False)
    parts = {part: getattr(encoder, "text_model", encoder) for part, encoder in named}
    return {**parts, "unet": pipe.unet} if unet else parts


def _load(pipe: Pipe, refs: Sequence[LoraRef]) -> list[tuple[Lora, float, float]]:
    table, family = name_table(module_names(_lora_modules(pipe))) if refs else None, family_of(pipe)
    return [(load_lora(ref.name, family=family, table=table), ref.text_encoder, ref.unet) for ref in refs]


def _merged(parts: dict[str, nn.Module], loras: Sequence[tuple[Lora, float, float]]) -> AbstractContextManager[None]:
    return merged(parts, loras) if loras else nullcontext()


def _parse_skip(value: Number | None) -> Skip | None:
    if value is None or isinstance(value, ClipSkip | EncoderSkips):
        return value
    return value if not isinstance(value, str | int | float) else parse_skip(str(value))


def _check_tokenizer(pipe: Pipe) -> None:
    """Raise WrongKind for a tokenizer that is not CLIP's."""
    for name in ("tokenizer", "tokenizer_2"):
        tokenizer = getattr(pipe, name, None)
        if tokenizer is not None and tokenizer(CHECKED, add_special_tokens=False)["input_ids"] != token_ids(CHECKED):
            raise WrongKind(
                f"the pipeline's {name} is not CLIP's, because it reads {CHECKED!r} as other tokens; load CLIP's tokenizer"
            )


def _inversions(pipe: Pipe, encoders: Sequence[nn.Module]) -> Iterator[Embedding]:
    """Yield the embeddings that `load_textual_inversion` added: a name, with name_1, name_2 and so on for further
    vectors."""
    added = getattr(pipe.tokenizer, "added_tokens_encoder", {})
    tables: list[Tensor] = [encoder.get_input_embeddings().weight.detach() for encoder in encoders]  # type: ignore[operator]  # transformers'
    rows_stored = min(len(table) for table in tables)
    inversion_tokens = {token: number for token, number in added.items() if VOCABULARY <= number < rows_stored}
    for name in inversion_tokens:
        stem, _, number = name.rpartition("_")
        if stem in inversion_tokens and number.isdecimal():
            continue
        rows = [inversion_tokens[name]]
        while (more := inversion_tokens.get(f"{name}_{len(rows)}")) is not None:
            rows.append(more)
        vectors = tuple(table[rows].float() for table in tables)
        digest = hashlib.sha256(b"".join(v.cpu().numpy().tobytes() for v in vectors)).hexdigest()[:12]
        yield Embedding(name=name, vectors=vectors, hash=digest)
