"""ComfyUI's workflow, as its page saves it -> a graph in API form, as the page makes one when it is queued.

Muted nodes go with their links, bypassed ones hand on what has the kind of their output, and reroutes, primitives and
subgraphs are put in their links' place (ComfyUI_frontend 1.28, src/utils/executionUtil.ts).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

from clipskip.spec.nodes import BYPASSED, CONTROLS, MOST_NODES, MUTED, broken
from clipskip.spec.record_reader import one_line

Record = Mapping[str, Any]  # JSON
Hold = tuple["Sheet", Record]
"""A subgraph's node, with the sheet that it is on."""

WIDGETS: Mapping[str, tuple[str, ...]] = {
    "CheckpointLoaderSimple": ("ckpt_name",), "CheckpointLoader": ("config_name", "ckpt_name"), "VAELoader": ("vae_name",),
    "UNETLoader": ("unet_name", "weight_dtype"), "CLIPLoader": ("clip_name", "type", "device"),
    "DualCLIPLoader": ("clip_name1", "clip_name2", "type", "device"),
    "LoraLoader": ("lora_name", "strength_model", "strength_clip"), "LoraLoaderModelOnly": ("lora_name", "strength_model"),
    "CLIPSetLastLayer": ("stop_at_clip_layer",), "CLIPTextEncode": ("text",),
    "CLIPTextEncodeSDXL": ("width", "height", "crop_w", "crop_h", "target_width", "target_height", "text_g", "text_l"),
    "CLIPTextEncodeSDXLRefiner": ("ascore", "width", "height", "text"),
    "ConditioningAverage": ("conditioning_to_strength",), "ConditioningSetTimestepRange": ("start", "end"),
    "ControlNetLoader": ("control_net_name",), "ControlNetApply": ("strength",),
    "ControlNetApplyAdvanced": ("strength", "start_percent", "end_percent"),
    "EmptyLatentImage": ("width", "height", "batch_size"), "LoadImage": ("image", ""), "VAEEncodeForInpaint": ("grow_mask_by",),
    "LatentUpscale": ("upscale_method", "width", "height", "crop"), "LatentUpscaleBy": ("upscale_method", "scale_by"),
    "ImageScale": ("upscale_method", "width", "height", "crop"), "ImageScaleBy": ("upscale_method", "scale_by"),
    "UpscaleModelLoader": ("model_name",), "SaveImage": ("filename_prefix",),
    "KSampler": ("seed", "steps", "cfg", "sampler_name", "scheduler", "denoise"),
    "KSamplerAdvanced": (
        "add_noise", "noise_seed", "steps", "cfg", "sampler_name", "scheduler", "start_at_step", "end_at_step",
        "return_with_leftover_noise",
    ),
    "SamplerCustom": ("add_noise", "noise_seed", "cfg"), "CFGGuider": ("cfg",), "KSamplerSelect": ("sampler_name",),
    "BasicScheduler": ("scheduler", "steps", "denoise"), "RandomNoise": ("noise_seed",),
    "ModelSamplingDiscrete": ("sampling", "zsnr"), "RescaleCFG": ("multiplier",),
    "unCLIPCheckpointLoader": ("ckpt_name",), "ImageOnlyCheckpointLoader": ("ckpt_name",),
    "HypernetworkLoader": ("hypernetwork_name", "strength"),
    "CLIPVisionLoader": ("clip_name",), "unCLIPConditioning": ("strength", "noise_augmentation"),
    "ConditioningSetArea": ("width", "height", "x", "y", "strength"),
    "ConditioningSetAreaPercentage": ("width", "height", "x", "y", "strength"), "ConditioningSetMask": ("strength", "set_cond_area"),
    "EmptySD3LatentImage": ("width", "height", "batch_size"), "RepeatLatentBatch": ("amount",),
    "ImagePadForOutpaint": ("left", "top", "right", "bottom", "feathering"), "ModelMergeSimple": ("ratio",),
    "PerturbedAttentionGuidance": ("scale",), "SelfAttentionGuidance": ("scale", "blur_sigma"),
    "HyperTile": ("tile_size", "swap_size", "max_depth", "scale_depth"),
    "KarrasScheduler": ("steps", "sigma_max", "sigma_min", "rho"), "ExponentialScheduler": ("steps", "sigma_max", "sigma_min"),
    "PolyexponentialScheduler": ("steps", "sigma_max", "sigma_min", "rho"), "SDTurboScheduler": ("steps", "denoise"),
    "AlignYourStepsScheduler": ("model_type", "steps", "denoise"),
    "SamplerEulerAncestral": ("eta", "s_noise"), "SamplerDPMPP_2S_Ancestral": ("eta", "s_noise"), "SamplerLMS": ("order",),
    "SamplerDPMPP_SDE": ("eta", "s_noise", "r", "noise_device"), "SamplerDPMPP_3M_SDE": ("eta", "s_noise", "noise_device"),
    "Efficient Loader": (
        "ckpt_name", "vae_name", "clip_skip", "lora_name", "lora_model_strength", "lora_clip_strength", "positive", "negative",
        "token_normalization", "weight_interpretation", "empty_latent_width", "empty_latent_height", "batch_size",
    ),
    "KSampler (Efficient)": ("seed", "steps", "cfg", "sampler_name", "scheduler", "denoise", "preview_method", "vae_decode"),
    "CR LoRA Stack": tuple(f"{name}_{n}" for n in (1, 2, 3) for name in ("switch", "lora_name", "model_weight", "clip_weight")),
    "FreeU": ("b1", "b2", "s1", "s2"), "FreeU_V2": ("b1", "b2", "s1", "s2"),
}  # fmt: skip
"""The widgets of core nodes and of Efficiency's and Comfyroll's, in order; some files name a node's widgets themselves."""
LATER = ("device", "denoise", "")
"""Widgets that older files lack."""
SEEDS = ("seed", "noise_seed")
"""Widgets with another behind them that says what becomes of the seed after a run."""
CONTROL = "control_after_generate"
ENTRY, EXIT = "inputNode", "outputNode"
EVERYWHERE = (
    "Anything Everywhere",
    "Anything Everywhere?",
    "Anything Everywhere3",
    "Prompts Everywhere",
    "Seed Everywhere",
)
"""cg-use-everywhere's nodes, whose links are not in the file."""
GROUPS = ("workflow/", "workflow>")
"""How the kinds of group nodes begin, which came before subgraphs."""
VIRTUAL = ("Reroute", "PrimitiveNode", "Note", "MarkdownNote", "GetNode", "SetNode")
"""Nodes of the page alone; those that give something give it to whatever takes it from them."""
MOST_HOPS, MOST_INSIDE = 200, 50
NAMELESS = "nameless"
"""A node whose widgets' names are not known, so that its values cannot be told apart."""


