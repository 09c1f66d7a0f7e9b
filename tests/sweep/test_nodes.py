"""Ray clusters of several nodes on this machine: each node's CPUs and GPUs get their workers, and a node may be lost."""

import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from clipskip.spec import Axis, LoraRef, Request, parse_skips
from clipskip.sweep import Model, SweepFolder, draw_missing, plan_sweep, read_workers
from clipskip.weights import Library

ray = pytest.importorskip("ray")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # of Ray's own processes and sockets

from ray.cluster_utils import Cluster  # noqa: E402

from clipskip.sweep.cluster import Tally, _actors, draw_on_cluster, plan_for  # noqa: E402

ASKED = Request(prompt="a frog", steps=1, seed=3, width=64, height=64, model="tiny", loras=(LoraRef(name="ogre"),))
SEEDS = 15


@contextmanager
def nodes(*kinds: dict[str, int]) -> Iterator[list[Any]]:
    """A cluster of these nodes, whose first has the driver."""
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112  (its name in Ray)
    cluster = Cluster(initialize_head=True, head_node_args={**kinds[0], "include_dashboard": False})
    others = [cluster.add_node(**kind) for kind in kinds[1:]]
    cluster.wait_for_nodes()
    ray.init(address=cluster.address, log_to_driver=False)
    try:
        yield [cluster, *others]
    finally:
        ray.shutdown()
        cluster.shutdown()


def planned(path: Path, model: Model, library: Library) -> tuple[SweepFolder, Any]:
    sweep, extras = plan_sweep(ASKED, parse_skips("1-2"), model.facts, library, axes=[Axis.parse(f"seed=1-{SEEDS}")])
    return SweepFolder.create(path, sweep, model=model.facts), extras


def bytes_of(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.glob("row*.png")}


def test_a_node_of_three_is_lost(model: Model, library: Library, tmp_path: Path) -> None:
    alone, extras = planned(tmp_path / "alone", model, library)
    list(draw_missing(model, alone, extras))
    with nodes({"num_cpus": 1}, {"num_cpus": 1}, {"num_cpus": 1}) as (cluster, _, lost):
        folder, extras = planned(tmp_path / "ray", model, library)
        tally, times = Tally(), Counter[int]()
        plan = plan_for(model.facts, extras, allow_pickle=False)
        for event in draw_on_cluster(folder, plan, address=None, tally=tally):
            times[event.index] += 1
            if len(times) == 8:
                remove = {"allow_graceful": False}
                threading.Thread(target=cluster.remove_node, args=(lost,), kwargs=remove, daemon=True).start()
    assert not tally.failed and len(times) == 4 * SEEDS and set(times.values()) == {1}
    assert bytes_of(folder.path) == bytes_of(alone.path)
    assert len(read_workers(folder.path)) >= 2


def test_each_gpu_has_a_worker_of_its_own(model: Model, library: Library, tmp_path: Path) -> None:
    """GPUs that Ray is told of and nobody has: a worker sees its own one alone, as the first, where torch looks."""
    with nodes({"num_cpus": 4}, {"num_cpus": 4, "num_gpus": 2}, {"num_cpus": 4, "num_gpus": 1}):
        folder, extras = planned(tmp_path, model, library)
        plan = plan_for(model.facts, extras, allow_pickle=False)
        actors = _actors(ray.put(plan), None, most=100)
        ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
        ask = [actor.__ray_call__.remote(seen) for actor in actors]  # type: ignore[attr-defined]
        answers = ray.get(ask)
        assert len({node for node, *_ in answers}) == 2, "the node without GPUs has none"
        assert len({(node, visible) for node, visible, *_ in answers}) == len(answers) == 3
        assert all(visible == str(gpus[0]) and len(gpus) == 1 for _, visible, gpus, _ in answers)
        assert all(device == "cpu" for *_, device in answers), "torch has none"
        for actor in actors:
            ray.kill(actor)
        deadline = time.monotonic() + 30
        while ray.available_resources().get("GPU") != 3 and time.monotonic() < deadline:
            time.sleep(0.05)
        tally = Tally()
        list(draw_on_cluster(folder, plan, address=None, tally=tally))
        assert folder.whole and not tally.failed and 1 <= len(tally.workers) <= 3


def seen(actor: Any) -> tuple[str, str, list[str], str]:
    """Where a worker is, which GPUs its process sees and Ray gave it, and what it draws on."""
    visible = os.environ["CUDA_VISIBLE_DEVICES"]
    context = ray.get_runtime_context()
    return context.get_node_id(), visible, context.get_accelerator_ids()["GPU"], str(actor._model.device)
