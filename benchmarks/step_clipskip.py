"""Ours, one picture: seconds per guided step and for decoding."""

import time
from itertools import pairwise
from pathlib import Path

from common import CFG, CLIP_SKIP, NEGATIVE, PROMPT, SEED, STEPS, parse_task, twice

from clipskip.encode import condition_all
from clipskip.image import decode
from clipskip.sample import Picture, kept_memory, sample
from clipskip.spec import ClipSkip, Request
from clipskip.sweep import open_model, resolve
from clipskip.weights import Library


def main() -> None:
    task = parse_task()
    model = open_model(str(task.checkpoint.resolve()))
    asked = Request(
        prompt=PROMPT, negative_prompt=NEGATIVE, sampler="Euler", steps=STEPS, cfg_scale=CFG, seed=SEED,
        clip_skip=ClipSkip(CLIP_SKIP), width=task.size_px, height=task.size_px,
    )  # fmt: skip
    render, _ = resolve(asked, model.facts, Library((Path("/nowhere"),)))
    (conditioning,) = condition_all(model.reader, [render])
    model.free_encoders()  # as model.draw does it; the peer has none
    picture = Picture(render=render, conditioning=conditioning)
    stamps = [time.perf_counter()]
    latent = None
    with kept_memory(model.device):  # as model.draw has it
        for step in sample(model.unet, [picture], prediction=model.facts.prediction):
            latent = step.latent
            stamps.append(time.perf_counter())
        assert latent is not None
        decode_s = twice(lambda: decode(model.vae, latent))
    steps = [after - before for before, after in pairwise(stamps)]
    task.finish(steps[1:], latent, decode_s=decode_s)


if __name__ == "__main__":
    main()
