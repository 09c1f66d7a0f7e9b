"""Ours beside its peers on the same full-size random weights, texts, noise and steps; results, table and plot.

    python benchmarks/bench.py --folder build/bench [--family sdxl] [--minutes 25] [--rounds 3] [--only step] [--fresh]

Every run is a process of its own and leaves a JSON file, so that a stopped benchmark goes on where it was; runs that
would pass the time budget are left out and named. The peers take turns within a round. Then benchmarks/results.json,
the table in benchmarks/README.md and benchmarks/growth.svg are written from what is there (--report: only that).
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from fullsize import build_checkpoint, build_lora
from fullsize_sdxl import build_sdxl
from report import REFERENCE, write_report

from clipskip.networks import best_dtype
from clipskip.sample import free_bytes

HERE = Path(__file__).parent
PYTHON = sys.executable
GUESSES = {"step": 60, "sweep": 120, "growth": 40, "starter": 30, "prepare": 400, "sdxl-step": 150, "sdxl-sweep": 400}
"""Seconds that a kind of run is taken to need before one of them has been seen."""
SDXL_PX, SDXL_FLOAT32_GB = 1024, 18
LONGEST = 2700
HALF = best_dtype(torch.device("cpu")) == torch.bfloat16
"""Whether this processor multiplies bfloat16; on others no program is measured in it."""
FASTEST = "bfloat16" if HALF else "float32"


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run of one program."""

    kind: str
    name: str
    command: list[str]
    turn: int = 0
    path: Path | None = None
    """A folder of packages that only this program imports."""
    needs_gb: float = 0
    """Memory without which it is left out."""


@dataclass(kw_only=True)
class Bench:
    """What is measured so far, and until when to go on."""

    folder: Path
    until: float
    left_out: list[str] = field(default_factory=list)

    def file(self, job: Job) -> Path:
        return self.folder / "results" / f"{job.kind}-{job.name}-{job.turn}.json"

    def expected(self, job: Job) -> float:
        seen = [json.loads(p.read_text())["whole_s"] for p in self.folder.glob(f"results/{job.kind}-{job.name}-*.json")]
        return max(seen, default=GUESSES[job.kind])

    def run(self, job: Job) -> None:
        """Runs it unless its result is there or the time would not do; prints how it went."""
        label, file = f"{job.kind} {job.name} {job.turn}", self.file(job)
        if file.exists():
            return
        free_gb = free_bytes(torch.device("cpu")) / 1e9
        if free_gb < job.needs_gb:
            self.left_out.append(label)
            print(f"{label}: left out, it needs {job.needs_gb:.0f} GB of memory and {free_gb:.0f} are free", flush=True)
            return
        left = self.until - time.time()
        if left < self.expected(job):
            self.left_out.append(label)
            print(f"{label}: left out, {left:.0f} s of the budget left", flush=True)
            return
        result = measure(job)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.with_suffix(".failed").unlink(missing_ok=True)
        if "failed" in result:
            file.with_suffix(".failed").write_text(str(result["failed"]))
        else:
            file.write_text(json.dumps({"kind": job.kind, "name": job.name, "turn": job.turn, **result}))
        print(f"{label}: {json.dumps(result)} ({self.until - time.time():.0f} s left)", flush=True)


