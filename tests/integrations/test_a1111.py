"""The script for A1111 and Forge on a stand-in of its documented interface: Script, AlwaysVisible, on_before_ui, AxisOption."""

import importlib.util
import io
import json
import sys
import threading
from email.message import Message
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from urllib.error import HTTPError

import pytest
import torch
from fastapi.testclient import TestClient
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel

from clipskip.doors.http import build_app
from clipskip.doors.http.ours import RefusalView
from clipskip.doors.http.ours.bodies import AdviseBody
from clipskip.encode import read_encoders
from clipskip.spec import Family, request_from_text
from clipskip.sweep import Studio
from clipskip.weights import Library

SCRIPT = Path(__file__).parents[2] / "integrations/a1111/scripts/clip_skip.py"


class AxisOption:
    """As X/Y/Z plot has it: label, type, apply, and what is asked before the plot begins."""

    def __init__(
        self, label: str, type: Any, apply: Any, format_value: Any = None, confirm: Any = None, **more: Any
    ) -> None:
        self.label, self.type, self.apply, self.confirm = label, type, apply, confirm


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    grid = SimpleNamespace(AxisOption=AxisOption, axis_options=[AxisOption("Seed", int, None)])
    plot = type("Script", (), {"__module__": "xyz_grid.py"})
    callbacks: list[Any] = []
    parts = {
        "gradio": {},
        "modules": {},
        "modules.scripts": {
            "Script": object,
            "AlwaysVisible": object(),
            "scripts_data": [SimpleNamespace(script_class=plot, module=grid)],
        },
        "modules.script_callbacks": {"on_before_ui": callbacks.append},
        "modules.shared": {
            "opts": SimpleNamespace(data={"sd_model_checkpoint": "anything-v4.0.safetensors [abc]"}),
            "sd_model": SimpleNamespace(cond_stage_model=None),
        },
    }
    for name, values in parts.items():
        module = ModuleType(name)
        module.__dict__.update(values)
        monkeypatch.setitem(sys.modules, name, module)
        if "." in name:
            setattr(sys.modules["modules"], name.partition(".")[2], module)
    spec = importlib.util.spec_from_file_location("clip_skip_script", SCRIPT)
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    for _ in range(2):
        callbacks[0]()
    loaded.grid = grid  # type: ignore[attr-defined]
    return loaded


def axis(script: Any, name: str) -> AxisOption:
    (found,) = [option for option in script.grid.axis_options if option.label == f"[Clip Skip] {name}"]
    return found


def picture(prompt: str) -> Any:
    return SimpleNamespace(prompt=prompt, override_settings={}, extra_generation_params={}, cached_c=["read", "before"])


def test_the_clip_skip_axis_sets_whole_layers_and_refuses_the_rest_before_the_plot(script: Any) -> None:
    option, p = axis(script, "Clip Skip"), picture("a frog")
    option.confirm(p, ["1", "12"])
    option.apply(p, "3", ["1", "3"])
    assert p.override_settings == {"CLIP_stop_at_last_layers": 3}
    assert p.cached_c == ["read", "before"] and not p.extra_generation_params
    for wrong, told in (
        ("13", "12 layers"),
        ("0", "12 layers"),
        ("1.5", "SD 1.x"),
        ("two", "12 layers"),
        ("12.5", "12 layers"),
    ):
        with pytest.raises(ValueError, match=told):
            option.confirm(p, ["1", wrong])


def read_as_a1111_does(encoder: CLIPTextModel, ids: Tensor, n: int) -> Tensor:
    """Its rule (modules/sd_hijack_clip.py): the n-th last state through the final norm, or the last state that has been."""
    outputs = encoder(input_ids=ids, output_hidden_states=True)
    norm = next(module for name, module in encoder.named_modules() if name.endswith("final_layer_norm"))
    return norm(outputs.hidden_states[-n]) if n > 1 else outputs.last_hidden_state


