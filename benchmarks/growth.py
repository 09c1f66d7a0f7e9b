"""Ours, as many cells and pixels as the worker's name says (growth-CELLS-SIZE): seconds of drawing, without loading."""

import json
import tempfile
import time
from pathlib import Path

from common import NEGATIVE, PROMPT, SEED, parse_task

from clipskip.spec import ClipSkip, Request
from clipskip.sweep import SweepFolder, draw_missing, open_model, plan_sweep
from clipskip.weights import Library


def main() -> None:
    """One step for each cell: what grows is the same for more."""
    task = parse_task()
    cells, size = (int(part) for part in task.name.split("-")[1:])
    model = open_model(str(task.checkpoint.resolve()))
    asked = Request(prompt=PROMPT, negative_prompt=NEGATIVE, steps=1, seed=SEED, width=size, height=size)
    skips = [ClipSkip(round(1 + 11 * i / max(1, cells - 1), 3)) for i in range(cells)]
    sweep, extras = plan_sweep(asked, skips, model, Library.of_user())
    with tempfile.TemporaryDirectory() as out:
        start = time.perf_counter()
        for _ in draw_missing(model, SweepFolder.create(Path(out), sweep), extras):
            pass
        print("RESULT " + json.dumps({"steps_s": [time.perf_counter() - start], "cells": cells, "size_px": size}))


if __name__ == "__main__":
    main()
