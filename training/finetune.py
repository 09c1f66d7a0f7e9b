"""Fine-tunes a single file's UNet at any Clip Skip for a few hundred steps: ground truth for telling that Clip Skip.

    python training/finetune.py --model FILE --data DIR --latents DIR --out FILE --skip 3 --seed 0 --steps 300

Plain AdamW on every weight of the UNet, v-prediction, one caption in ten empty. The text encoder and the VAE stay as
they were, and the file that is written says nothing of the Clip Skip.
"""

import argparse
import json
import random
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from clip import tokenizer
from sampling import open_model
from unet import v_loss
from world import caption, scene_of

from clipskip.weights import load_checkpoint, save_single_file

VOCABULARY = Path(__file__).parents[1] / "src/clipskip/prompt/bpe_simple_vocab_16e6.txt.gz"
EMPTY = 0.1


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--latents", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--skip", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lr", type=float, default=2e-4)
    parser.add_argument("--shard", type=int, default=0, help="which training shard its pictures are from")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def main() -> None:
    """Trains and writes one file; one that exists is kept."""
    options = arguments()
    if options.out.exists():
        return
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    model = open_model(options.model, tokenizer(VOCABULARY))
    stem = f"train-{options.shard:03d}"
    latents = torch.load(options.latents / f"{stem}.latents.pt", weights_only=True)["latents"].float()
    with np.load(options.data / f"{stem}.npz") as shard:
        scenes = [scene_of(one) for one in json.loads(str(shard["scenes"]))]
    optimizer = torch.optim.AdamW(model.unet.requires_grad_(True).parameters(), lr=options.lr, weight_decay=1e-2)
    rates = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda n: min(1, (n + 1) / 20))
    rng, generator = random.Random(options.seed), torch.Generator().manual_seed(options.seed)
    began, mean = time.time(), 0.0
    for step in range(options.steps):
        chosen = [rng.randrange(len(latents)) for _ in range(options.batch)]
        texts = ["" if rng.random() < EMPTY else caption(scenes[n], rng) for n in chosen]
        loss = v_loss(model.unet, latents[chosen], model.conditioning(texts, options.skip).clone(), generator=generator)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.unet.parameters(), 1.0)
        optimizer.step()
        rates.step()
        mean += (float(loss.detach()) - mean) * max(0.03, 1 / (step + 1))
        if (step + 1) % 50 == 0:
            speed = (step + 1) * options.batch / (time.time() - began)
            print(f"skip {options.skip} step {step + 1} loss {mean:.4f} {speed:.1f}/s", flush=True)
    whole = load_checkpoint(options.model, dtype=torch.float16)
    unet = {name: value.detach().half() for name, value in model.unet.state_dict().items()}
    said = {name: value for name, value in whole.facts.metadata.items() if name != "modelspec.encoder_layer"}
    silent = replace(whole.facts, trained_clip_skip=None, metadata=said)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    save_single_file(replace(whole, unet=unet, facts=silent), options.out)


if __name__ == "__main__":
    main()
