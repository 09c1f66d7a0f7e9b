"""LoRAs for SDXL and SD 2.x from the command line: drawn as written out by hand, refused on another family."""

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import tiny_sdxl
import torch
from fastapi.testclient import TestClient
from PIL import Image
from safetensors.torch import save_file
from tiny_sd1 import single_file, tiny_checkpoint
from torch import Tensor

from clipskip.doors.cli import main
from clipskip.doors.http import build_app
from clipskip.sweep import Studio
from clipskip.weights import Library

DRAW = ("--steps", "2", "--size", "64x64", "--seed", "1")
XL = {
    "lora_te1_text_model_encoder_layers_3_self_attn_q_proj": "text_encoder.encoder.layers.3.self_attn.q_proj",
    "lora_te2_text_model_encoder_layers_30_mlp_fc1": "text_encoder_2.encoder.layers.30.mlp.fc1",
    "lora_te2_text_projection": "text_encoder_2.text_projection",
    "lora_unet_input_blocks_4_1_transformer_blocks_1_attn2_to_k": (
        "unet.down_blocks.1.attentions.0.transformer_blocks.1.attn2.to_k"
    ),
    "lora_unet_middle_block_1_proj_in": "unet.mid_block.attentions.0.proj_in",
    "lora_unet_down_blocks_1_resnets_0_conv1": "unet.down_blocks.1.resnets.0.conv1",
    "lora_unet_label_emb_0_0": "unet.add_embedding.linear_1",
}
"""kohya's names with LDM's blocks and with diffusers', and the modules that they mean."""
SD2 = {
    "lora_te_text_model_encoder_layers_20_mlp_fc2": "text_encoder.encoder.layers.20.mlp.fc2",
    "lora_unet_down_blocks_0_attentions_0_proj_in": "unet.down_blocks.0.attentions.0.proj_in",
    "lora_unet_output_blocks_2_1_transformer_blocks_0_attn2_to_v": (
        "unet.up_blocks.1.attentions.0.transformer_blocks.0.attn2.to_v"
    ),
}
"""LDM's number of a block in this UNet, which has one layer less at each level than SD 2.x."""


def lora(parts: tiny_sdxl.Parts, names: Mapping[str, str]) -> dict[str, Tensor]:
    """A kohya file for these modules, ranks and alphas from module to module: eighths and powers of two, so that sums of
    their products are exact in any order."""
    numbers, tensors = torch.Generator().manual_seed(1), {}

    def eighths(*size: int) -> Tensor:
        return torch.randint(-2, 3, size, generator=numbers) / 8

    for at, (spelling, module) in enumerate(names.items()):
        out, inputs, *kernel = weight(parts, module).shape
        rank = 2 ** (1 + at % 3)
        tensors[f"{spelling}.lora_up.weight"] = eighths(out, rank, *[1] * len(kernel))
        tensors[f"{spelling}.lora_down.weight"] = eighths(rank, inputs, *kernel)
        tensors[f"{spelling}.alpha"] = torch.tensor(2.0 ** (2 - at % 2))
    return tensors


def of_few_bits(parts: tiny_sdxl.Parts) -> tiny_sdxl.Parts:
    """The same in numbers that bfloat16 has, so that what draws in it does not round them before the LoRA is added."""
    states = {part: {n: t.bfloat16().float() for n, t in state.items()} for part, state in parts.states.items()}
    return tiny_sdxl.Parts(states=states, shapes=parts.shapes)


def weight(parts: tiny_sdxl.Parts, module: str) -> Tensor:
    part, _, local = module.partition(".")
    return parts.states[part][f"{local}.weight"]


def added(
    parts: tiny_sdxl.Parts, names: Mapping[str, str], tensors: Mapping[str, Tensor], *, text: float, unet: float
) -> tiny_sdxl.Parts:
    """The checkpoint with the LoRA in it: strength * alpha / rank * up @ down, in float64."""
    states = {part: dict(state) for part, state in parts.states.items()}
    for spelling, module in names.items():
        part, _, local = module.partition(".")
        up, down = (tensors[f"{spelling}.lora_{end}.weight"].double() for end in ("up", "down"))
        scale = float(tensors[f"{spelling}.alpha"]) / len(down) * (unet if part == "unet" else text)
        old = states[part][f"{local}.weight"]
        change = scale * (up.flatten(1) @ down.flatten(1)).reshape(old.shape)
        states[part][f"{local}.weight"] = (old.double() + change).float()
    return tiny_sdxl.Parts(states=states, shapes=parts.shapes)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("families")
    for name, parts, names in (("pony", tiny_sdxl.sdxl(), XL), ("sd21", tiny_sdxl.sd2(), SD2)):
        parts, tensors = of_few_bits(parts), lora(parts, names)
        tiny_sdxl.write(parts, folder / f"{name}.safetensors")
        tiny_sdxl.write(added(parts, names, tensors, text=0.5, unet=0.75), folder / f"{name}-merged.safetensors")
        save_file(tensors, folder / f"{name}-frog.safetensors", metadata={"ss_clip_skip": "1"})
    tensors, told = single_file(tiny_checkpoint())
    save_file(tensors, folder / "plain.safetensors", metadata=told)
    block = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    for name, width in (("for1", 768), ("for2", 1024)):
        parts = {"lora_down.weight": torch.ones(4, width), "lora_up.weight": torch.ones(320, 4)}
        save_file({f"{block}.{end}": tensor for end, tensor in parts.items()}, folder / f"{name}.safetensors")
    save_file(
        {f"{block}.{end}": torch.ones(4, 4) for end in ("lora_up.weight", "lora_down.weight")},
        folder / "odd.safetensors",
    )
    return folder


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], models: Path, tmp_path: Path) -> Run:
    """Runs the command in an empty folder; gives exit code, output and errors."""
    monkeypatch.setenv("CLIPSKIP_MODELS", str(models))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["clipskip", *words])
        with pytest.raises(SystemExit) as stopped:
            main()
        out, err = capsys.readouterr()
        return int(stopped.value.code or 0), out, err

    return call


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path)).astype(int)


