"""How long a server lets clients wait while it draws: fifty poll a sweep of the starter, and ten watch it.

`python benchmarks/clients.py` starts a server of its own in a temporary folder, prints what the slowest request took, and
ends with 1 when one took more than a second, failed, or a cell was missed.
"""

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx2

ASKED = {"prompt": "swamp, fireflies, ogre", "clip_skips": "1-5", "steps": 20, "seed": 5, "loras": [{"name": "ogre"}]}
MOST_S = 1.0
UNBOUNDED_S = 120.0
"""After which a request is given up."""


@contextmanager
def serving() -> Iterator[str]:
    """A server's address."""
    script = "from clipskip.doors.cli import main; main()"
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-u", "-c", script, "serve", "--port", "0", "--out", out]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout is not None
            found = re.search(r"http://\S+", next(line for line in server.stdout if "clipskip is at" in line))
            assert found is not None
            yield found[0]
        finally:
            server.terminate()
            server.communicate()


def poll(address: str, id: str, pause_s: float) -> tuple[list[float], int]:
    """How long each request of one client took, and how many cells it saw at the end."""
    took: list[float] = []
    with httpx2.Client(base_url=address, timeout=UNBOUNDED_S) as client:
        while True:
            for path in ("/v1/status", "/sdapi/v1/progress", f"/v1/sweeps/{id}"):
                begun = time.perf_counter()
                answer = client.get(path)
                took.append(time.perf_counter() - begun)
                answer.raise_for_status()
            sweep = answer.json()
            if sweep["state"] not in ("queued", "running"):
                return took, sweep["done"]
            time.sleep(pause_s)


def watch(address: str, id: str) -> bool:
    """Whether a watcher is told of the end."""
    with httpx2.stream("GET", f"{address}/v1/sweeps/{id}/events", timeout=UNBOUNDED_S) as stream:
        return any(line == "event: end" for line in stream.iter_lines())


def main() -> int:
    """0 where everybody was answered in time and missed nothing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--watchers", type=int, default=10)
    parser.add_argument("--pause", type=float, default=0.5, help="seconds between a client's rounds")
    given = parser.parse_args()
    with serving() as address, ThreadPoolExecutor(given.clients + given.watchers) as pool:
        begun = time.perf_counter()
        sweep = httpx2.post(f"{address}/v1/sweeps", json=ASKED, timeout=UNBOUNDED_S).raise_for_status().json()
        watching = [pool.submit(watch, address, sweep["id"]) for _ in range(given.watchers)]
        polling = [pool.submit(poll, address, sweep["id"], given.pause) for _ in range(given.clients)]
        told = [one.result() for one in polling]
        ends = [one.result() for one in watching]
        drawn_s = time.perf_counter() - begun
    took = sorted(seconds for times, _ in told for seconds in times)
    late = sum(seconds > MOST_S for seconds in took)
    missed = sum(done != sweep["total"] for _, done in told) + ends.count(False)
    print(f"{given.clients} clients, {given.watchers} watchers, {sweep['total']} cells in {drawn_s:.1f} s")
    print(
        f"{len(took)} requests: median {statistics.median(took):.3f} s, 99 % in {took[int(len(took) * 0.99)]:.3f} s, "
        f"slowest {took[-1]:.3f} s; {late} over {MOST_S:g} s; {missed} missed something"
    )
    return int(late > 0 or missed > 0)


if __name__ == "__main__":
    sys.exit(main())
