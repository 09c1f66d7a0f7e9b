"""The files that a ComfyUI graph draws with: checkpoint, LoRAs, VAE."""

from collections.abc import Mapping

from clipskip.spec.graph_loras import loras_of
from clipskip.spec.lora import LoraRef
from clipskip.spec.nodes import Graph, Node, back_from, broken, is_sampler, word_of
from clipskip.spec.record_reader import one_line
from clipskip.spec.resources import stem


def checkpoint_of(node: Node) -> str:
    said = node.take("ckpt_name")
    value = said.value.get("content") if said and isinstance(said.value, dict) else said and said.value
    if not isinstance(value, str):
        raise broken(
            f"has {one_line(value)[:40]!r} for ckpt_name, which is not a name; choose a checkpoint", field="model"
        )
    return stem(value)


CONFIGS: Mapping[str, tuple[int | None, str | None]] = {
    "anything_v3": (-2, None), "v1-inference": (None, None), "v1-inference_fp16": (None, None),
    "v1-inference_clip_skip_2": (-2, None), "v1-inference_clip_skip_2_fp16": (-2, None), "v1-inpainting-inference": (None, None),
    "v2-inference": (None, None), "v2-inference_fp32": (None, None), "v2-inference-v": (None, "v"),
    "v2-inference-v_fp32": (None, "v"), "v2-inpainting-inference": (None, None), "Default": (None, None),
}  # fmt: skip
"""The configs that come with ComfyUI for its loader with a config: the layer of the text encoder (CLIPSetLastLayer's number)
and what the model predicts, where they say so (comfy/sd.py load_checkpoint)."""


def loader_config(node: Node) -> tuple[int | None, str | None]:
    """Return the text encoder's layer and the prediction that a loader's config sets; SpecError for an unknown config."""
    said = node.take("config_name")
    if said is None:
        return None, None
    name = said.name()
    config = CONFIGS.get(name.removesuffix(".yaml"))
    if config is None:
        raise broken(
            f"loads its checkpoint with the config {name[:60]!r}, which may set the Clip Skip; configs that come with ComfyUI are "
            "known",
            field="clip_skip",
        )
    return config


def check_checkpoints(models: tuple[Node, ...], clip: tuple[Node, ...]) -> None:
    if checkpoint_of(models[-1]) != checkpoint_of(clip[-1]):
        raise broken(
            f"reads its prompt with the text encoder of {checkpoint_of(clip[-1])} and draws with {checkpoint_of(models[-1])}; "
            "graphs with one checkpoint can be repeated",
            field="model",
        )


def loras_on(graph: Graph, models: tuple[Node, ...], clips: tuple[Node, ...]) -> tuple[LoraRef, ...]:
    """Return the LoRAs on the UNet's and the text encoder's path, in the order in which they are applied."""
    on_model, on_clip = {id(node) for node in models}, {id(node) for node in clips}
    nodes = [*models, *(node for node in clips if id(node) not in on_model)]
    return tuple(
        LoraRef(name=name, text_encoder=te if id(node) in on_clip else 0.0, unet=unet if id(node) in on_model else 0.0)
        for node in reversed(nodes)
        for name, unet, te in loras_of(graph, node)
    )


def vae_of(graph: Graph, sampler: Node, checkpoint: Node) -> str | None:
    """Return the VAE file that decodes the picture, or the other checkpoint whose VAE does; None for the checkpoint's own."""
    name = checkpoint.take("vae_name")
    names = [] if name is None or name.name() in ("Baked VAE", "None") else [stem(name.name())]
    decoders = [n for n in graph.nodes.values() if "vae" in n.inputs and "samples" in n.inputs and not is_sampler(n)]
    decoders = [n for n in decoders if any(other is sampler for other, _ in back_from(graph, n))]
    for node, key in (*((n, "vae") for n in decoders), (sampler, "optional_vae")):
        if key == "vae":
            node.take("samples")
        here = graph.link(node, key)
        passed: set[int] = set()
        while here is not None and "vae_name" not in here[0].inputs and "ckpt_name" not in here[0].inputs:
            if id(here[0]) in passed:
                raise broken("takes its VAE in a circle", field="vae")
            passed.add(id(here[0]))
            here = graph.onward(here[0], "VAE")
        source = here[0] if here else checkpoint
        if "vae_name" in source.inputs and source is not checkpoint:
            names.append(stem(word_of(source, "vae_name") or ""))
        elif "ckpt_name" in source.inputs and checkpoint_of(source) != checkpoint_of(checkpoint):
            names.append(checkpoint_of(source))
    if len(set(names)) > 1:
        raise broken(f"decodes with {len(set(names))} VAEs: {', '.join(sorted(set(names)))[:80]}", field="vae")
    return names[0] if names else None
