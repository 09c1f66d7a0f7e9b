"""Results -> results.json, the table in README.md between its marks, and growth.svg."""

import json
import platform
import re
import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from clipskip.networks import best_dtype

BEGIN, END = "<!-- measured: written by bench.py -->", "<!-- end of measured -->"
REFERENCE = "diffusers-float32"
NAMES = {
    "clipskip": "clipskip",
    "diffusers-float32": "diffusers, as it comes (float32)",
    "diffusers-bfloat16": "diffusers, bfloat16",
    "openvino-bfloat16": "OpenVINO, bfloat16",
    "openvino-float32": "OpenVINO, float32",
    "sdcpp": "stable-diffusion.cpp, one step once (texts and decoding in it)",
    "floor": "floor: the step's FLOP at the measured matmul rate",
}
STYLE = "text{font:12px sans-serif;fill:#222}.s{stroke:#222;fill:none}.m{stroke:#36c;fill:none}.mt{fill:#36c}"
Runs = dict[str, list[dict[str, object]]]
"""The runs of one kind of measurement, by the program's name."""
Kinds = dict[str, dict[str, object]]
"""By kind of measurement: `date`, `machine`, `runs`, and `latents`, the distance of each program's from the reference's."""
EXACT = "-float32"
"""Ends the kinds that were measured on a processor that does not multiply bfloat16, so that both are kept."""
Points = Sequence[tuple[float, float]]


def write_report(folder: Path, out: Path) -> None:
    """From every result in the folder, and those of other kinds that were measured before."""
    found: dict[str, Runs] = defaultdict(lambda: defaultdict(list))
    for path in sorted((folder / "results").glob("*.json")):
        result = json.loads(path.read_text())
        if result["kind"] != "prepare":
            found[result["kind"]][result["name"]].append(result)
    out.mkdir(parents=True, exist_ok=True)
    results, today = out / "results.json", datetime.now(UTC).date().isoformat()
    kinds: Kinds = json.loads(results.read_text()) if results.exists() else {}
    suffix = EXACT if best_dtype(torch.device("cpu")) == torch.float32 else ""
    for kind, runs in found.items():
        place = folder / "sdxl" if kind.startswith("sdxl") else folder
        latents = differences(place, runs) if kind.endswith("step") else {}
        kinds[kind + suffix] = {"date": today, "machine": machine(), "runs": runs, "latents": latents}
    results.write_text(json.dumps({kind: kinds[kind] for kind in sorted(kinds)}, indent=1) + "\n")
    text = "\n\n".join(part for part in sections(kinds, folder) if part)
    readme = out / "README.md"
    before = readme.read_text() if readme.exists() else f"# Benchmarks\n\n{BEGIN}\n{END}\n"
    block = f"{BEGIN}\n{text}\n{END}"
    readme.write_text(re.sub(f"{re.escape(BEGIN)}.*{re.escape(END)}", lambda _: block, before, flags=re.DOTALL))
    if growth := runs_of(kinds, "growth"):
        (out / "growth.svg").write_text(plot(growth))
    print(text)


def runs_of(kinds: Kinds, kind: str) -> Runs:
    return kinds[kind]["runs"] if kind in kinds else {}


def machine() -> str:
    """Processor, cores, memory and versions, in one line."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    cpu = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())
    flags = next((line for line in lines if line.startswith("flags")), "")
    able = [name for flag, name in (("amx_bf16", "AMX"), ("avx512_bf16", "AVX512-BF16")) if flag in flags]
    cores = sum(line.startswith("processor") for line in lines)
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "diffusers", "transformers"))
    return (
        f"{cpu}, {cores} cores, {' and '.join(able) or 'no bfloat16'}; Python {platform.python_version()}, {packages}"
    )


def sections(kinds: Kinds, folder: Path) -> list[str]:
    """The README's parts."""
    step, sweep = "a guided step and a decoded picture", "two steps each, whole command"
    return [
        "Medians; ratios are within one run, in which the programs took turns. Load is the machine's before each began.",
        *both(step_table, kinds, "step", f"SD 1.x: {step}, 512x512"),
        *both(step_table, kinds, "sdxl-step", f"SDXL: {step}, 1024x1024"),
        *both(sweep_table, kinds, "sweep", f"SD 1.x: Clip Skip 1 to 5 without and with a LoRA, 512x512, {sweep}"),
        *both(sweep_table, kinds, "sdxl-sweep", f"SDXL: Clip Skip 1 to 3 with a LoRA, 1024x1024, {sweep}"),
        *both(starter_table, kinds, "starter", "Whole commands from a cold process"),
        growth_text(runs_of(kinds, "growth")),
        failures(folder),
    ]


