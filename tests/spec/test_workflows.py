"""ComfyUI's workflows as its page saves them are read as the graphs in API form that the page makes of them."""

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from clipskip.errors import SpecError
from clipskip.spec import ClipSkip, Request
from clipskip.spec.settings import request_from_text
from clipskip.spec.workflow import CONTROL, SEEDS, WIDGETS, as_graph

Json = dict[str, Any]
FACTS = json.loads((Path(__file__).parents[1] / "golden" / "comfyui-nodes.json").read_text("utf-8"))["nodes"]
VALUES = ("INT", "FLOAT", "STRING", "COMBO", "BOOLEAN")


def node(name: int, kind: str, values: Sequence[Any] = (), *, mode: int = 0, outputs: str = "", **inputs: int) -> Json:
    """A node on the page: its inputs are numbers of links."""
    slots = [{"name": key.removeprefix("w_"), "type": key.upper(), "link": link} for key, link in inputs.items()]
    for slot, key in zip(slots, inputs, strict=True):
        slot |= {"widget": {"name": slot["name"]}} if key.startswith("w_") else {}
    return {
        "id": name, "type": kind, "mode": mode, "order": name, "inputs": slots, "widgets_values": list(values),
        "outputs": [{"name": one, "type": one, "links": []} for one in outputs.split()],
    }  # fmt: skip


def page() -> Json:
    nodes = [
        node(1, "CheckpointLoaderSimple", ["fox.safetensors"], outputs="MODEL CLIP VAE"),
        node(2, "LoraLoader", ["ink.safetensors", 0.8, 0.5], outputs="MODEL CLIP", model=10, clip=11),
        node(3, "CLIPSetLastLayer", [-2], outputs="CLIP", clip=12),
        node(4, "CLIPTextEncode", ["a fox"], outputs="CONDITIONING", clip=13),
        node(5, "CLIPTextEncode", ["blurry"], outputs="CONDITIONING", clip=14),
        node(6, "EmptyLatentImage", [512, 768, 1], outputs="LATENT"),
        node(7, "KSampler", [5, "randomize", 20, 7, "euler", "normal", 1], outputs="LATENT",
             model=15, positive=16, negative=17, latent_image=18),
        node(8, "VAEDecode", outputs="IMAGE", samples=19, vae=20),
        node(9, "SaveImage", ["ComfyUI"], images=21),
    ]  # fmt: skip
    origins = [(1, 0), (1, 1), (2, 1), (3, 0), (3, 0), (2, 0), (4, 0), (5, 0), (6, 0), (7, 0), (1, 2), (8, 0)]
    links = [[10 + n, *origin, 0, 0, "*"] for n, origin in enumerate(origins)]
    return {"nodes": nodes, "links": links, "version": 0.4}


GRAPH: Json = {
    "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "fox.safetensors"}},
    "2": {"class_type": "LoraLoader", "inputs": {"lora_name": "ink.safetensors", "strength_model": 0.8, "strength_clip": 0.5,
          "model": ["1", 0], "clip": ["1", 1]}},
    "3": {"class_type": "CLIPSetLastLayer", "inputs": {"stop_at_clip_layer": -2, "clip": ["2", 1]}},
    "4": {"class_type": "CLIPTextEncode", "inputs": {"text": "a fox", "clip": ["3", 0]}},
    "5": {"class_type": "CLIPTextEncode", "inputs": {"text": "blurry", "clip": ["3", 0]}},
    "6": {"class_type": "EmptyLatentImage", "inputs": {"width": 512, "height": 768, "batch_size": 1}},
    "7": {"class_type": "KSampler", "inputs": {"seed": 5, "steps": 20, "cfg": 7, "sampler_name": "euler", "scheduler": "normal",
          "denoise": 1, "model": ["2", 0], "positive": ["4", 0], "negative": ["5", 0], "latent_image": ["6", 0]}},
    "8": {"class_type": "VAEDecode", "inputs": {"samples": ["7", 0], "vae": ["1", 2]}},
    "9": {"class_type": "SaveImage", "inputs": {"filename_prefix": "ComfyUI", "images": ["8", 0]}},
}  # fmt: skip


def read(record: Json) -> Request:
    return request_from_text(json.dumps(record))


def at(record: Json, name: int) -> Json:
    return next(one for one in record["nodes"] if one["id"] == name)  # type: ignore[no-any-return]


def linked(record: Json, link: int, origin: int, slot: int = 0) -> None:
    """Let a link begin elsewhere."""
    record["links"] = [one for one in record["links"] if one[0] != link] + [[link, origin, slot, 0, 0, "*"]]


def test_a_workflow_is_the_graph_that_the_page_makes_of_it() -> None:
    assert as_graph(page()) == GRAPH
    assert read(page()) == read(GRAPH)


def test_the_order_of_nodes_is_that_of_their_run() -> None:
    mixed = page()
    mixed["nodes"].reverse()
    assert list(as_graph(mixed)) == list(GRAPH)