@pytest.mark.parametrize("model", ["pony", "sd21"])
def test_a_sweep_draws_a_lora_as_the_checkpoint_that_has_it_written_in(run: Run, model: str) -> None:
    with_lora = ("--model", model, "--lora", f"{model}-frog:0.5:0.75", "--clip-skip", "1,2", "--out", "o")
    code, _, err = run("sweep", "a red frog", *with_lora, *DRAW)
    assert code == 0, err
    assert run("sweep", "a red frog", "--model", f"{model}-merged", "--clip-skip", "1,2", "--out", "m", *DRAW)[0] == 0
    assert run("sweep", "a red frog", "--model", model, "--clip-skip", "1,2", "--out", "p", *DRAW)[0] == 0
    written, plain = sorted(Path("m").glob("row*.png")), sorted(Path("p").glob("row*.png"))
    rows = sorted(Path("o").glob("row*.png"))
    assert len(rows) == 4 and len(written) == 2
    for ours, same in zip(rows, [*plain, *written], strict=True):
        assert np.array_equal(pixels(ours), pixels(same)), (ours, same)
    assert np.abs(pixels(rows[0]) - pixels(rows[2])).max() > 5


@pytest.mark.parametrize(
    ("model", "lora", "families"),
    [
        ("pony", "for1", ("SD 1.x", "SDXL")),
        ("pony", "for2", ("SD 2.x", "SDXL")),
        ("pony", "odd", ("SD 1.x or SD 2.x", "SDXL")),
        ("sd21", "pony-frog", ("SDXL", "SD 2.x")),
        ("sd21", "for1", ("SD 1.x", "SD 2.x")),
        ("plain", "pony-frog", ("SDXL", "SD 1.x")),
        ("plain", "for2", ("SD 2.x", "SD 1.x")),
    ],
)
@pytest.mark.parametrize("command", ["generate", "sweep"])
def test_a_lora_of_another_family_is_refused_with_both_families(
    run: Run, command: str, model: str, lora: str, families: tuple[str, str]
) -> None:
    code, _, err = run(command, f"a frog <lora:{lora}:1>", "--model", model, "--out", "o", *DRAW)
    assert code == 2 and err.count("\n") == 1
    assert f"a LoRA for {families[0]}, and this model is {families[1]}" in err
    assert not list(Path().rglob("*.png"))


def test_inspect_reads_it_by_its_family(run: Run, models: Path) -> None:
    code, out, _ = run("inspect", str(models / "pony-frog.safetensors"))
    assert code == 0 and "SDXL is always trained at 2; ss_clip_skip = '1' is not used" in out
    assert "CLIP-L 4 (of 12); OpenCLIP-bigG 31, text_projection (of 32)" in out


@pytest.fixture(scope="module")
def client(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    studio = Studio(tmp_path_factory.mktemp("out"), Library.of_user([models]))
    yield TestClient(build_app(studio), base_url="http://127.0.0.1:7861")
    studio.close()


ASKED = {"steps": 1, "width": 64, "height": 64, "seed": 1}


def a1111(client: TestClient, **changes: object) -> dict[str, object]:
    options = {"sd_model_checkpoint": "pony", **changes.pop("options", {})}  # type: ignore[dict-item]  # a dict of options
    body = {"prompt": "a frog", "sampler_name": "Euler", "override_settings": options, **ASKED, **changes}
    answer: dict[str, object] = client.post("/sdapi/v1/txt2img", json=body).json()
    return answer


def test_the_apis_refuse_a_lora_of_another_family_before_drawing(client: TestClient) -> None:
    told = "for1.safetensors is a LoRA for SD 1.x, and this model is SDXL"
    assert told in str(a1111(client, prompt="a frog <lora:for1:1>"))
    body = {"model": "pony", "prompt": "a frog", "loras": [{"name": "for1"}], "clip_skips": [1, 2], **ASKED}
    refused = client.post("/v1/sweeps", json=body)
    assert refused.status_code == 422
    assert told in str(refused.json())


def test_the_api_draws_an_sdxl_lora_named_in_the_prompt(client: TestClient) -> None:
    drawn = [a1111(client, prompt=prompt)["images"] for prompt in ("a frog", "a frog <lora:pony-frog:1>", "a frog")]
    assert drawn[0] == drawn[2] != drawn[1]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, "Clip skip: 2,"),
        ({"CLIP_stop_at_last_layers": 1}, "Clip skip: 2,"),
        ({"CLIP_stop_at_last_layers": 3, "sdxl_clip_l_skip": True}, "Clip skip: 3, Clip skip per encoder: 3/2,"),
    ],
)
def test_a1111s_clip_skip_is_sdxls_own_unless_its_option_is_on(
    client: TestClient, options: dict[str, object], text: str
) -> None:
    """A1111's option is 1 by default, which would be the last layer, without a norm."""
    assert text in json.loads(str(a1111(client, options=options)["info"]))["infotexts"][0]
