"""Other tools' records: their Clip Skip, their prompts and their LoRAs."""

import copy
import json
from dataclasses import replace
from typing import Any

import pytest

from clipskip.errors import SpecError
from clipskip.spec import ClipSkip, LoraRef
from clipskip.spec.settings import request_from_text

Json = dict[str, Any]

GRAPH: Json = {
    "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "sd15\\dream.safetensors"}},
    "10": {
        "class_type": "LoraLoader",
        "inputs": {"lora_name": "ogre.safetensors", "strength_model": 0.8, "strength_clip": 0.5, "model": ["4", 0], "clip": ["4", 1]},
    },
    "11": {"class_type": "LoraLoaderModelOnly", "inputs": {"lora_name": "ink.safetensors", "strength_model": 0.3, "model": ["10", 0]}},
    "12": {"class_type": "CLIPSetLastLayer", "inputs": {"stop_at_clip_layer": -4, "clip": ["10", 1]}},
    "13": {"class_type": "CLIPSetLastLayer", "inputs": {"stop_at_clip_layer": -2, "clip": ["12", 0]}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a swamp", "clip": ["13", 0]}},
    "7": {"class_type": "CLIPTextEncode", "inputs": {"text": ["20", 0], "clip": ["13", 0]}},
    "20": {"class_type": "PrimitiveString", "inputs": {"value": "lowres"}},
    "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 640, "height": 384, "batch_size": 1}},
    "3": {
        "class_type": "KSampler",
        "inputs": {
            "seed": 77, "steps": 28, "cfg": 6.5, "sampler_name": "dpmpp_2m", "scheduler": "karras", "denoise": 1,
            "model": ["11", 0], "positive": ["6", 0], "negative": ["7", 0], "latent_image": ["5", 0],
        },
    },
}  # fmt: skip


def changed(node: str, **inputs: object) -> Json:
    """The graph with other inputs in one node."""
    graph = copy.deepcopy(GRAPH)
    graph[node]["inputs"] |= inputs
    return graph


def test_a_comfyui_graph_is_read_along_its_links() -> None:
    asked = request_from_text(json.dumps(GRAPH))
    assert (asked.prompt, asked.negative_prompt, asked.model) == ("a swamp", "lowres", "dream")
    assert (asked.sampler, asked.scheduler, asked.steps, asked.cfg_scale, asked.seed) == (
        "DPM++ 2M",
        "Karras",
        28,
        6.5,
        77,
    )
    assert (asked.width, asked.height, asked.rng, asked.unused) == (640, 384, "CPU", ())


def test_the_clip_skip_nearest_to_the_encoder_counts() -> None:
    asked = request_from_text(json.dumps({"prompt": GRAPH, "client_id": "x"}))
    assert (asked.clip_skip, asked.negative_clip_skip) == (ClipSkip(2), None)


def test_a_negative_prompt_wired_elsewhere_has_its_own_clip_skip() -> None:
    asked = request_from_text(json.dumps(changed("7", clip=["10", 1])))
    assert (asked.clip_skip, asked.negative_clip_skip) == (ClipSkip(2), ClipSkip(1))


def test_loras_are_in_the_order_they_are_applied_with_both_strengths() -> None:
    assert request_from_text(json.dumps(GRAPH)).loras == (
        LoraRef(name="ogre", text_encoder=0.5, unet=0.8),
        LoraRef(name="ink", text_encoder=0.0, unet=0.3),
    )


def test_a_second_pass_is_named_as_not_repeated() -> None:
    graph = changed("3")
    graph["30"] = {"class_type": "LatentUpscale", "inputs": {"samples": ["3", 0], "width": 1280, "height": 768}}
    second = copy.deepcopy(graph["3"])
    second["inputs"] |= {"latent_image": ["30", 0], "denoise": 0.5}
    asked = request_from_text(json.dumps({"31": second, **graph}))
    assert asked.width == 640 and [name for name, _ in asked.unused] == ["KSampler", "LatentUpscale"]


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (changed("13", stop_at_clip_layer=-13), "-1 to -12"),
        (changed("13", stop_at_clip_layer="x"), "not a whole number"),
        (changed("3", steps=1e30), "out of range"),
        (changed("3", positive=["4", 0]), "of no text"),
        (changed("7", text=["5", 0]), "EmptyLatentImage"),
        (changed("5", width=0), "Size|width"),
        ({"1": {"class_type": "SaveImage", "inputs": {}}}, "no KSampler"),
        ({"1": {"class_type": "SaveImage"}}, "no KSampler"),
        ({"nodes": [], "links": []}, "no KSampler"),
        ({"nodes": [], "edges": []}, "not ComfyUI's"),
        ({"hello": "world"}, "not a record"),
    ],
)
def test_a_graph_that_cannot_be_repeated_says_why(graph: Json, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        request_from_text(json.dumps(graph))


def test_an_unknown_lora_loader_is_an_error_not_a_picture_without_the_lora() -> None:
    graph = changed("3", model=["40", 0])
    graph["40"] = {"class_type": "Power Lora Loader (rgthree)", "inputs": {"model": ["4", 0], "lora_1": {"on": True}}}
    with pytest.raises(SpecError, match="rgthree"):
        request_from_text(json.dumps(graph))


def test_a_graph_that_runs_in_a_circle_is_refused() -> None:
    graph = changed("13", clip=["12", 0])
    graph["12"]["inputs"] = {"clip": ["13", 0]}
    with pytest.raises(SpecError, match="circle"):
        request_from_text(json.dumps(graph))


INVOKE: Json = {
    "generation_mode": "txt2img", "positive_prompt": "a swamp", "negative_prompt": "lowres", "width": 512, "height": 768,
    "seed": 4294967295, "rand_device": "cpu", "cfg_scale": 7.5, "steps": 30, "scheduler": "dpmpp_2m_k", "clip_skip": 1,
    "model": {"name": "dreamshaper-8", "base": "sd-1", "hash": "blake3:00"},
    "loras": [{"model": {"name": "ogre"}, "weight": 0.75}],
}  # fmt: skip


@pytest.mark.parametrize(("skipped", "skip"), [(0, 1), (1, 2), (11, 12)])
def test_invokeai_counts_the_layers_that_it_skips(skipped: int, skip: int) -> None:
    assert request_from_text(json.dumps(INVOKE | {"clip_skip": skipped})).clip_skip == ClipSkip(skip)


def test_invokeais_record_is_read() -> None:
    asked = request_from_text(json.dumps(INVOKE))
    assert (asked.sampler, asked.scheduler, asked.model, asked.seed) == (
        "DPM++ 2M",
        "Karras",
        "dreamshaper-8",
        4294967295,
    )
    assert asked.loras == (LoraRef(name="ogre", text_encoder=0.75, unet=0.75),) and asked.height == 768


def test_invokeais_sdxl_starts_at_the_layer_before_the_last() -> None:
    asked = request_from_text(json.dumps(INVOKE | {"clip_skip": 0, "model": {"name": "xl", "base": "sdxl"}}))
    assert asked.clip_skip == ClipSkip(2)


def test_fooocus_counts_as_a1111_does() -> None:
    record = {
        "prompt": "a swamp", "negative_prompt": "", "base_model": "juggernaut", "base_model_hash": "aa", "steps": 30,
        "guidance_scale": 4, "seed": "123", "resolution": "(896, 1152)", "sampler": "dpmpp_2m_sde_gpu", "scheduler": "karras",
        "loras": [["offset", 0.1, "bb"]], "clip_skip": 2, "metadata_scheme": "fooocus",
    }  # fmt: skip
    asked = request_from_text(json.dumps(record))
    assert (asked.clip_skip, asked.width, asked.height) == (ClipSkip(2), 896, 1152)
    assert (asked.sampler, asked.scheduler, asked.loras[0].name) == ("DPM++ 2M SDE", "Karras", "offset")


EASY = """Prompt: a swamp, at night: fireflies
Negative Prompt: lowres
Seed: 42
Stable Diffusion model: models/sd-v1-5.ckpt
Clip Skip: {}
Sampler: euler_a
Width: 512
Height: 640
Steps: 25
Guidance Scale: 7.5
LoRA model: ogre, ink
LoRA Strength: 0.5, 0.25
"""


@pytest.mark.parametrize(("switch", "skip"), [("True", 2), ("Yes", 2), ("False", 1), ("No", 1)])
def test_easy_diffusions_switch_is_the_layer_before_the_last(switch: str, skip: int) -> None:
    assert request_from_text(EASY.format(switch)).clip_skip == ClipSkip(skip)


def test_easy_diffusions_text_file_is_read() -> None:
    asked = request_from_text(EASY.format("True"))
    assert (asked.prompt, asked.model, asked.sampler) == ("a swamp, at night: fireflies", "sd-v1-5", "Euler a")
    assert [(lora.name, lora.unet) for lora in asked.loras] == [("ogre", 0.5), ("ink", 0.25)]


def test_easy_diffusions_json_is_read() -> None:
    record = {
        "prompt": "a swamp", "negative_prompt": "", "seed": 42, "use_stable_diffusion_model": "sd-v1-5", "clip_skip": True,
        "sampler_name": "dpmpp_2m", "width": 512, "height": 640, "num_inference_steps": 25, "guidance_scale": 7.5,
        "use_lora_model": ["ogre"], "lora_alpha": [0.5],
    }  # fmt: skip
    asked = request_from_text(json.dumps(record))
    assert (asked.clip_skip, asked.steps, asked.loras[0].unet) == (ClipSkip(2), 25, 0.5)
    copied = request_from_text(json.dumps({"numOutputsTotal": 6, "seed": 42, "reqBody": record}))
    assert copied == replace(asked, unused=(("numOutputsTotal", "6"),))


def test_novelai_is_clip_skip_2_with_its_seed_delta_as_in_a1111() -> None:
    record = {"prompt": "a swamp", "uc": "lowres", "steps": 28, "sampler": "k_euler_ancestral", "seed": 7, "scale": 11}
    asked = request_from_text(json.dumps(record))
    assert (asked.clip_skip, asked.ensd, asked.sampler, asked.cfg_scale) == (ClipSkip(2), 31337, "Euler a", 11)


@pytest.mark.parametrize(
    "change", [{"steps": "many"}, {"seed": 10**400}, {"cfg_scale": [7]}, {"width": True}, {"clip_skip": -1}, {"loras": [7]},
               {"loras": [{"model": None}]}, {"cfg_scale": float("nan")}, {"steps": None, "seed": "9" * 30}],
)  # fmt: skip
def test_nonsense_in_a_record_is_one_clear_line(change: Json) -> None:
    with pytest.raises(SpecError) as caught:
        request_from_text(json.dumps(INVOKE | change))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["{a|b} cat", "{", '{"a": ', "[1, 2]", "{" * 100_000, '{"a":' * 50_000])
