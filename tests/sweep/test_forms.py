"""A picture in other tools' forms: nodes and inputs that ComfyUI has, and code that draws with diffusers."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch

from clipskip.encode import encode_layers, open_text_encoder
from clipskip.spec import ClipSkip, Family, request_from_text
from clipskip.spec.dialect import asked_skip
from clipskip.sweep import Form, forms_of
from clipskip.weights import load_checkpoint, save_folder
from clipskip.weights.library import STARTER

COMFY: dict[str, Any] = json.loads((Path(__file__).parents[1] / "golden" / "comfyui-nodes.json").read_text())
TEXT = (
    "a gnome, badhand <lora:gnome:0.8> <lora:ogre:0.5:1>\nNegative prompt: blurry\nSteps: 2, Sampler: {sampler}, CFG scale: 4, "
    'Seed: 5, Size: 128x128, Model: starter, Clip skip: 2, TI hashes: "badhand: 0123456789ab"'
)


def form(tool: str, text: str = TEXT, *, sampler: str = "Euler", family: Family = Family.SD1) -> Form:
    found = forms_of(request_from_text(text.format(sampler=sampler)), family=family)
    return next(one for one in found if one.tool == tool)


@pytest.mark.parametrize(
    "sampler", ["Euler", "Euler a", "DPM++ 2M Karras", "DPM++ SDE Exponential", "UniPC bh2", "LCM"]
)
def test_every_node_input_and_link_of_the_workflow_is_one_that_comfyui_has(sampler: str) -> None:
    graph = json.loads(form("ComfyUI", sampler=sampler).text)
    for node in graph.values():
        known = COMFY["nodes"][node["class_type"]]["inputs"]
        needed = {name for name, one in known.items() if one["required"]}
        assert needed <= node["inputs"].keys() <= known.keys(), node
        for name, value in node["inputs"].items():
            if isinstance(value, list):
                source, output = value
                assert COMFY["nodes"][graph[source]["class_type"]]["outputs"][output] == known[name]["type"], name
    sampled = next(node["inputs"] for node in graph.values() if node["class_type"] == "KSampler")
    assert sampled["sampler_name"] in COMFY["samplers"] and sampled["scheduler"] in COMFY["schedulers"]


def test_the_workflow_says_what_the_settings_say() -> None:
    nodes = list(json.loads(form("ComfyUI").text).values())
    said = [(one["class_type"], one["inputs"]) for one in nodes]
    assert [inputs["stop_at_clip_layer"] for kind, inputs in said if kind == "CLIPSetLastLayer"] == [-2]
    loras = [
        (one["lora_name"], one["strength_clip"], one["strength_model"]) for kind, one in said if kind == "LoraLoader"
    ]
    assert loras == [("gnome.safetensors", 0.8, 0.8), ("ogre.safetensors", 0.5, 1.0)]
    texts = [inputs["text"] for kind, inputs in said if kind == "CLIPTextEncode"]
    assert texts == ["a gnome, embedding:badhand", "blurry"]


def test_a_negative_prompt_of_its_own_clip_skip_has_its_own_node() -> None:
    text = TEXT + ", Negative clip skip: 4"
    said = [
        one["inputs"]
        for one in json.loads(form("ComfyUI", text).text).values()
        if one["class_type"] == "CLIPSetLastLayer"
    ]
    assert [one["stop_at_clip_layer"] for one in said] == [-2, -4]
    assert form("stable-diffusion.cpp", text).error


def test_what_a_tool_cannot_say_is_an_error_and_no_form() -> None:
    half = TEXT.replace("Clip skip: 2", "Clip skip: 1, Fractional clip skip: 1.5")
    for tool in ("ComfyUI", "diffusers", "stable-diffusion.cpp"):
        found = form(tool, half)
        assert found.error and not found.text, tool
    assert "Restart" in form("diffusers", sampler="Restart").error


@pytest.mark.parametrize("tool", ["SwarmUI", "InvokeAI", "ComfyUI"])
@pytest.mark.parametrize("sampler", ["Euler", "Euler a", "DPM++ 2M Karras"])
def test_what_is_written_for_a_tool_is_read_as_what_was_drawn(tool: str, sampler: str) -> None:
    asked = request_from_text(TEXT.replace(" <lora:ogre:0.5:1>", "").replace(", badhand", "").format(sampler=sampler))
    said = form(tool, TEXT.replace(" <lora:ogre:0.5:1>", "").replace(", badhand", ""), sampler=sampler)
    again = request_from_text(said.text)
    for name in ("negative_prompt", "steps", "cfg_scale", "seed", "width", "height", "model", "sampler"):
        assert getattr(again, name) == getattr(asked, name), (name, said)
    assert again.prompt == "a gnome" and [(lora.name, lora.unet, lora.text_encoder) for lora in again.loras] == [
        ("gnome", 0.8, 0.8)
    ]
    read = asked_skip(again, Family.SD1)
    assert read is not None and read.skip == ClipSkip(2)
    assert again.unused == () or tool != "SwarmUI"


def test_what_a_form_leaves_out_is_named() -> None:
    text = TEXT.replace(" <lora:ogre:0.5:1>", "") + ", Prediction: v, ENSD: 31337, Noise Schedule: Zero Terminal SNR"
    for tool in ("ComfyUI", "diffusers", "SwarmUI", "InvokeAI", "stable-diffusion.cpp"):
        said = " ".join(form(tool, text).notes)
        assert "ENSD 31337, Prediction v, Noise Schedule Zero Terminal SNR" in said, tool
        assert "left out" not in " ".join(form(tool, TEXT).notes)
        assert "refiner" in form(tool, f"{text}, Refiner: m2, Refiner switch at: 0.8").error


def test_a_vae_is_named_as_a_file_like_the_model_or_as_left_out() -> None:
    text = f"{TEXT.replace(' <lora:ogre:0.5:1>', '')}, VAE: kl-f8.safetensors"
    assert '"vae_name": "kl-f8.safetensors"' in form("ComfyUI", text).text
    assert "--vae kl-f8.safetensors" in form("stable-diffusion.cpp", text).text
    for tool in ("diffusers", "InvokeAI"):
        assert "VAE kl-f8" in " ".join(form(tool, text).notes)


def test_the_command_line_has_each_setting_once() -> None:
    text = TEXT.replace(" <lora:ogre:0.5:1>", "")
    words = shlex.split(form("stable-diffusion.cpp", text, sampler="Euler a").text)
    options = dict(zip(words[1::2], words[2::2], strict=True))
    assert options["--clip-skip"] == "2" and options["--sampling-method"] == "euler_a" and options["-W"] == "128"
    assert options["-p"] == "a gnome, badhand <lora:gnome:0.8>" and options["--lora-model-dir"] == "loras"


def test_the_diffusers_code_is_python_and_loads_each_lora_at_its_weights() -> None:
    code = form("diffusers").text
    compile(code, "draw.py", "exec")
    assert "load_lora_weights('gnome.safetensors', adapter_name='lora0')" in code
    assert "adapter_weights=[0.8, {'unet': 1, 'text_encoder': 0.5}]" in code


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # diffusers' own, of NumPy 2
def test_the_diffusers_code_runs_and_conditions_on_the_same_layer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = load_checkpoint(STARTER / "starter.safetensors", dtype=torch.float32, text_dtype=torch.float32)
    save_folder(checkpoint, tmp_path / "starter")
    monkeypatch.chdir(tmp_path)
    code = form("diffusers", TEXT.replace(" <lora:gnome:0.8> <lora:ogre:0.5:1>", "")).text.replace(
        "starter.safetensors", "starter"
    )
    space: dict[str, Any] = {}
    exec(code, space)  # the code is what is tested
    assert space["image"].size == (128, 128) and (tmp_path / "picture.png").exists()
    ours = encode_layers(open_text_encoder(STARTER / "starter.safetensors"), "a gnome, badhand", [ClipSkip(2)])
    theirs = space["encode"]("a gnome, badhand", 2)[0]
    # float32 on both sides; the order of sums differs: measured 4e-6
    assert torch.allclose(ours[ClipSkip(2)], theirs, atol=1e-4)