def test_the_tables_of_widgets_are_comfyuis() -> None:
    for kind in WIDGETS.keys() & FACTS.keys():
        names = [name for name in WIDGETS[kind] if name]
        assert names == [name for name, told in FACTS[kind]["inputs"].items() if told["type"] in VALUES], kind
    assert len(WIDGETS.keys() & FACTS.keys()) > 25


@pytest.mark.parametrize("control", ["fixed", True, None])
def test_what_becomes_of_the_seed_is_no_setting(control: object) -> None:
    record = page()
    at(record, 7)["widgets_values"][1] = control
    assert as_graph(record) == GRAPH
    del at(record, 7)["widgets_values"][1]
    assert as_graph(record) == GRAPH


def test_a_muted_node_is_left_out_with_its_links() -> None:
    record = page()
    at(record, 5)["mode"] = 2
    with pytest.raises(SpecError, match="no KSampler"):
        read(record)
    record = page()
    at(record, 9)["mode"] = 2
    assert as_graph(record) == {name: told for name, told in GRAPH.items() if name != "9"}


def test_a_bypassed_node_hands_on_what_it_takes() -> None:
    record = page()
    at(record, 2)["mode"] = 4
    asked = read(record)
    assert asked.loras == () and asked.model == "fox" and asked.clip_skip == ClipSkip(2)


def test_reroutes_primitives_and_set_nodes_are_gone_through() -> None:
    record = page()
    record["nodes"] += [
        node(20, "Reroute", outputs="CLIP", any=40), node(21, "Reroute", outputs="CLIP", any=41),
        node(22, "SetNode", ["clip"], outputs="*", CLIP=42), node(23, "GetNode", ["clip"], outputs="CLIP"),
        node(24, "PrimitiveNode", [30, "fixed"], outputs="INT"), node(25, "Note", ["ours"]),
    ]  # fmt: skip
    record["links"] += [
        [40, 21, 0, 20, 0, "CLIP"],
        [41, 23, 0, 21, 0, "CLIP"],
        [42, 3, 0, 22, 0, "CLIP"],
        [43, 24, 0, 7, 4, "INT"],
    ]
    linked(record, 13, 20)
    at(record, 7)["inputs"].append({"name": "steps", "type": "INT", "link": 43, "widget": {"name": "steps"}})
    wanted = copy.deepcopy(GRAPH)
    wanted["7"]["inputs"]["steps"] = 30
    assert as_graph(record) == wanted


def inner(*promoted: str) -> Json:
    """A subgraph of the sampler, whose first inputs set widgets of it."""
    names = (*promoted, "model", "positive", "negative", "latent_image")
    sampler = at(page(), 7) | {"inputs": [
        {"name": name, "type": "*", "link": link, **({"widget": {"name": name}} if name in promoted else {})}
        for link, name in enumerate(names)
    ]}  # fmt: skip
    links = [
        {"id": link, "origin_id": -10, "origin_slot": link, "target_id": 7, "target_slot": link, "type": "*"}
        for link in range(len(names))
    ]
    out = {"id": 99, "origin_id": 7, "origin_slot": 0, "target_id": -20, "target_slot": 0, "type": "LATENT"}
    return {
        "id": "aa-bb", "name": "Sampling", "inputNode": {"id": -10}, "outputNode": {"id": -20},
        "inputs": [{"name": name, "type": "*", "linkIds": [link]} for link, name in enumerate(names)],
        "outputs": [{"name": "LATENT", "type": "LATENT", "linkIds": [99]}], "nodes": [sampler], "links": [*links, out],
    }  # fmt: skip


def with_subgraph(values: list[Any], *promoted: str, proxies: list[list[str]] | None = None) -> Json:
    record = page()
    host = at(record, 7)
    host |= {"type": "aa-bb", "widgets_values": values, "properties": {"proxyWidgets": proxies} if proxies else {}}
    return record | {"definitions": {"subgraphs": [inner(*promoted)]}}


@pytest.mark.parametrize(
    ("record", "steps", "seed"),
    [
        (with_subgraph([]), 20, 5),
        (with_subgraph([], "steps"), 20, 5),
        (with_subgraph([30], "steps"), 30, 5),
        (with_subgraph([9, 30], "seed", "steps"), 30, 9),
        (with_subgraph([30, 9], "steps", proxies=[["-1", "steps"], ["7", "seed"]]), 30, 9),
        (with_subgraph([9, "fixed"], proxies=[["7", "seed"], ["7", CONTROL]]), 20, 9),
    ],
    ids=["plain", "value inside", "value on it", "values in order", "named values", "values of nodes inside"],
)
def test_a_subgraph_is_the_nodes_inside_it(record: Json, steps: int, seed: int) -> None:
    graph = as_graph(record)
    wanted = copy.deepcopy(GRAPH)
    wanted["7:7"] = wanted.pop("7")
    wanted["7:7"]["inputs"] |= {"steps": steps, "seed": seed}
    wanted["8"]["inputs"]["samples"] = ["7:7", 0]
    assert graph == wanted
    assert (read(record).steps, read(record).seed) == (steps, seed)