def both(table: Callable[[Kinds, str, str], str], kinds: Kinds, kind: str, title: str) -> list[str]:
    """A kind's tables: from a processor that multiplies bfloat16, and from one that does not."""
    return [table(kinds, kind, title), table(kinds, kind + EXACT, f"{title}, on a processor without bfloat16")]


def measured(kinds: Kinds, kind: str) -> str:
    """When and where a kind was measured, and under what load."""
    entry = kinds[kind]
    loads = [run["load_before"] for runs in entry["runs"].values() for run in runs if "load_before" in run]
    load = f" Load {min(loads):.1f} to {max(loads):.1f}." if loads else ""
    return f"{entry['date']} on {entry['machine']}.{load}"


def step_table(kinds: Kinds, kind: str, title: str) -> str:
    """Seconds per guided step and per decoded picture, and how far the latents are from the reference's."""
    steps, latents = runs_of(kinds, kind), kinds.get(kind, {}).get("latents", {})
    if "clipskip" not in steps:
        return ""
    ours, decoding = seconds(steps["clipskip"]), decode_s(steps["clipskip"])
    reference = NAMES[reference_of(steps)]
    lines = [
        f"### {title}",
        "",
        measured(kinds, kind),
        "",
        f"| | s / step | to ours | s / decoded picture | to ours | peak memory, GB | latents from {reference} | runs |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, row in NAMES.items():
        if name in steps:
            runs, once = steps[name], decode_s(steps[name])
            decoded = f"{once:.2f} | {once / decoding:.2f}" if once else " | "
            peak = "" if name == "floor" else f"{statistics.median(r['peak_gb'] for r in runs):.1f}"
            lines.append(
                f"| {row} | {seconds(runs):.2f} | {seconds(runs) / ours:.2f} | {decoded} | {peak} "
                f"| {latents.get(name, '')} | {len(runs)} |"
            )
    if "floor" in steps:
        f = steps["floor"][-1]
        dtype = f["dtype"].removeprefix("torch.")
        exact = "" if dtype == "float32" else f", {f['float32_gflop_per_s']:.0f} in float32"
        lines += [
            "",
            f"A step is {f['gflop']:.0f} GFLOP; matrices multiply at {f['gflop_per_s']:.0f} GFLOP/s in {dtype}{exact}.",
        ]
    return "\n".join(lines)


def reference_of(runs: Runs) -> str:
    """The most exact of diffusers' runs."""
    return next((name for name in (REFERENCE, "diffusers-bfloat16") if name in runs), REFERENCE)


def seconds(runs: list[dict[str, object]]) -> float:
    """The median step of all runs."""
    return statistics.median(step for run in runs for step in run["steps_s"])


def decode_s(runs: list[dict[str, object]]) -> float | None:
    found = [run["decode_s"] for run in runs if "decode_s" in run]
    return statistics.median(found) if found else None


def differences(folder: Path, runs: Runs) -> dict[str, str]:
    """The relative distance of each program's final latents from the reference's, where both are there."""
    reference = reference_of(runs)
    latents = {name: np.load(folder / f"{name}.npy") for name in runs if (folder / f"{name}.npy").exists()}
    exact = latents.pop(reference, None)
    if exact is None:
        return {}
    return {
        name: f"{np.linalg.norm(latent - exact) / np.linalg.norm(exact):.4f}"
        for name, latent in latents.items()
        if latent.shape == exact.shape
    }


def sweep_table(kinds: Kinds, kind: str, title: str) -> str:
    """The whole command, and its steps where they were timed."""
    sweeps = runs_of(kinds, kind)
    if not sweeps:
        return ""
    ours = sweeps["clipskip"][0] if "clipskip" in sweeps else None
    lines = [f"### {title}", "", measured(kinds, kind), ""]
    lines += ["| | s | to ours | s / step after the first | to ours | peak memory, GB |", "|---|---|---|---|---|---|"]
    for name, runs in sweeps.items():
        ratio = f"{runs[0]['whole_s'] / ours['whole_s']:.2f}" if ours else ""
        step = " | "
        if "steps_s" in runs[0]:
            step = f"{seconds(runs):.2f} | {seconds(runs) / seconds(sweeps['clipskip']):.2f}"
        lines.append(f"| {NAMES[name]} | {runs[0]['whole_s']:.0f} | {ratio} | {step} | {runs[0]['peak_gb']:.1f} |")
    return "\n".join(lines)


def starter_table(kinds: Kinds, kind: str, title: str) -> str:
    """Whole commands from a cold process."""
    starter = runs_of(kinds, kind)
    titles = {
        "help": "`clipskip --help`",
        "first-picture": "the starter's first picture, 20 steps",
        "guide-sweep": "the guide's sweep with the starter: 10 pictures, 30 steps",
        "open-clipskip": "opening the full-size file, without imports, from the page cache",
        "open-diffusers": "diffusers opening its folder in bfloat16, likewise",
        "open-read": "reading the file, likewise",
    }
    rows = [
        f"| {said} | {statistics.median(r['whole_s'] for r in starter[name]):.2f} | {max(r['peak_gb'] for r in starter[name]):.2f} |"
        for name, said in titles.items()
        if name in starter
    ]
    head = [f"### {title}", "", measured(kinds, kind), ""] if rows else []
    return "\n".join([*head, "| | s | peak memory, GB |", "|---|---|---|", *rows]) if rows else ""


def growth_text(growth: Runs) -> str:
    """The plot's place."""
    picture = "![Time and memory by cells and by pixels](growth.svg)"
    return f"### How cost grows\n\n{picture}\n\nOne step a cell; loading is left out." if growth else ""


def failures(folder: Path) -> str:
    """What was tried and did not work."""
    found = {path.stem: path.read_text().strip().splitlines()[-1] for path in folder.glob("results/*.failed")}
    lines = [f"- {name}: {line}" for name, line in sorted(found.items())]
    return "\n".join(["### Failed", "", *lines]) if lines else ""


def plot(growth: Runs) -> str:
    """Two panels: by cells at the native size, by pixels for one cell; seconds in ink, gigabytes in blue."""
    runs = [run for found in growth.values() for run in found]
    native = max({run["size_px"] for run in runs}, key=lambda px: sum(run["size_px"] == px for run in runs))
    by_cells = sorted((r for r in runs if r["size_px"] == native), key=lambda r: r["cells"])
    by_size = sorted((r for r in runs if r["cells"] == 1), key=lambda r: r["size_px"])
    panels = [
        panel(60, f"cells at {native} x {native}", [(r["cells"], r["steps_s"][0], r["peak_gb"]) for r in by_cells]),
        panel(480, "pixels a side, one cell", [(r["size_px"], r["steps_s"][0], r["peak_gb"]) for r in by_size]),
    ]
    body = f'<rect width="860" height="330" fill="#fff"/>{"".join(panels)}'
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 860 330"><style>{STYLE}</style>{body}</svg>\n'


def panel(left: int, title: str, rows: Sequence[tuple[float, float, float]]) -> str:
    """Seconds and gigabytes over one axis, each with its numbers beside its points."""
    width, height, top = 320, 220, 50
    far = max(x for x, _, _ in rows)

    def line(column: int, kind: str, unit: str, lift: int) -> str:
        most = max(row[column] for row in rows) * 1.15
        places = [(left + width * row[0] / far, top + height * (1 - row[column] / most), row[column]) for row in rows]
        path = " ".join(f"{x:.0f},{y:.0f}" for x, y, _ in places)
        marks, last = "", (-width, 0.0)
        for x, y, value in places:
            marks += f'<circle cx="{x:.0f}" cy="{y:.0f}" r="3" class="{kind}"/>'
            if x - last[0] > 40 or abs(y - last[1]) > 14:  # else it would lie on the one before it
                marks += f'<text x="{x:.0f}" y="{y + lift:.0f}" text-anchor="middle" class="{kind}t">{value:.1f}{unit}</text>'
                last = x, y
        return f'<polyline points="{path}" class="{kind}"/>{marks}'

    axis = f'<path d="M{left} {top}V{top + height}H{left + width}" class="s"/>'
    ticks = "".join(
        f'<text x="{left + width * x / far:.0f}" y="{top + height + 18}" text-anchor="middle">{x:g}</text>'
        for x, _, _ in rows
    )
    name = f'<text x="{left + width / 2:.0f}" y="{top + height + 40}" text-anchor="middle">{title}</text>'
    return axis + ticks + name + line(1, "s", " s", -10) + line(2, "m", " GB", 18)