def measure(job: Job) -> dict[str, object]:
    """Seconds and peak memory of a process, and what it tells in a line that starts with RESULT."""
    env = dict(os.environ, HF_HUB_OFFLINE="1")
    if job.path is not None:
        env["PYTHONPATH"] = str(job.path)
    start, load = time.perf_counter(), os.getloadavg()[0]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(job.command, stdout=log, stderr=subprocess.STDOUT, env=env)
        while (done := os.wait4(process.pid, os.WNOHANG))[0] == 0:
            if time.perf_counter() - start > LONGEST:
                process.kill()
            time.sleep(0.05)
        process.returncode = os.waitstatus_to_exitcode(done[1])
        whole_s = time.perf_counter() - start
        log.seek(0)
        text = log.read()
    if process.returncode:
        return {"failed": text.strip()[-600:] or f"exit {process.returncode}", "whole_s": round(whole_s, 1)}
    told = [json.loads(line[7:]) for line in text.splitlines() if line.startswith("RESULT ")]
    steps = [float(number) for number in re.findall(r"step_s=([\d.]+)", text)]
    facts = {"whole_s": round(whole_s, 3), "peak_gb": done[2].ru_maxrss / 1e6, "load_before": round(load, 2)}
    return facts | ({"steps_s": steps} if steps else {}) | (told[-1] if told else {})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="for weights, peers and results; 10 GB")
    parser.add_argument("--minutes", type=float, default=25, help="time for the measuring, preparation included")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=("step", "sweep", "growth", "starter"), help="one kind of measurement")
    parser.add_argument("--family", choices=("sd1", "sdxl"), default="sd1")
    parser.add_argument("--size", type=int, default=SDXL_PX, help="pixels a side on SDXL")
    parser.add_argument("--starter", action="store_true", help="the embedded starter as the model: to try this out")
    parser.add_argument(
        "--sdcpp", action="store_true", help="build stable-diffusion.cpp too: ten minutes, a C++ compiler"
    )
    parser.add_argument("--fresh", action="store_true", help="forget the results that are there")
    parser.add_argument("--report", action="store_true", help="only write the report")
    parser.add_argument("--out", type=Path, default=HERE, help="where table, plot and results.json go")
    asked = parser.parse_args()
    folder = asked.folder.resolve()
    if asked.fresh:
        shutil.rmtree(folder / "results", ignore_errors=True)
    if not asked.report:
        bench = Bench(folder=folder, until=time.time() + 60 * asked.minutes)
        if asked.family == "sdxl":
            jobs = plan_sdxl(folder / "sdxl", asked.rounds, asked.size)
        else:
            jobs = [*prepare(folder, asked.starter, asked.sdcpp), *plan(folder, asked.rounds, asked.starter)]
        for job in jobs:
            if job.kind == "prepare" or asked.only in (None, job.kind.removeprefix("sdxl-")):
                bench.run(job)
        print("left out:", ", ".join(bench.left_out) or "nothing", flush=True)
    write_report(folder, asked.out)


def model_files(folder: Path, starter: bool) -> tuple[Path, Path, int]:
    """Checkpoint, LoRA, pixels a side."""
    if starter:
        home = HERE.parent / "src" / "clipskip" / "starter"
        return home / "starter.safetensors", home / "loras" / "gnome.safetensors", 128
    return folder / "random-sd15.safetensors", folder / "random-lora.safetensors", 512


def prepare(folder: Path, starter: bool, sdcpp: bool) -> list[Job]:
    """Weights, inputs and peers: made once."""
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint, lora, size = model_files(folder, starter)
    if not starter:
        build_lora(lora, build_checkpoint(checkpoint))
    jobs = [Job(kind="prepare", name="inputs", command=worker("prepare.py", checkpoint, folder, size, "inputs"))]
    for name, requirements in (("peers", "peers.txt"), ("sdcpp", "peers-sdcpp.txt")):
        if sdcpp or name != "sdcpp":
            jobs += install(folder / name, requirements)
    convert = worker("step_openvino.py", checkpoint, folder, size, "openvino-convert")
    jobs.append(Job(kind="prepare", name="openvino-convert", command=convert, path=folder / "peers"))
    return jobs


def install(folder: Path, requirements: str) -> list[Job]:
    """What puts a peer's packages into a folder of their own, unless they are there."""
    command = [PYTHON, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder)]
    command += ["-r", str(HERE / requirements)]
    return [] if folder.exists() else [Job(kind="prepare", name=folder.name, command=command)]


def programs(peers: Path) -> dict[str, tuple[str, Path | None]]:
    """The scripts that draw the same picture, by the program's name, each with the folder of packages that it needs; the
    reference comes last."""
    return {
        "clipskip": ("step_clipskip.py", None),
        "floor": ("floor.py", None),
        **({"diffusers-bfloat16": ("step_diffusers.py", None)} if HALF else {}),
        f"openvino-{FASTEST}": ("step_openvino.py", peers),
        REFERENCE: ("step_diffusers.py", None),
    }