def test_a_link_to_a_subgraph_comes_before_its_values() -> None:
    record = with_subgraph([30], "steps")
    record["nodes"].append(node(24, "PrimitiveInt", [40], outputs="INT"))
    record["links"].append([43, 24, 0, 7, 0, "INT"])
    at(record, 7)["inputs"].append({"name": "steps", "type": "INT", "link": 43, "widget": {"name": "steps"}})
    assert read(record).steps == 40


def test_names_of_widgets_in_the_file_are_taken() -> None:
    record = page()
    names = ("seed", "steps", "cfg", "sampler_name", "scheduler", "denoise")
    assert SEEDS[0] in names
    at(record, 7)["type"] = "KSampler (Efficient)"
    at(record, 7)["inputs"] += [{"name": n, "type": "*", "link": None, "widget": {"name": n}} for n in names]
    assert as_graph(record)["7"]["inputs"] == GRAPH["7"]["inputs"]
    at(record, 3).update(type="Some Skip", widgets_values={"stop_at_clip_layer": -2})
    assert as_graph(record)["3"]["inputs"] == GRAPH["3"]["inputs"]


def test_widgets_that_older_files_lack_are_no_fault() -> None:
    record = page()
    record["nodes"].append(node(20, "CLIPLoader", ["clip_l.safetensors", "stable_diffusion"], outputs="CLIP"))
    record["nodes"].append(node(21, "LoadImage", ["fox.png", "image"], outputs="IMAGE MASK"))
    graph = as_graph(record)
    assert graph["20"]["inputs"] == {"clip_name": "clip_l.safetensors", "type": "stable_diffusion"}
    assert graph["21"]["inputs"] == {"image": "fox.png"}


def test_rgthrees_loras_have_numbers() -> None:
    record = page()
    lora = {"on": True, "lora": "ink.safetensors", "strength": 0.8, "strengthTwo": 0.5}
    at(record, 2).update(type="Power Lora Loader (rgthree)", widgets_values=[{}, {"type": "Header"}, lora, {}, ""])
    assert [(one.name, one.unet, one.text_encoder) for one in read(record).loras] == [("ink", 0.8, 0.5)]


def circle() -> Json:
    record = page()
    record["nodes"].append(node(20, "Reroute", outputs="CLIP", any=40))
    record["links"].append([40, 20, 0, 20, 0, "CLIP"])
    linked(record, 13, 20)
    return record


def too_few() -> Json:
    record = page()
    at(record, 6)["widgets_values"].pop()
    return record


def nameless() -> Json:
    record = page()
    at(record, 2).update(type="CR Something", widgets_values=["ink.safetensors", 0.8])
    return record


def everywhere() -> Json:
    record = page()
    record["nodes"].append(node(20, "Anything Everywhere", anything=10))
    return record


def group_node(mark: str) -> Json:
    record = page()
    record["nodes"].append(node(20, f"workflow{mark}my group"))
    return record


def inside_itself() -> Json:
    record = with_subgraph([])
    record["definitions"]["subgraphs"][0]["nodes"].append(node(30, "aa-bb"))
    return record


def nested(levels: int, each: int) -> Json:
    """Subgraphs of which each holds the next, so many times."""
    ends = {"inputNode": {"id": -10}, "outputNode": {"id": -20}, "inputs": [], "outputs": [], "links": []}
    subgraphs = [
        ends
        | {
            "id": f"s{n}",
            "name": f"s{n}",
            "nodes": [node(k, f"s{n + 1}") for k in range(each if n + 1 < levels else 0)],
        }
        for n in range(levels)
    ]
    record = page()
    record["nodes"].append(node(20, "s0"))
    return record | {"definitions": {"subgraphs": subgraphs}}


def without(key: str) -> Json:
    record = page()
    del at(record, 7)[key]
    return record


@pytest.mark.parametrize(
    ("record", "told"),
    [
        (too_few(), "EmptyLatentImage, whose values have no names"),
        (everywhere(), "links that Anything Everywhere makes"),
        (circle(), "circle"), (nameless(), "CR Something, whose values have no names"), (group_node("/"), "'my group'"),
        (group_node(">"), "'my group'"),
        (with_subgraph([1, 2, 3], "steps"), "'Sampling', whose values have no names"), (inside_itself(), "inside itself"),
        (nested(30, 2), "more than 2,000 nodes"),
        (nested(1000, 1), "50 subgraphs inside each other"),
        (without("type"), "damaged"), (page() | {"links": [[1]]}, "damaged"), (page() | {"links": []}, "damaged"),
        (page() | {"nodes": [None]}, "damaged"),
    ],
)  # fmt: skip
def test_a_workflow_that_cannot_be_read_says_why(record: Json, told: str) -> None:
    with pytest.raises(SpecError, match=told):
        read(record)
