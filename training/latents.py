"""Encodes rendered scenes once: latents by the frozen VAE, conditioning by the frozen text encoder at Clip Skip 2.

    python training/latents.py --data DIR --out DIR --vae DIR/vae.pt [--only 0 1]
    python training/latents.py --data DIR --out DIR --text DIR/text_encoder --vocabulary FILE [--skip 2]

The scaling factor is measured on the first shard, written to scale.json and fixed from then on. `--vae` may also be the
folder of a finished VAE (export.py --read), which has its factor with it.
"""

import argparse
import json
import random
from pathlib import Path

import numpy as np
import torch
from clip import tokenizer
from common import autocast, save, shards
from diffusers import AutoencoderKL
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer
from vae import trained_vae
from world import caption, scene_of, with_strangers

from clipskip import heap

CAPTIONS = 4


@torch.no_grad()
def encode_texts(text: CLIPTextModel, tok: CLIPTokenizer, texts: list[str], *, skip: int) -> Tensor:
    """[n, 77, width]: the skip-th layer from the end through the final norm."""
    ids = tok(texts, padding="max_length", max_length=77, truncation=True, return_tensors="pt")["input_ids"]
    with autocast(text.device):
        states = [text(part.to(text.device), output_hidden_states=True).hidden_states[-skip] for part in ids.split(64)]
    return text.final_layer_norm(torch.cat(states).float()).cpu()


@torch.no_grad()
def encode_images(vae: AutoencoderKL, images: np.ndarray, *, batch: int = 50) -> Tensor:
    """Latents [n, 4, height / 8, width / 8], not scaled."""
    found = []
    for i in range(0, len(images), batch):
        x = torch.from_numpy(images[i : i + batch]).permute(0, 3, 1, 2).to(vae.device).float() / 127.5 - 1
        with autocast(vae.device):
            found.append(vae.encode(x).latent_dist.mode().float().cpu())
    return torch.cat(found)


def open_vae(path: Path, out: Path) -> AutoencoderKL:
    """A checkpoint's VAE, or a folder's with its scaling factor noted in `out`."""
    if path.is_file():
        return trained_vae(path)
    vae = AutoencoderKL.from_pretrained(path).float()
    (out / "scale.json").write_text(json.dumps({"scaling_factor": vae.config.scaling_factor}))
    return vae


def latents(path: Path, vae: AutoencoderKL, out: Path) -> None:
    """Writes one shard's scaled latents."""
    found = encode_images(vae, np.load(path)["images"])
    fixed = out / "scale.json"
    if not fixed.exists():
        fixed.write_text(json.dumps({"scaling_factor": round(1 / float(found.std()), 5)}))
    scale = json.loads(fixed.read_text())["scaling_factor"]
    save(out / f"{path.stem}.latents.pt", {"latents": (found * scale).half()})
    print(path.stem, len(found), "std", float(found.std()), "scale", scale, flush=True)


def texts(path: Path, text: CLIPTextModel, tok: CLIPTokenizer, *, out: Path, skip: int) -> None:
    """Writes the conditioning of one shard's captions, freshly said."""
    rng = random.Random(path.stem)
    with np.load(path) as shard:
        scenes = [scene_of(scene) for scene in json.loads(str(shard["scenes"]))]
    words = [[with_strangers(caption(scene, rng), rng) for scene in scenes] for _ in range(CAPTIONS)]
    said = [encode_texts(text, tok, part, skip=skip).half() for part in words]
    empty = encode_texts(text, tok, [""], skip=skip)[0]
    save(out / f"{path.stem}.text.pt", {"contexts": torch.stack(said, dim=1), "empty": empty})
    print(path.stem, "said", flush=True)


@heap.kept()
def main() -> None:
    """Encodes what is not there yet, shard by shard."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--vae", type=Path)
    parser.add_argument("--text", type=Path)
    parser.add_argument("--vocabulary", type=Path)
    parser.add_argument("--split", default="train")
    parser.add_argument("--only", type=int, nargs="*")
    parser.add_argument("--skip", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    found = [p for n, p in enumerate(shards(options.data, options.split)) if not options.only or n in options.only]
    if options.vae:
        vae = open_vae(options.vae, options.out).to(options.device)
        for path in found:
            if not (options.out / f"{path.stem}.latents.pt").exists():
                latents(path, vae, options.out)
    if options.text:
        text, tok = CLIPTextModel.from_pretrained(options.text).float().eval(), tokenizer(options.vocabulary)
        for path in found:
            if not (options.out / f"{path.stem}.text.pt").exists():
                texts(path, text.to(options.device), tok, out=options.out, skip=options.skip)


if __name__ == "__main__":
    main()
