"""The files that a ComfyUI graph draws with: checkpoint, LoRAs, VAE."""

from collections.abc import Iterator

from clipskip.spec.lora import LoraRef
from clipskip.spec.nodes import Graph, Node, back_from, broken, is_sampler, number_of, word_of
from clipskip.spec.reader import Said, shown
from clipskip.spec.resources import stem


def checkpoint_of(node: Node) -> str:
    said = node.take("ckpt_name")
    value = said.value.get("content") if said and isinstance(said.value, dict) else said and said.value
    if not isinstance(value, str):
        raise broken(
            f"has {shown(value)[:40]!r} for ckpt_name, which is not a name; choose a checkpoint", field="model"
        )
    return stem(value)


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
        for name, unet, te in _named_loras(graph, node)
    )


def _named_loras(graph: Graph, node: Node) -> Iterator[tuple[str, float, float]]:
    """Yield name and both strengths of each LoRA that a node loads."""
    for key, value in node.inputs.items():
        if "lora" in key.lower() and isinstance(value, list):
            raise broken(
                f"has {key} of {node.kind} from another node; LoRAs can be repeated that a loader names", field="lora"
            )
    if name := node.take("lora_name"):
        unet, te = (_strength(graph, node, part) for part in ("model", "clip"))
        if name.name().lower() != "none":
            yield stem(name.name()), unet, te
    if not node.kind.startswith("Power Lora Loader"):
        return
    for key in [key for key in node.inputs if key.lower().startswith("lora_")]:
        said = node.take(key)
        if said is None or not isinstance(said.value, dict) or "lora" not in said.value:
            raise broken(
                f"has {shown(node.inputs[key])[:40]} for {key} of {node.kind}, which names no LoRA", field="lora"
            )
        entry = dict(said.value)
        file, unet = Said(key, entry.pop("lora")).name(), Said(f"{key} strength", entry.pop("strength", 1)).number()
        second = entry.pop("strengthTwo", None)
        if entry.pop("on", True) is True and file.lower() != "none":
            yield stem(file), unet, unet if second is None else Said(f"{key} strengthTwo", second).number()
        for inner, value in entry.items():
            node.leave(f"{key} {inner}", value)


def _strength(graph: Graph, node: Node, part: str) -> float:
    """Return a LoRA's strength on the model or the clip; 0 for a node without a clip input."""
    key = next((key for key in (f"strength_{part}", f"lora_{part}_strength") if key in node.inputs), None)
    said = number_of(graph, node, key) if key else None
    if said is None and (part == "model" or "clip" in node.inputs):
        raise broken(f"has no strength_{part} for {node.kind}", field="lora")
    return said.number() if said else 0.0


def vae_of(graph: Graph, sampler: Node, checkpoint: Node) -> str | None:
    """The VAE file that decodes the picture, or the other checkpoint whose VAE does; None for the checkpoint's own."""
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