def test_what_only_looks_like_json_is_a_prompt(text: str) -> None:
    assert request_from_text(text).prompt == text.strip()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{'prompt': 'a fox', 'seed': 5, 'clip_skip': 2}", "broken"),
        ('{"prompt": "a fox", "seed": 5, "clip_skip": 2,}', "broken"),
        ('{"prompt": "a fox", "clip_skip": 2', "broken"),
        ('[{"prompt": "a fox"}, {"prompt": "a bear"}]', "list of 2"),
        ('{"prompt": "a", "x":' + "[" * 100_000 + "]" * 100_000 + "}", "deeply"),
        ('{"3": {"class_type": "KSampler",', "broken"),
    ],
)
def test_json_that_cannot_be_read_is_no_prompt(text: str, told: str) -> None:
    with pytest.raises(SpecError, match=told):
        request_from_text(text)


def test_what_stands_around_a_record_is_no_part_of_it() -> None:
    """A list of one record, and the mark of byte order that Windows' editors begin a file with."""
    record = '{"prompt": "a fox", "seed": 5, "clip_skip": 2, "cfg_scale": 7}'
    assert request_from_text(f"[{record}]") == request_from_text("\ufeff" + record) == request_from_text(record)
    assert request_from_text("\ufeffa fox\nSteps: 20, Seed: 5, Clip skip: 2").prompt == "a fox"
