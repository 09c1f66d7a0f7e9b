"""Checkpoints of SDXL's and SD 2.x's kin that do not draw from text: each refused by its name, at a file and at a folder."""

import json
import re
from pathlib import Path

import pytest
import tiny_sdxl
import torch
from safetensors.torch import save_file
from torch import Tensor

from clipskip.errors import WrongKind
from clipskip.spec import Family
from clipskip.weights import identify, read_facts, read_header

UNCLIP_TENSORS = {
    "embedder.model.visual.proj": torch.zeros(64, 48),
    "noise_augmentor.data_mean": torch.zeros(1, 48),
    "model.diffusion_model.label_emb.0.0.weight": torch.zeros(128, 96),
    "model.diffusion_model.label_emb.0.0.bias": torch.zeros(128),
    "model.diffusion_model.label_emb.0.2.weight": torch.zeros(128, 128),
    "model.diffusion_model.label_emb.0.2.bias": torch.zeros(128),
}
"""Of SD 2.1 unCLIP, whose embedded vector looks like SDXL's."""


def write(path: Path, state: dict[str, Tensor], parts: tiny_sdxl.Parts) -> Path:
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, path, metadata=tiny_sdxl.metadata(parts))
    return path


def test_an_unclip_checkpoint_is_sd2s_and_refused_by_its_name(tmp_path: Path) -> None:
    path = write(
        tmp_path / "unclip.safetensors", tiny_sdxl.single_file(tiny_sdxl.sd2()) | UNCLIP_TENSORS, tiny_sdxl.sd2()
    )
    found = identify(read_header(path))
    assert (found.family, found.variant) == (Family.SD2, "unCLIP")
    with pytest.raises(WrongKind, match=r"is an unCLIP checkpoint of SD 2\.1, which draws variations of a picture"):
        read_facts(path)


@pytest.mark.parametrize(
    "lost",
    [
        r"middle_block\.[12]\.|output_blocks\.[12]\.1\.transformer_blocks\.[12]\.",  # SSD-1B: the way up is thinner
        r"output_blocks\.[345]\.1\.transformer_blocks\.1\.",
        r"middle_block\.",  # KOALA
    ],
)
def test_a_distilled_sdxl_is_not_called_a_broken_download(tmp_path: Path, lost: str) -> None:
    whole = tiny_sdxl.single_file(tiny_sdxl.sdxl())
    state = {name: tensor for name, tensor in whole.items() if not re.search(lost, name)}
    assert len(state) < len(whole)
    path = write(tmp_path / "ssd.safetensors", state, tiny_sdxl.sdxl())
    with pytest.raises(
        WrongKind, match=r"has fewer UNet blocks than SDXL: it is distilled \(SSD-1B, Segmind Vega, KOALA"
    ):
        read_facts(path)


@pytest.mark.parametrize(
    ("pipeline", "scheduler", "vae", "words"),
    [
        (
            "StableDiffusionXLPipeline",
            "EDMDPMSolverMultistepScheduler",
            {"latents_mean": [0.0] * 4},
            "is Playground v2.5",
        ),
        ("StableDiffusionXLPipeline", "EDMEulerScheduler", {}, "is a CosXL checkpoint"),
        ("StableUnCLIPImg2ImgPipeline", "DDIMScheduler", {}, "is an unCLIP checkpoint"),
    ],
)
def test_a_folder_is_told_by_its_pipeline_and_scheduler(
    tmp_path: Path, pipeline: str, scheduler: str, vae: dict[str, object], words: str
) -> None:
    parts = tiny_sdxl.sdxl()
    index: dict[str, object] = {"_class_name": pipeline, "scheduler": ["diffusers", scheduler]}
    for part, state in parts.states.items():
        (tmp_path / part).mkdir()
        text = part.startswith("text")
        index[part] = ["transformers", "CLIPTextModel"] if text else ["diffusers", "AutoencoderKL"]
        named = {f"text_model.{n}" if text and "projection" not in n else n: t for n, t in state.items()}
        save_file(named, tmp_path / part / ("model.safetensors" if text else "diffusion_pytorch_model.safetensors"))
        config = parts.shapes[part].config() | (vae if part == "vae" else {})
        (tmp_path / part / "config.json").write_text(json.dumps(config))
    (tmp_path / "scheduler").mkdir()
    (tmp_path / "scheduler" / "scheduler_config.json").write_text(json.dumps({"_class_name": scheduler}))
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(WrongKind, match=words):
        read_facts(tmp_path)


def test_a_unet_of_ema_weights_alone_is_named(tmp_path: Path) -> None:
    state = {
        re.sub(
            r"^model\.diffusion_model\.(.*)", lambda m: "model_ema.diffusion_model" + m[1].replace(".", ""), name
        ): tensor
        for name, tensor in tiny_sdxl.single_file(tiny_sdxl.sdxl()).items()
    }
    with pytest.raises(WrongKind, match="EMA weights alone"):
        read_facts(write(tmp_path / "ema.safetensors", state, tiny_sdxl.sdxl()))
