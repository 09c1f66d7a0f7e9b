"""Writes the trained networks as one LDM-layout file, and such a file as a diffusers folder.

    python training/export.py --text DIR --unet DIR/unet.pt --vae DIR/vae.pt --scale DIR/scale.json --out FILE
    python training/export.py --base FILE [--unet DIR/unet.pt] [--vae DIR/vae.pt] --out FILE
    python training/export.py --read FILE --folder DIR

`--base` takes what is not given as it is from such a file. What shapes alone cannot tell (heads, groups, scaling
factor, v-prediction, trained Clip Skip) goes into the metadata.
"""

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
from transformers import CLIPTextModel
from unet import new_unet
from vae import trained_vae
from workers import weights

from clipskip.weights import load_checkpoint, save_folder, save_single_file

DESCRIPTION = {
    "modelspec.sai_model_spec": "1.0.0",
    "modelspec.title": "clipskip starter",
    "modelspec.author": "clipskip",
    "modelspec.license": "MIT; drawn after Noto Emoji (Google, Apache-2.0)",
    "modelspec.encoder_layer": "2",
    "modelspec.prediction_type": "v",
    "modelspec.resolution": "128x128",
    "modelspec.description": "A small Stable Diffusion of composed scenes, trained at Clip Skip 2; see docs/starter.md",
}


def write_parts(folder: Path, text: CLIPTextModel, unet: UNet2DConditionModel, *, vae: AutoencoderKL) -> None:
    """The networks as a folder in diffusers' layout."""
    text.save_pretrained(folder / "text_encoder")
    unet.save_pretrained(folder / "unet")
    vae.save_pretrained(folder / "vae")
    scheduler = PNDMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type="v_prediction",
        skip_prk_steps=True, steps_offset=1,
    )  # fmt: skip
    scheduler.save_pretrained(folder / "scheduler")
    index = {
        "_class_name": "StableDiffusionPipeline",
        "text_encoder": ["transformers", "CLIPTextModel"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "scheduler": ["diffusers", "PNDMScheduler"],
    }
    (folder / "model_index.json").write_text(json.dumps(index))


def main() -> None:
    """Writes the file, or reads one back into a folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path)
    parser.add_argument("--text", type=Path)
    parser.add_argument("--unet", type=Path)
    parser.add_argument("--vae", type=Path)
    parser.add_argument("--scale", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--read", type=Path)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    if options.read:
        save_folder(load_checkpoint(options.read, dtype=torch.float16), options.folder)
        return
    said = {**DESCRIPTION, "modelspec.date": time.strftime("%Y-%m-%d")}
    unet = weights(options.unet, new_unet()) if options.unet else None
    vae = trained_vae(options.vae) if options.vae else None
    if options.base:
        halves = {
            part: {name: value.half() for name, value in network.state_dict().items()}
            for part, network in (("unet", unet), ("vae", vae))
            if network
        }
        save_single_file(replace(load_checkpoint(options.base, dtype=torch.float16), **halves), options.out, said)
        return
    vae.register_to_config(scaling_factor=json.loads(options.scale.read_text())["scaling_factor"])
    with tempfile.TemporaryDirectory() as temporary:
        write_parts(Path(temporary), CLIPTextModel.from_pretrained(options.text), unet, vae=vae)
        whole = load_checkpoint(temporary, dtype=torch.float16)
        save_single_file(whole, options.out, said)
    print(options.out, f"{options.out.stat().st_size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