def plan(folder: Path, rounds: int, starter: bool) -> list[Job]:
    """All that is measured, the most important first, the peers taking turns."""
    checkpoint, lora, size = model_files(folder, starter)
    steps = [
        Job(kind="step", name=name, turn=turn, path=path, command=worker(script, checkpoint, folder, size, name))
        for turn in range(rounds)
        for name, (script, path) in programs(folder / "peers").items()
    ]
    common = [str(checkpoint), str(lora), "2", "1-5", str(size)]
    sweeps = [
        Job(kind="sweep", name="clipskip", command=[PYTHON, str(HERE / "run_clipskip.py"), *common]),
        Job(
            kind="sweep", name="diffusers-float32", command=[PYTHON, str(HERE / "run_diffusers.py"), *common, "float32"]
        ),
    ]
    growth = [(1, size // 2), (1, 3 * size // 4), (1, size), (2, size), (5, size), (12, size), (1, 3 * size // 2)]
    growing = [
        Job(kind="growth", name=name, command=worker("growth.py", checkpoint, folder, size, name))
        for name in (f"growth-{cells}-{px}" for cells, px in [*growth, (1, 2 * size), (24, size)])
    ]
    sdcpp = worker("step_sdcpp.py", checkpoint, folder, size, "sdcpp")
    built = (folder / "sdcpp" / "stable_diffusion_cpp").exists()
    once = [Job(kind="step", name="sdcpp", command=sdcpp, path=folder / "sdcpp")] if built else []
    opening = [
        Job(kind="starter", name=name, turn=turn, command=worker("opening.py", checkpoint, folder, size, name))
        for turn in range(rounds)
        for name in ("open-read", "open-clipskip", "open-diffusers")
    ]
    return steps + starting(rounds) + opening + sweeps + growing + once


def plan_sdxl(folder: Path, rounds: int, size: int) -> list[Job]:
    """SDXL: a guided step and a sweep, ours from the single file, diffusers from the same weights as its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    diffusers_folder, file = build_sdxl(folder / "random-sdxl")
    lora = build_lora(folder / "random-lora.safetensors", file, rank=16)
    peers = folder.parent / "peers"
    inputs = Job(kind="prepare", name=f"sdxl-inputs-{size}", command=worker("prepare.py", file, folder, size, "inputs"))
    convert = worker("step_openvino.py", file, folder, size, "openvino-convert")
    conversion = Job(
        kind="prepare", name=f"sdxl-openvino-{size}", command=convert, path=peers, needs_gb=SDXL_FLOAT32_GB
    )
    once = (f"openvino-{FASTEST}", REFERENCE)
    steps = [
        Job(
            kind="sdxl-step",
            name=name,
            turn=turn,
            path=path,
            command=worker(script, file, folder, size, name),
            needs_gb=SDXL_FLOAT32_GB if name in once else 0,
        )
        for turn in range(rounds)
        for name, (script, path) in programs(peers).items()
        if not (turn and name in once)
    ]
    common = [str(lora), "2", "1-3", str(size)]
    sweeps = [
        Job(
            kind="sdxl-sweep",
            name=name,
            command=[PYTHON, str(HERE / script), str(model), *common, *dtype, "with-lora"],
            needs_gb=SDXL_FLOAT32_GB if name == REFERENCE else 0,
        )
        for name, script, model, dtype in (
            ("clipskip", "run_clipskip.py", file, []),
            (f"diffusers-{FASTEST}", "run_diffusers.py", diffusers_folder, [FASTEST]),
        )
    ]
    return [inputs, *install(peers, "peers.txt"), conversion, *steps, *sweeps]


def starting(rounds: int) -> list[Job]:
    """The commands as a user types them, from a cold process, with the starter."""
    words = ["best quality, swamp, fireflies, gnome, reeds", "--negative", "blurry", "--cfg", "4", "--seed", "5"]
    out = ["--out", tempfile.mkdtemp(prefix="clipskip-bench-")]
    command = str(Path(PYTHON).parent / "clipskip")
    commands = {
        "help": [command, "--help"],
        "first-picture": [command, "generate", *words, *out],
        "guide-sweep": [command, "sweep", *words, "--lora", "gnome", "--steps", "30"],
    }
    return [
        Job(kind="starter", name=name, turn=turn, command=line if name != "guide-sweep" else [*line, *fresh()])
        for turn in range(rounds)
        for name, line in commands.items()
    ]


def fresh() -> list[str]:
    """A folder with nothing in it, so that no picture is kept."""
    return ["--out", tempfile.mkdtemp(prefix="clipskip-bench-")]


def worker(script: str, checkpoint: Path, folder: Path, size_px: int, name: str) -> list[str]:
    return [PYTHON, str(HERE / script), str(checkpoint), str(folder), str(size_px), name]


if __name__ == "__main__":
    main()