def is_workflow(record: Record) -> bool:
    """Return whether the JSON is a workflow as ComfyUI's page saves it."""
    return isinstance(record.get("nodes"), list) and isinstance(record.get("links"), list)


def as_graph(record: Record) -> dict[str, Any]:
    """Return the workflow in API form, nodes in the order in which ComfyUI runs them; SpecError where it is not whole."""
    try:
        return _Workflow(record).graph()
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise broken(
            "is a workflow that is damaged, or of an unknown version; save it again, or in API form"
        ) from error


@dataclass(frozen=True, slots=True)
class Value:
    """What a widget holds, where a link leads to it."""

    value: object


@final
class Sheet:
    """The nodes and links of a workflow, or of one use of a subgraph."""

    def __init__(self, record: Record, *, prefix: str = "", hold: Hold | None = None) -> None:
        self.prefix, self.hold = prefix, hold
        self.nodes: dict[str, Record] = {str(node["id"]): node for node in record["nodes"]}
        links = [_link(link) for link in record["links"]]
        self.links = {name: (origin, slot) for name, origin, slot, _, _ in links}
        self.ends = {key: str(record[key]["id"]) for key in (ENTRY, EXIT) if key in record}
        self.given = {slot: name for name, _, _, target, slot in links if target == self.ends.get(EXIT)}
        self.held: dict[str, Any] = {}
        self.shown: dict[tuple[str, str], Any] = {}
        if hold:
            self._take_values(record, hold[1])

    def _take_values(self, record: Record, node: Record) -> None:
        """Take the values that a subgraph's node holds: `held` by the names of its inputs, `shown` by node and widget."""
        values = node.get("widgets_values") or []
        proxies = [tuple(map(str, one[:2])) for one in (node.get("properties") or {}).get("proxyWidgets") or ()]
        if not values:
            return  # those of the nodes inside count
        if not proxies:
            widgets = {
                entry["link"]
                for inner in self.nodes.values()
                for entry in inner.get("inputs") or ()
                if entry.get("widget")
            }
            proxies = [
                ("-1", entry["name"]) for entry in record["inputs"] if widgets.intersection(entry.get("linkIds") or ())
            ]
        if len(proxies) != len(values):
            raise broken(
                f"has a subgraph, {one_line(record.get('name'))[:60]!r}, whose values have no names; save it in API form"
            )
        for (inner, name), value in zip(proxies, values, strict=True):
            if inner == "-1":
                self.held[name] = value
            else:
                self.shown[inner, name] = value


