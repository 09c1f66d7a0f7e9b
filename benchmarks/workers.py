"""What Ray costs for each cell, and how throughput grows with workers: the embedded model at 128 x 128 and one step, the
smallest picture, at which the cost is the largest share.

    python benchmarks/workers.py [cells] [rounds]

Each row is the median of its rounds, without opening models. Processor seconds are those of the process that begins the
sweep, with Ray's own share of it; they hardly depend on what else runs.
"""

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import ray

from clipskip.spec import Axis, Request, parse_skips
from clipskip.sweep import SweepFolder, draw_missing, open_model, plan_sweep
from clipskip.sweep.cluster import Tally, draw_on_cluster, plan_for

CELLS, ROUNDS = 240, 3


def main() -> None:
    cells, rounds = (int(text) for text in (*sys.argv[1:], CELLS, ROUNDS)[:2])
    model = open_model()
    asked = Request(prompt="swamp, gnome", steps=1, width=128, height=128, seed=1)
    axes = [Axis.parse(f"seed=1-{cells // 5}")]
    sweep, extras = plan_sweep(asked, parse_skips("1-5"), model.facts, axes=axes)
    plan = plan_for(model.facts, extras, allow_pickle=False)
    ray.init(address="local", num_cpus=3, include_dashboard=False, log_to_driver=False, logging_level="error")
    print(f"{cells} cells, {rounds} rounds, load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print(
        "| workers | cells a second | seconds a cell | a worker's seconds a cell | the first process' processor seconds a cell |"
    )
    print("|---|---|---|---|---|")
    for workers in (0, 1, 2, 3):
        rows = []
        for _ in range(rounds):
            with tempfile.TemporaryDirectory() as place:
                folder, tally = SweepFolder.create(Path(place), sweep, model=model.facts), Tally()
                if workers:
                    events = draw_on_cluster(folder, plan, address=None, workers=workers, tally=tally)
                else:
                    events = draw_missing(model, folder, extras)
                next(events)  # models are open now
                started, own = time.perf_counter(), time.process_time()
                count = sum(hasattr(event, "path") for event in events)
                took, own = time.perf_counter() - started, time.process_time() - own
                drawing = sum(worker.seconds / worker.pictures for worker in tally.workers.values()) / (workers or 1)
                rows.append((count / took, took / count, drawing, own / count))
        speed, each, drawing, own = map(statistics.median, zip(*rows, strict=True))
        name = workers or "none: one process"
        print(f"| {name} | {speed:.1f} | {each:.4f} | {drawing:.4f} | {own:.4f} |", flush=True)


if __name__ == "__main__":
    main()