@pytest.mark.parametrize("home", ["A1111", "Forge"])
@pytest.mark.parametrize("value", ["1.5", "2.25", "11.9"])
def test_a_fraction_is_what_clipskip_reads(script: Any, home: str, value: str) -> None:
    """1e-5: both add two float32 states up, in another order."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "num_hidden_layers": 12}
    encoder = CLIPTextModel(CLIPTextConfig(**sizes, vocab_size=100, max_position_embeddings=77)).eval()
    ids = torch.randint(0, 99, (2, 77))
    whole = torch.nn.ModuleDict({"clip_l": torch.nn.ModuleDict({"transformer": encoder})})
    clip = SimpleNamespace(clip=SimpleNamespace(cond_stage_model=whole))
    own = {"cond_stage_model": whole} if home == "A1111" else {"forge_objects": clip}
    sys.modules["modules.shared"].sd_model = SimpleNamespace(**own)  # type: ignore[attr-defined]
    option, p = axis(script, "Clip Skip"), picture("a frog")
    option.confirm(p, ["1", value])
    option.apply(p, value, ["1", value])
    deeper = p.override_settings["CLIP_stop_at_last_layers"]
    assert p.extra_generation_params == {"Fractional clip skip": value} and p.cached_c == [None, None]
    run = script.ClipSkipScript()
    with torch.no_grad():
        before = read_as_a1111_does(encoder, ids, deeper)
        run.process(p)
        seen = read_as_a1111_does(encoder, ids, deeper)
        run.postprocess(p, None)
        assert torch.equal(read_as_a1111_does(encoder, ids, deeper), before)
        ours = read_encoders(encoder, family=Family.SD1).encoders[0].network
        layers, shallow = ours.layers(ids), int(float(value))
        expected = ours.final_layer_norm(torch.lerp(layers[-shallow], layers[-shallow - 1], float(value) - shallow))
    assert (seen - expected).abs().max() < 1e-5 < (seen - before).abs().max()
    text = f"a frog\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Clip skip: {deeper}, Fractional clip skip: {value}"
    assert str(request_from_text(text).clip_skip) == value


@pytest.mark.parametrize(
    ("tag", "value", "text_encoder", "unet", "both"),
    [
        ("<lora:ogre:0.8>", "0.5", "<lora:ogre:0.5:0.8>", "<lora:ogre:0.8:0.5>", "<lora:ogre:0.5:0.5>"),
        ("<lora:ogre>", "0", "<lora:ogre:0:1>", "<lora:ogre:1:0>", "<lora:ogre:0:0>"),
        ("<lora:ogre:0.8:0.2:8>", "ogre=1", "<lora:ogre:1:0.2:8>", "<lora:ogre:0.8:1:8>", "<lora:ogre:1:1:8>"),
        ("<lora:ogre:te=0.3:unet=0.9>", "0.5", "<lora:ogre:0.5:0.9>", "<lora:ogre:0.3:0.5>", "<lora:ogre:0.5:0.5>"),
    ],
)
def test_the_weight_axes_change_their_part_and_leave_the_other(
    script: Any, tag: str, value: str, text_encoder: str, unet: str, both: str
) -> None:
    axes = (("LoRA text encoder weight", text_encoder), ("LoRA UNet weight", unet), ("LoRA weight", both))
    for name, expected in axes:
        p = picture(f"swamp, {tag}, <lora:ink:0.4>") if "=" in value else picture(f"swamp, {tag}")
        axis(script, name).apply(p, value, [value])
        assert expected in p.prompt and (("<lora:ink:0.4>" in p.prompt) or "=" not in value)


def test_a_weight_without_a_lora_is_refused(script: Any) -> None:
    with pytest.raises(ValueError, match="no tag"):
        axis(script, "LoRA UNet weight").confirm(picture("a frog"), ["0.5"])
    with pytest.raises(ValueError, match="no weight"):
        axis(script, "LoRA UNet weight").confirm(picture("<lora:ogre:1>"), ["much"])


def test_the_button_asks_the_server_and_says_what_it_answers(script: Any) -> None:
    heard: list[Any] = []

    class Server(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append((self.path, json.loads(self.rfile.read(int(self.headers["content-length"])))))
            refused = len(heard) == 2
            verdict = {"verdict": {"skip": 2, "text": "trained at 2"}}
            answer = RefusalView.of("no such model", "model").model_dump() if refused else verdict
            self.send_response(422 if refused else 200)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *args: Any) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        place = f"http://127.0.0.1:{server.server_port}"
        assert script.ask("an ogre <lora:ogre:0.5:0.8>", "blurry", place) == "Clip Skip 2: trained at 2"
        assert script.ask("an ogre", "", place) == "no such model"
        server.shutdown()
    path, body = heard[0]
    assert path == "/v1/advise" and body["prompt"] == "an ogre " and body["model"] == "anything-v4.0.safetensors"
    assert body["loras"] == [{"name": "ogre", "text_encoder": 0.5, "unet": 0.8}]
    assert "start it with `clipskip serve`" in script.ask("an ogre", "", place)


def test_the_button_says_why_the_server_itself_refuses(
    script: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    studio = Studio(tmp_path, Library((tmp_path,)))
    client = TestClient(build_app(studio), base_url="http://127.0.0.1:7861")

    def over_there(request: Any, timeout: int) -> Any:
        answer = client.post("/v1/advise", content=request.data, headers={"content-type": "application/json"})
        raise HTTPError(request.full_url, answer.status_code, "", Message(), io.BytesIO(answer.content))

    monkeypatch.setattr(script.urllib.request, "urlopen", over_there)
    assert script.ask("an ogre", "").startswith("no model called 'anything-v4.0.safetensors' in the model folders")
    studio.close()


def test_what_the_button_sends_is_what_the_server_takes(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[bytes] = []

    def stop(request: Any, timeout: int) -> None:
        sent.append(request.data)
        raise OSError("stopped")

    monkeypatch.setattr(script.urllib.request, "urlopen", stop)
    script.ask("an ogre <lora:ogre:0.5>", "blurry")
    assert AdviseBody.model_validate_json(sent[0]).loras[0].name == "ogre"
