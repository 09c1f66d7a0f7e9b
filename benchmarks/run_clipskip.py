"""Ours: a sweep without and with a LoRA in a process of its own; prints seconds per guided step after the first."""

import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from clipskip.spec import LoraRef, Request, parse_skips
from clipskip.sweep import Advance, SweepFolder, draw_missing, open_model, plan_sweep
from clipskip.weights import Library


def main() -> None:
    """Draws every Clip Skip without and with the LoRA, or with it alone where one more word is given."""
    checkpoint, lora, steps, skips, size_px, *only = sys.argv[1:]
    model = open_model(checkpoint)
    request = Request(
        prompt="best quality, swamp, fireflies, ogre, reeds",
        negative_prompt="lowres, blurry",
        loras=(LoraRef(name=lora),),
        steps=int(steps),
        seed=5,
        width=int(size_px),
        height=int(size_px),
    )
    sweep, extras = plan_sweep(request, parse_skips(skips), model.facts, Library.of_user())
    if only:
        sweep = replace(sweep, rows=sweep.rows[1:])
    with tempfile.TemporaryDirectory() as out:
        folder, last = SweepFolder.create(Path(out), sweep), time.perf_counter()
        for event in draw_missing(model, folder, extras):
            now = time.perf_counter()
            if isinstance(event, Advance) and event.step > 1:
                print(f"step_s={now - last:.3f}")
            last = now
        folder.finish()


if __name__ == "__main__":
    main()
