"""Files and reports of users: each case as it was filed, run as it stands, and three more of its kind with their right values."""

import base64
import io
import json
import os
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

import clipskip
from clipskip import Request
from clipskip.doors.cli import main
from clipskip.doors.http import build_app
from clipskip.errors import UnsafeFile
from clipskip.networks import best_dtype
from clipskip.spec import LoraRef
from clipskip.sweep import Model, Studio
from clipskip.weights import FileKind, Library, read_header

CASES = Path(__file__).parents[1] / "golden" / "cases"
STARTER = Path(clipskip.__file__).parent / "starter" / "starter.safetensors"
OGRE = STARTER.parent / "loras" / "ogre.safetensors"
Tensors = dict[str, Tensor]


def filed(number: str, *words: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a case's script as it was filed, in a folder of its own."""
    script = next(CASES.glob(f"{number}_*.py"))
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", [str(script), *words])
    runpy.run_path(str(script), run_name="__main__")


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., tuple[int, str]]:
    """Run `clipskip` in this process and an empty folder: its exit code, and what it printed."""
    monkeypatch.setenv("CLIPSKIP_MODELS", "")
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["clipskip", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out + err

    return run


@pytest.fixture(scope="module")
def model() -> Model:
    return clipskip.open_model("starter")


def pixels(model: Model, *loras: Path, prompt: str = "a red frog") -> Any:
    refs = tuple(LoraRef(name=str(path)) for path in loras)
    asked = Request(prompt=prompt, seed=5, steps=1, width=64, height=64, loras=refs)
    return np.asarray(clipskip.draw_one(asked, model).pixels)


# 01: a LoRA whose modules hold only a bias


def test_case_01_a_bias_alone_is_added(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Callable[..., tuple[int, str]]
) -> None:
    filed("01", "bias.safetensors", folder=tmp_path, monkeypatch=monkeypatch)
    drawn = ("generate", "a red frog", "--steps", "1", "--seed", "5", "--size", "64x64", "--out", "out")
    code, said = command(*drawn, "--lora", "bias.safetensors")
    assert code == 0, said
    assert not np.array_equal(pixels(model, tmp_path / "bias.safetensors"), pixels(model))


UNET, TEXT = "model.diffusion_model.", "cond_stage_model.transformer.text_model."


@pytest.mark.parametrize(
    ("module", "tensor"),
    [
        ("lora_unet_down_blocks_0_attentions_0_proj_in", f"{UNET}input_blocks.1.1.proj_in.bias"),
        ("lora_unet_conv_in", f"{UNET}input_blocks.0.0.bias"),
        ("lora_te_text_model_encoder_layers_10_mlp_fc1", f"{TEXT}encoder.layers.10.mlp.fc1.bias"),
        ("diffusion_model.output_blocks.3.0.emb_layers.1", f"{UNET}output_blocks.3.0.emb_layers.1.bias"),
    ],
)
def test_a_bias_is_what_the_checkpoint_with_it_draws(module: str, tensor: str, model: Model, tmp_path: Path) -> None:
    """The same numbers added in the checkpoint's file draw the same picture."""
    tensors = load_file(STARTER)
    change = 0.1 * torch.randn(tensors[tensor].shape, generator=torch.Generator().manual_seed(3))
    save_file({f"{module}.diff_b": change}, tmp_path / "bias.safetensors")
    # What the network is kept in: the merge adds to that, and not to the file's float16
    kept = best_dtype(torch.device("cpu")) if tensor.startswith(UNET) else torch.float32
    whole = tensors[tensor].to(kept).float() + change
    save_file(tensors | {tensor: whole}, tmp_path / "changed.safetensors", metadata=dict(read_header(STARTER).metadata))
    by_lora = pixels(model, tmp_path / "bias.safetensors")
    assert np.array_equal(by_lora, pixels(clipskip.open_model(tmp_path / "changed.safetensors")))
    assert not np.array_equal(by_lora, pixels(model))


# 02: layouts that current tools write


def layouts(tensors: Tensors) -> dict[str, Tensors]:
    """The case's numbers in the names of other tools."""
    comfy_text, comfy_unet = "text_encoders.clip_l.transformer.text_model.", "diffusion_model.input_blocks.1.1."

    def named(text: Callable[[str], str], unet: Callable[[str], str], ends: dict[str, str] | None = None) -> Tensors:
        found = {}
        for key, value in tensors.items():
            module, _, end = key.partition(".lora_")
            name = (
                text(module.removeprefix(comfy_text)) if comfy_text in module else unet(module.removeprefix(comfy_unet))
            )
            found[f"{name}.lora_{end}" if ends is None else f"{name}.{ends[end]}"] = value
        return found

    flat = lambda words: words.replace(".", "_")  # noqa: E731
    peft = {"down.weight": "lora_A.weight", "up.weight": "lora_B.weight"}
    return {
        "ComfyUI": tensors,
        "kohya": named(
            lambda rest: f"lora_te_text_model_{flat(rest)}", lambda rest: f"lora_unet_down_blocks_0_attentions_0_{flat(rest)}"
        ),
        "OneTrainer": named(lambda rest: f"clip_l.text_model.{rest}", lambda rest: f"unet.input_blocks.1.1.{rest}"),
        "PEFT": named(
            lambda rest: f"text_encoder.text_model.{rest}", lambda rest: f"unet.down_blocks.0.attentions.0.{rest}", peft
        ),
    }  # fmt: skip


def test_case_02_every_layout_is_the_same_picture_and_inspected_whole(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Callable[..., tuple[int, str]]
) -> None:
    filed("02", "comfy.safetensors", folder=tmp_path, monkeypatch=monkeypatch)
    pictures = []
    for tool, tensors in layouts(load_file(tmp_path / "comfy.safetensors")).items():
        save_file(tensors, tmp_path / f"{tool}.safetensors")
        pictures.append(pixels(model, tmp_path / f"{tool}.safetensors"))
        code, said = command("inspect", f"{tool}.safetensors", "--json")
        report = json.loads(said)
        assert code == 0 and report["identity"]["family"] == "SD 1.x", tool
        assert (report["lora"]["text_layers"], report["lora"]["unknown_keys"]) == (list(range(1, 13)), 0), tool
    assert all(np.array_equal(picture, pictures[0]) for picture in pictures)
    assert not np.array_equal(pictures[0], pixels(model))


# 08: models that are linked to from the model folders


@pytest.mark.slow
def test_case_08_linked_files_and_folders_are_found(tmp_path: Path) -> None:
    """The script calls `clipskip` by its name, as a user's shell does."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "clipskip"
    program.write_text(
        f"#!/bin/sh\nexec {sys.executable} -c 'from clipskip.doors.cli import main; main()' \"$@\" --size 64x64\n"
    )
    program.chmod(0o755)
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    script = str(CASES / "08_symlinked_models.sh")
    ran = subprocess.run(
        ["sh", script, str(OGRE)], cwd=tmp_path, env=os.environ | {"PATH": path}, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count(".png") == 2


@pytest.mark.parametrize("kind", ["a link to a link", "a relative link", "a linked folder in a linked folder"])
def test_other_links_are_followed_too(kind: str, tmp_path: Path) -> None:
    store, root = tmp_path / "store", tmp_path / "root" / "models" / "Lora"
    (store / "deep").mkdir(parents=True)
    root.mkdir(parents=True)
    shutil.copy(OGRE, store / "deep" / "linked.safetensors")
    if kind == "a link to a link":
        (store / "again.safetensors").symlink_to(store / "deep" / "linked.safetensors")
        (root / "linked.safetensors").symlink_to(store / "again.safetensors")
    elif kind == "a relative link":
        (root / "linked.safetensors").symlink_to("../../../store/deep/linked.safetensors")
    else:
        (store / "inner").symlink_to(store / "deep")
        (root / "outer").symlink_to(store)
    assert Library((tmp_path / "root",)).find("linked", FileKind.LORA).resolve() == (
        store / "deep" / "linked.safetensors"
    )


# 09: LoRAs and checkpoints of SDXL


def sdxl_lora(te1: str, te2: str, unet: str) -> Tensors:
    shapes = {te1: (768, 768), te2: (1280, 1280), unet: (640, 2048)}
    ends = {"lora_down.weight": lambda out, width: (4, width), "lora_up.weight": lambda out, width: (out, 4)}
    return {
        f"{module}.{end}": torch.zeros(shape(*shapes[module]))
        for module in shapes
        if module
        for end, shape in ends.items()
    }


FIRST = "lora_te1_text_model_encoder_layers_0_self_attn_q_proj"
SECOND = "lora_te2_text_model_encoder_layers_31_self_attn_q_proj"
ATTENTION = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k"


@pytest.mark.parametrize(
    ("tensors", "metadata", "layers"),
    [
        (None, {}, "CLIP-L 1 (of 12); OpenCLIP-bigG 1 (of 32)"),
        (sdxl_lora(FIRST, SECOND, ATTENTION), {"ss_clip_skip": "2"}, "CLIP-L 1 (of 12); OpenCLIP-bigG 32 (of 32)"),
        (
            sdxl_lora(
                "text_encoder.text_model.encoder.layers.11.self_attn.q_proj", "text_encoder_2.text_model.encoder.layers.5.mlp.fc1",
                ATTENTION,
            ),
            {"ss_clip_skip": "1", "ss_base_model_version": "sd_v1"},
            "CLIP-L 12 (of 12); OpenCLIP-bigG 6 (of 32)",
        ),
        (sdxl_lora("", SECOND, ATTENTION), {"ss_clip_skip": "None"}, "CLIP-L none (of 12); OpenCLIP-bigG 32 (of 32)"),
    ],
    ids=["as filed", "trained at 2", "with another family's metadata", "of the second encoder alone"],
)  # fmt: skip
def test_case_09_sdxl_loras_are_always_trained_at_2(
    tensors: Tensors | None, metadata: dict[str, str], layers: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    command: Callable[..., tuple[int, str]],
) -> None:  # fmt: skip
    if tensors is None:
        filed("09", "xl.safetensors", folder=tmp_path, monkeypatch=monkeypatch)
    else:
        save_file(tensors, tmp_path / "xl.safetensors", metadata=metadata)
    code, said = command("inspect", "xl.safetensors")
    told = {line[:22].strip(): line[22:] for line in said.splitlines()}
    assert code == 0 and told["family"] == "SDXL" and told["text layers"] == layers
    assert told["trained at clip skip"].startswith("2 (SDXL is always trained at 2")
    assert "12 and 32 layers" in told["clip skip"] and "name nothing" not in said
    assert ("ss_clip_skip = '1' is not used" in said) is (tensors is None or metadata["ss_clip_skip"] == "1")


# 10: embeddings that are pickles


def test_case_10_a_pickled_embedding_draws_in_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filed("10", folder=tmp_path, monkeypatch=monkeypatch)


@pytest.mark.parametrize("kind", ["A1111's .pt", "diffusers' .bin", "several vectors"])
def test_other_pickled_embeddings_draw_what_their_safetensors_draw(kind: str, model: Model, tmp_path: Path) -> None:
    vectors = torch.randn(5 if kind == "several vectors" else 1, 128, generator=torch.Generator().manual_seed(2))
    for folder in ("pickled", "safe"):
        (tmp_path / folder / "embeddings").mkdir(parents=True)
    save_file({"emb_params": vectors}, tmp_path / "safe" / "embeddings" / "oldstyle.safetensors")
    pickled = tmp_path / "pickled" / "embeddings" / ("oldstyle.bin" if kind == "diffusers' .bin" else "oldstyle.pt")
    record: dict[str, Any] = {
        "string_to_token": {"*": 265},
        "string_to_param": {"*": vectors},
        "name": "another",
        "step": 9,
    }
    torch.save({"<oldstyle>": vectors} if kind == "diffusers' .bin" else record, pickled)
    asked = Request(prompt="a toad, oldstyle", seed=5, steps=1, width=64, height=64)
    drawn = [
        clipskip.draw_one(asked, model, library=Library.of_user([tmp_path / folder]), allow_pickle=allowed)
        for folder, allowed in (("pickled", True), ("safe", False))
    ]
    assert np.array_equal(drawn[0].pixels, drawn[1].pixels)
    with pytest.raises(UnsafeFile, match="allow_pickle=True"):
        clipskip.draw_one(asked, model, library=Library.of_user([tmp_path / "pickled"]))


# 12: base64 with line breaks


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    studio = Studio(tmp_path_factory.mktemp("out"), Library((STARTER.parent,)))
    yield TestClient(build_app(studio), base_url="http://127.0.0.1:7861")
    studio.close()


def test_case_12_base64_of_several_lines_is_a_picture(
    client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def answered(request: Any) -> io.BytesIO:
        path = "/" + request.full_url.split("/", 3)[3]
        answer = client.request(request.get_method(), path, content=request.data, headers=dict(request.header_items()))
        assert answer.status_code == 200, answer.text
        return io.BytesIO(answer.content)

    monkeypatch.setattr("urllib.request.urlopen", answered)
    filed("12", "http://127.0.0.1:7861", folder=tmp_path, monkeypatch=monkeypatch)
    assert '"info"' in capsys.readouterr().out


@pytest.mark.parametrize("between", ["\r\n", "\n\t", " \n "])
def test_other_line_breaks_are_legal_too(between: str, client: TestClient) -> None:
    stored = io.BytesIO()
    Image.new("RGB", (128, 128), "green").save(stored, "PNG")
    text = base64.b64encode(stored.getvalue()).decode()
    lines = between.join(text[i : i + 76] for i in range(0, len(text), 76)) + between
    answers = [client.post("/sdapi/v1/png-info", json={"image": image}).json() for image in (text, lines)]
    assert answers[0] == answers[1] and "info" in answers[0]


# 13: files that lack something


def test_case_13_an_incomplete_file_is_told_of_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Callable[..., tuple[int, str]]
) -> None:
    filed("13", str(STARTER), "odd.safetensors", folder=tmp_path, monkeypatch=monkeypatch)
    _told_once(command("generate", "a frog", "--model", "odd.safetensors"))


@pytest.mark.parametrize("lost", [f"{TEXT}encoder.layers.5.", f"{UNET}out.2.", "first_stage_model.decoder.conv_out."])
def test_what_other_incomplete_files_lack_is_told_once(
    lost: str, tmp_path: Path, command: Callable[..., tuple[int, str]]
) -> None:
    save_file(
        {key: value for key, value in load_file(STARTER).items() if not key.startswith(lost)},
        tmp_path / "odd.safetensors",
    )
    _told_once(command("generate", "a frog", "--model", "odd.safetensors"))


def _told_once(ended: tuple[int, str]) -> None:
    code, said = ended
    assert code == 2 and said.count("\n") == 1, said
    assert said.count("incomplete") == 1 and said.count("download it again") == 1 and said.count("odd.safetensors") == 1


# What is not read is named, by the command line and by the API alike; the page shows the API's list


LINE = "Steps: 1, Sampler: Euler a, CFG scale: 7, Seed: 5, Size: 64x64"
SMALL = {"prompt": "a frog", "steps": 1, "seed": 5, "width": 64, "height": 64}
NODES = {
    "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "starter"}},
    "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 4}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a frog", "clip": ["4", 1]}},
    "8": {"class_type": "FreeU_V2", "inputs": {"model": ["4", 0], "b1": 1.3}},
    "3": {
        "class_type": "KSampler",
        "inputs": {
            "seed": 7, "steps": 1, "cfg": 7, "sampler_name": "euler", "scheduler": "normal", "denoise": 0.5, "model": ["8", 0],
            "positive": ["6", 0], "negative": ["6", 0], "latent_image": ["5", 0],
        },
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("record", "named"),
    [
        (f"a frog\n{LINE}, Tiling: True, ADetailer model: face\nTemplate: a frog", ["Tiling", "ADetailer model", "Template"]),
        (json.dumps(NODES), ["EmptyLatentImage batch_size", "FreeU_V2", "KSampler denoise"]),
        (
            json.dumps(SMALL | {"sampler_name": "Euler a", "cfg_scale": 7, "n_iter": 3, "alwayson_scripts": {"x": 1}}),
            ["n_iter", "alwayson_scripts"],
        ),
        (
            json.dumps({"sui_image_params": SMALL | {"cfgscale": 7, "refinerupscale": 2, "swarm_version": "1"}}),
            ["refinerupscale", "swarm_version"],
        ),
    ],
    ids=["a text", "a graph", "an API body", "SwarmUI"],
)  # fmt: skip
def test_what_is_not_read_is_named_by_every_door(
    record: str, named: list[str], command: Callable[..., tuple[int, str]], client: TestClient, tmp_path: Path
) -> None:
    (tmp_path / "settings.txt").write_text(record, "utf-8")
    code, said = command("generate", "--settings", "settings.txt", "--model", str(STARTER), "--yes", "--out", "out")
    assert code == 0, said
    words = " ".join(said.split())
    answer = client.post("/v1/settings", json={"text": record}).json()
    assert [name for name, _ in answer["unused"]] == named
    assert all(name in words for name in named), words
    assert all(told in words for told in answer["left_out"] if not told.startswith("model"))
