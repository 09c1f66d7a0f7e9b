"""What putting a full-size LoRA into a full-size model costs, and taking it out: random weights, no files kept.

python benchmarks/lora_merge.py [--dtype float32|bfloat16] [--rank 32] [--loras 1]     SD 1.x, its old weights kept
python benchmarks/lora_merge.py --sdxl [--rank 32]     SDXL's UNet in bfloat16 (5.1 GB), read again from its file
"""

import argparse
import tempfile
import time
from functools import partial
from pathlib import Path

import safetensors.torch
import torch
from diffusers import UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from clipskip.networks import UNetShape, build_unet, tensors_of
from clipskip.spec import Family
from clipskip.weights import SourceFile, read_again, read_header
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


SDXL = UNetShape(
    block_out_channels=(320, 640, 1280),
    layers_per_block=2,
    cross_attention_dim=2048,
    attention=(0, 2, 10),
    middle_attention=10,
    attention_heads=(5, 10, 20),
    use_linear_projection=True,
    added_width=2816,
    sample_size=128,
)


def resident() -> float:
    """Gigabytes of this process that are in memory and not a file's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) * 1024 / 1e9


def sdxl(folder: Path, rank: int) -> None:
    """SDXL's UNet with a LoRA, its weights changed where they lie and read again."""
    path = folder / "unet.safetensors"
    state = {
        name: torch.empty(size, dtype=torch.bfloat16).uniform_(-0.05, 0.05) for name, size in tensors_of(SDXL).items()
    }
    safetensors.torch.save_file(state, path)
    header = read_header(path)
    source = SourceFile(name="unet", path=path, sha256="", stamps=header.stamps)
    modules: dict[str, nn.Module] = {"unet": build_unet(state, SDXL, dtype=torch.bfloat16, device="cpu")}
    count = write_lora(folder / "lora.safetensors", modules, rank)
    lora = load_lora(folder / "lora.safetensors", family=Family.SDXL)
    probe = modules["unet"].get_submodule("mid_block.attentions.0.transformer_blocks.9.ff.net.2").weight
    assert isinstance(probe, torch.Tensor)
    before, base = probe.clone(), resident()
    changed = sum(modules["unet"].get_submodule(name.partition(".")[2]).weight.nbytes for name in lora.modules)
    print(f"{count} modules, whose old weights are {changed / 1e9:.2f} GB; {base:.2f} GB in memory")
    for _ in range(2):
        started = time.perf_counter()
        again = partial(read_again, source, dtypes={"unet": torch.bfloat16})
        with merged(modules, [(lora, 0.8, 0.8)], originals=again):
            print(f"merged in {time.perf_counter() - started:.2f} s; {resident() - base:+.2f} GB")
            assert not torch.equal(probe, before)
            leaving = time.perf_counter()
        print(f"  read again in {time.perf_counter() - leaving:.2f} s; {resident() - base:+.2f} GB")
        assert torch.equal(probe, before)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--loras", type=int, default=1)
    parser.add_argument("--sdxl", action="store_true")
    options = parser.parse_args()
    if options.sdxl:
        with tempfile.TemporaryDirectory() as folder:
            sdxl(Path(folder), options.rank)
        return
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
