"""What putting a full-size LoRA into a full-size SD 1.x model costs, and taking it out: random weights, no files kept.

python benchmarks/lora_merge.py [--dtype float32|bfloat16] [--rank 32] [--loras 1]
"""

import argparse
import tempfile
import time
from pathlib import Path

import safetensors.torch
import torch
from diffusers import UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from clipskip.weights.lora import load_lora, merged, module_names


def models(dtype: torch.dtype) -> dict[str, nn.Module]:
    """SD 1.5's text encoder and UNet, filled with random numbers."""
    text = CLIPTextConfig(
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=12,
        num_attention_heads=12,
        projection_dim=768,
    )
    with torch.device("meta"):
        made = {
            "text_encoder": CLIPTextModel(text),
            "unet": UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8),
        }
    for model in made.values():
        model.to(dtype).to_empty(device="cpu")
        for parameter in model.parameters():
            parameter.data.uniform_(-0.05, 0.05)
    return made


def write_lora(path: Path, targets: dict[str, nn.Module], rank: int) -> int:
    """A kohya LoRA on every linear layer of attention and feed-forward; how many modules it has."""
    found = 0
    tensors = {}
    for name in module_names(targets):
        part, _, local = name.partition(".")
        module = targets[part].get_submodule(local)
        words = (".attn", ".ff.", "self_attn", ".mlp.", ".proj_in", ".proj_out")
        if not isinstance(module, nn.Linear | nn.Conv2d) or not any(word in name for word in words):
            continue
        found += 1
        key = {"text_encoder": "lora_te_text_model_", "unet": "lora_unet_"}[part] + local.replace(".", "_")
        out, inputs, *kernel = module.weight.shape
        tensors[f"{key}.lora_up.weight"] = torch.randn(out, rank, *kernel).half() * 0.01
        tensors[f"{key}.lora_down.weight"] = torch.randn(rank, inputs, *kernel).half() * 0.01
        tensors[f"{key}.alpha"] = torch.tensor(rank / 2)
    safetensors.torch.save_file(tensors, path)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--loras", type=int, default=1)
    options = parser.parse_args()
    targets = models(getattr(torch, options.dtype))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lora.safetensors"
        count = write_lora(path, targets, options.rank)
        started = time.perf_counter()
        lora = load_lora(path)
        print(f"{count} modules, {path.stat().st_size / 1e6:.0f} MB; read in {time.perf_counter() - started:.2f} s")
    for _ in range(3):
        started, used = time.perf_counter(), time.process_time()
        with merged(targets, [(lora, 0.8, 0.8)] * options.loras):
            inside = time.perf_counter()
            print(
                f"{options.dtype}: merged in {inside - started:.2f} s ({time.process_time() - used:.2f} s of processor)"
            )
            leaving = time.perf_counter()
        print(f"  taken out in {time.perf_counter() - leaving:.3f} s")


if __name__ == "__main__":
    main()
