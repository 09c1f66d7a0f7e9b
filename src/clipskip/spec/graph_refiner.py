"""SDXL's refiner in a ComfyUI graph: a second sampler of another checkpoint that goes on where the first one stopped."""

from dataclasses import dataclass

from clipskip.spec.graph_files import checkpoint_of
from clipskip.spec.graph_ways import Words, texts_of, way
from clipskip.spec.nodes import Graph, Node, back_from, broken, is_sampler

EVEN = {"Normal": -1, "SGM Uniform": 0, "Simple": 0, "DDIM": 0}
"""Schedules whose timesteps are evenly spaced, and how many fewer gaps than steps lie between the first and the last."""
GONE = 0.999
"""The share of the levels that lies behind the last timestep."""
SAME = ("steps", "cfg", "sampler_name", "scheduler", "noise_seed")
"""What both samplers must have alike."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refining:
    """The checkpoint that finishes the picture, and the share of the noise that is removed before it takes over."""

    model: str
    switch_at: float


def refining(
    graph: Graph, first: Node, *, base: str, words: tuple[Words, Words | None], schedule: str
) -> Refining | None:
    """Return the refiner that continues where the first sampler ended; None if it is no other checkpoint.

    SpecError where it draws otherwise than the first: with other words, other settings, or levels that are not even.
    """
    end, steps = first.inputs.get("end_at_step"), first.inputs.get("steps")
    if not isinstance(end, int) or not isinstance(steps, int) or not 0 < end < steps:
        return None
    continuing = [node for node in graph.nodes.values() if node is not first and _goes_on(graph, node, first, end)]
    if len(continuing) != 1:
        return None
    second = continuing[0]
    name = checkpoint_of(way(graph, second, "model", "MODEL")[-1])
    if name == base:
        return None
    positive = texts_of(graph, second, "positive")
    negative = texts_of(graph, second, "negative") if "negative" in second.inputs else None
    told = [text_node and text_node.text for text_node in (*words, positive, negative)]
    if told[:2] != told[2:]:
        raise broken(
            "gives its refiner other words than its base; records where both read the same can be repeated",
            field="prompt",
        )
    for key in SAME:
        if key != "noise_seed" and first.inputs.get(key) != second.inputs.get(key):
            raise broken(f"gives its refiner another {key} than its base, which cannot be repeated", field="refiner")
        second.take(key)
    if schedule not in EVEN:
        raise broken(
            f"hands over to its refiner on the schedule {schedule}, whose steps are not even; {', '.join(EVEN)} can be repeated",
            field="scheduler",
        )
    for key in ("start_at_step", "end_at_step", "add_noise", "return_with_leftover_noise", "latent_image"):
        second.take(key)
    for key in ("end_at_step", "return_with_leftover_noise"):
        first.take(key)
    return Refining(model=name, switch_at=switched_at(end, steps=steps, schedule=schedule))


def switched_at(end: int, *, steps: int, schedule: str) -> float:
    """Return the share of the noise that is gone at a step of an even schedule."""
    return round(GONE * (end - 0.5) / (steps + EVEN[schedule]), 6)


def _goes_on(graph: Graph, node: Node, first: Node, end: int) -> bool:
    """Return whether a sampler starts at the step where the first one ended, at its latent and without noise of its own."""
    starts = node.inputs.get("start_at_step") == end and node.inputs.get("add_noise") in ("disable", False)
    return starts and is_sampler(node) and any(other is first for other, _ in back_from(graph, node))
