"""Links that go through a bundle of others -> links to where they come from: rgthree's Context nodes.

Read in rgthree-comfy's py/context_utils.py and its Context nodes: a context is made of the inputs of a node, on top of
another context; a switch takes the first that is not empty, a merge takes each part from the last that has it.
"""

import re
from collections.abc import Mapping
from typing import Any, final

from clipskip.spec.nodes import BYPASSED, MUTED, broken, is_link
from clipskip.spec.record_reader import one_line

Record = Mapping[str, Any]  # JSON

PARTS = ("base_ctx", "model", "clip", "vae", "positive", "negative", "latent", "images", "seed")
"""What a context holds, in the order of a node's outputs."""
BIG = (
    *PARTS, "steps", "step_refiner", "cfg", "ckpt_name", "sampler", "scheduler", "clip_width", "clip_height", "text_pos_g",
    "text_pos_l", "text_neg_g", "text_neg_l", "mask", "control_net", "denoise",
)  # fmt: skip
CONTEXTS: Mapping[str, tuple[str, ...]] = {
    f"Context{way}{size} (rgthree)": parts
    for size, parts in (("", PARTS), (" Big", BIG))
    for way in ("", " Switch", " Merge")
}


MOST_HOPS = 200
"""Contexts on top of each other."""


def without_contexts(record: Record) -> Record:
    """Return the graph with every input that is a part of a context put to what the context was given for it."""
    contexts = {name: parts for name, node in record.items() if (parts := CONTEXTS.get(_kind(node)))}
    if not contexts:
        return record
    held = _Parts(record, contexts)
    pieces: dict[str, Any] = {}
    for name, node in record.items():
        inputs = node.get("inputs")
        if not isinstance(inputs, dict):
            pieces[name] = node
        elif name not in contexts:
            pieces[name] = {**node, "inputs": {key: held.behind(value) for key, value in inputs.items()}}
        elif more := {key: value for key, value in inputs.items() if not (_is_part(key) and is_link(value))}:
            pieces[name] = {**node, "inputs": more}
    return pieces


def _kind(node: Any) -> str:  # JSON
    kind = node.get("class_type") if isinstance(node, dict) else None
    return kind if isinstance(kind, str) else ""


def _is_part(key: str) -> bool:
    return key in BIG or _is_context(key)


def _is_context(key: str) -> bool:
    return re.fullmatch("ctx_[0-9]{2}", key) is not None


@final
class _Parts:
    """The parts of a graph's contexts; each is looked for once."""

    def __init__(self, record: Record, contexts: Mapping[str, tuple[str, ...]]) -> None:
        self._record, self._contexts = record, contexts
        self._known: dict[tuple[str, str], Any] = {}  # JSON

    def behind(self, value: Any, hops: int = 0) -> Any:  # JSON
        """Return an input's value, or what it is where that is a part of a context; None for a part that nobody gave."""
        name, output = (str(value[0]), value[1]) if is_link(value) else ("", 0)
        outputs = self._contexts.get(name, ())
        return self._held(name, outputs[output], hops) if 1 <= output < len(outputs) else value

    def _held(self, name: str, part: str, hops: int) -> Any:  # JSON
        """Return a part of the context that a node gives."""
        if (name, part) not in self._known:
            self._known[name, part] = self._found(name, part, hops + 1)
        return self._known[name, part]

    def _found(self, name: str, part: str, hops: int) -> Any:  # JSON
        node = self._record.get(name, {})
        kind = one_line(_kind(node) or f"node {name}")[:60]
        if name not in self._contexts:
            raise broken(f"takes a context from {kind}, which is not known; rgthree's Context nodes are")
        if hops > MOST_HOPS:
            raise broken(f"takes its {part} in a circle, or through more than {MOST_HOPS} contexts: {kind}")
        if node.get("mode") in (MUTED, BYPASSED):
            raise broken(f"goes through {kind}, which is muted or bypassed; queue it again")
        inputs = node.get("inputs")
        inputs = inputs if isinstance(inputs, dict) else {}
        if inputs.get(part) is not None:
            return self.behind(inputs[part], hops)
        bases = [
            inputs[key] for key in ("base_ctx", *sorted(filter(_is_context, inputs), reverse=True)) if key in inputs
        ]
        for base in bases[-1:] if " Switch" in kind else bases:
            if not is_link(base):
                raise broken(f"has {one_line(base)[:40]!r} for a context of {kind}, which is not a link")
            if (held := self._held(str(base[0]), part, hops)) is not None:
                return held
        return None