def _link(link: Any) -> tuple[Any, str, int, str, int]:  # JSON
    """Return a link's name, its origin and the number of its output, its target and the number of its input."""
    if isinstance(link, dict):
        link = [link[key] for key in ("id", "origin_id", "origin_slot", "target_id", "target_slot")]
    return link[0], str(link[1]), int(link[2]), str(link[3]), int(link[4])


@final
class _Workflow:
    def __init__(self, record: Record) -> None:
        definitions = record.get("definitions") or {}
        self.subgraphs: dict[str, Record] = {one["id"]: one for one in definitions.get("subgraphs") or ()}
        self.sheets: dict[str, Sheet] = {}
        self.count = 0
        self.top = self._opened(Sheet(record), ())

    def _opened(self, sheet: Sheet, inside: tuple[str, ...]) -> Sheet:
        """Lay out the subgraphs that a sheet uses, each use as a sheet of its own."""
        self.count += len(sheet.nodes)
        if self.count > MOST_NODES or len(inside) > MOST_INSIDE:
            raise broken(f"has more than {MOST_NODES:,} nodes, or {MOST_INSIDE} subgraphs inside each other")
        for name, node in sheet.nodes.items():
            kind = node["type"]
            if kind.startswith(GROUPS):
                raise broken(
                    f"has the group node {one_line(kind[9:])[:60]!r}; convert it to nodes, or save it in API form"
                )
            if kind in self.subgraphs:
                if kind in inside:
                    raise broken("has a subgraph inside itself")
                key = f"{sheet.prefix}{name}"
                inner = Sheet(self.subgraphs[kind], prefix=f"{key}:", hold=(sheet, node))
                self.sheets[key] = self._opened(inner, (*inside, kind))
        return sheet

    def graph(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        self._write(self.top, found)
        return found

    def _write(self, sheet: Sheet, found: dict[str, Any]) -> None:
        for name, node in sorted(sheet.nodes.items(), key=lambda one: one[1].get("order", 0)):
            if node.get("mode") in (MUTED, BYPASSED) or node["type"] in VIRTUAL:
                continue
            if node["type"] in EVERYWHERE:
                raise broken(f"has links that {node['type']} makes, which are not in the file; save it in API form")
            if inner := self.sheets.get(f"{sheet.prefix}{name}"):
                self._write(inner, found)
                continue
            values = _values(node)
            inputs: dict[str, Any] = dict(values or {})
            inputs |= {widget: value for (at, widget), value in sheet.shown.items() if at == name and widget != CONTROL}
            for entry in node.get("inputs") or ():
                if entry.get("link") is None:
                    continue
                source = self._source(sheet, entry["link"])
                if source is None:
                    inputs.pop(entry["name"], None)
                elif not isinstance(source, Value):
                    inputs[entry["name"]] = source
                elif source.value is not None:
                    inputs[entry["name"]] = source.value
            record = {"class_type": node["type"], "inputs": inputs}
            found[f"{sheet.prefix}{name}"] = record if values is not None else record | {NAMELESS: True}

    def _source(self, sheet: Sheet, link: Any, hops: int = 0) -> list[Any] | Value | None:
        """Return what a link brings: [node, output], a widget's value, or None if it comes from a muted node."""
        if hops > MOST_HOPS:
            raise broken("runs in a circle")
        origin, slot = sheet.links[link]
        if origin == sheet.ends.get(ENTRY):
            return self._held(sheet, slot, hops)
        node = sheet.nodes[origin]
        kind, mode = node["type"], node.get("mode")
        if mode == MUTED:
            return None
        if mode == BYPASSED:
            return self._passed(sheet, node, slot, hops)
        if kind == "Reroute":
            return self._linked(sheet, node["inputs"][0], hops)
        if kind == "PrimitiveNode":
            return Value(node["widgets_values"][0])
        if kind == "GetNode":
            return self._set(node["widgets_values"][0], hops)
        if inner := self.sheets.get(f"{sheet.prefix}{origin}"):
            return self._source(inner, inner.given[slot], hops + 1) if slot in inner.given else None
        return [f"{sheet.prefix}{origin}", slot]

    def _linked(self, sheet: Sheet, entry: Record, hops: int) -> list[Any] | Value | None:
        return None if entry.get("link") is None else self._source(sheet, entry["link"], hops + 1)

    def _passed(self, sheet: Sheet, node: Record, slot: int, hops: int) -> list[Any] | Value | None:
        """Return what a bypassed node hands on: its input of the output's kind, the one at the output's place before others."""
        kind, entries = node["outputs"][slot]["type"], list(node.get("inputs") or ())
        for entry in (*entries[slot : slot + 1], *entries):
            if entry["type"] == kind and entry.get("link") is not None:
                return self._linked(sheet, entry, hops)
        return None

    def _held(self, inner: Sheet, slot: int, hops: int) -> list[Any] | Value | None:
        """Return what a subgraph's node is given or holds; without either, the value of the node inside stays."""
        assert inner.hold is not None
        sheet, node = inner.hold
        name = self.subgraphs[node["type"]]["inputs"][slot]["name"]
        outer = [entry for entry in node.get("inputs") or () if entry["name"] == name and entry.get("link") is not None]
        return self._linked(sheet, outer[0], hops) if outer else Value(inner.held.get(name))

    def _set(self, name: object, hops: int) -> list[Any] | Value | None:
        """Return what the SetNode of that name was given."""
        for sheet in (self.top, *self.sheets.values()):
            for node in sheet.nodes.values():
                if node["type"] == "SetNode" and node["widgets_values"][0] == name:
                    return self._linked(sheet, node["inputs"][0], hops)
        raise broken(f"gets {one_line(name)[:40]!r}, which no SetNode sets")


def _values(node: Record) -> dict[str, Any] | None:
    """Return a node's values by their widgets' names; None where the names are not known."""
    values = node.get("widgets_values")
    if not values:
        return {}
    if isinstance(values, dict):
        return dict(values)
    if node["type"] == "Power Lora Loader (rgthree)":
        loras = [value for value in values if isinstance(value, dict) and "lora" in value]
        return {f"lora_{n}": value for n, value in enumerate(loras, 1)}
    own = tuple(entry["widget"]["name"] for entry in node.get("inputs") or () if entry.get("widget"))
    named = _named(own, values)
    core = WIDGETS.get(node["type"].strip(), ())
    for names in (core, tuple(name for name in core if name not in LATER)):
        named = named or _named(names, values)
    if named is None and len(values) == 1 and not any(entry.get("link") for entry in node.get("inputs") or ()):
        return {"value": values[0]}  # a node that gives one value
    return named


def _named(names: tuple[str, ...], values: list[Any]) -> dict[str, Any] | None:
    """Pair names and values, without what becomes of a seed; None where their numbers differ."""
    behind = [at for at, name in enumerate(names, 1) if name in SEEDS]
    if len(values) == len(names) + len(behind):
        left = [values[at + n] for n, at in enumerate(behind)]
        if not all(value in CONTROLS or value is None or isinstance(value, bool) for value in left):
            return None
        for at in behind:
            values = values[:at] + values[at + 1 :]
    if len(values) != len(names):
        return None
    return {name: value for name, value in zip(names, values, strict=True) if name}
