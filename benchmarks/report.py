"""Results -> results.json, the table in README.md between its marks, and growth.svg."""

import json
import platform
import re
import statistics
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np

BEGIN, END = "<!-- measured: written by bench.py -->", "<!-- end of measured -->"
REFERENCE = "diffusers-float32"
NAMES = {
    "clipskip": "clipskip",
    "diffusers-float32": "diffusers, as it comes (float32)",
    "diffusers-bfloat16": "diffusers, bfloat16",
    "openvino-bfloat16": "OpenVINO, bfloat16",
    "sdcpp": "stable-diffusion.cpp, one step once (texts and decoding in it)",
    "floor": "floor: the step's FLOP at the measured matmul rate",
}
STYLE = "text{font:12px sans-serif;fill:#222}.s{stroke:#222;fill:none}.m{stroke:#36c;fill:none}.mt{fill:#36c}"
Results = dict[str, dict[str, list[dict[str, object]]]]
Points = Sequence[tuple[float, float]]


def write_report(folder: Path, out: Path) -> None:
    """From every result in the folder."""
    found: Results = defaultdict(lambda: defaultdict(list))
    for path in sorted((folder / "results").glob("*.json")):
        result = json.loads(path.read_text())
        found[result["kind"]][result["name"]].append(result)
    raw = {"date": datetime.now(UTC).date().isoformat(), "machine": machine(), "runs": found}
    out.mkdir(parents=True, exist_ok=True)
    (out / "results.json").write_text(json.dumps(raw, indent=1) + "\n")
    text = "\n\n".join(part for part in sections(found, folder, str(raw["date"])) if part)
    readme = out / "README.md"
    before = readme.read_text() if readme.exists() else f"# Benchmarks\n\n{BEGIN}\n{END}\n"
    block = f"{BEGIN}\n{text}\n{END}"
    readme.write_text(re.sub(f"{re.escape(BEGIN)}.*{re.escape(END)}", lambda _: block, before, flags=re.DOTALL))
    growth = found.get("growth")
    if growth:
        (out / "growth.svg").write_text(plot(growth))
    print(text)


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


def sections(found: Results, folder: Path, date: str) -> list[str]:
    """The README's parts."""
    head = f"Measured {date} on {machine()}. Medians; ratios are within one run, in which the programs took turns."
    return [
        head,
        step_table(found["step"], folder),
        sweep_table(found["sweep"]),
        starter_table(found["starter"]),
        growth_text(found["growth"]),
        failures(folder),
    ]


def step_table(steps: dict[str, list[dict[str, object]]], folder: Path) -> str:
    """Seconds per guided step and per decoded picture, and how far the latents are from float32."""
    if "clipskip" not in steps:
        return ""
    ours, decoding = seconds(steps["clipskip"]), decode_s(steps["clipskip"])
    lines = [
        "### A guided step and a decoded picture",
        "",
        "| | s / step | to ours | s / decoded picture | to ours | peak memory, GB | latents from float32 | runs |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, title in NAMES.items():
        if name in steps:
            runs, once = steps[name], decode_s(steps[name])
            decoded = f"{once:.2f} | {once / decoding:.2f}" if once else " | "
            peak = "" if name == "floor" else f"{statistics.median(r['peak_gb'] for r in runs):.1f}"
            lines.append(
                f"| {title} | {seconds(runs):.2f} | {seconds(runs) / ours:.2f} | {decoded} | {peak} "
                f"| {difference(folder, name)} | {len(runs)} |"
            )
    if "floor" in steps:
        f = steps["floor"][-1]
        lines += [
            "",
            f"A step is {f['gflop']:.0f} GFLOP; matrices multiply at {f['gflop_per_s']:.0f} GFLOP/s in {f['dtype']}, "
            f"{f['float32_gflop_per_s']:.0f} in float32.",
        ]
    return "\n".join(lines)


def seconds(runs: list[dict[str, object]]) -> float:
    """The median step of all runs."""
    return statistics.median(step for run in runs for step in run["steps_s"])


def decode_s(runs: list[dict[str, object]]) -> float | None:
    found = [run["decode_s"] for run in runs if "decode_s" in run]
    return statistics.median(found) if found else None


def difference(folder: Path, name: str) -> str:
    """The relative distance of the final latents from diffusers' in float32."""
    ours, exact = folder / f"{name}.npy", folder / f"{REFERENCE}.npy"
    if not (ours.exists() and exact.exists()) or name == REFERENCE:
        return ""
    a, b = np.load(ours), np.load(exact)
    return f"{np.linalg.norm(a - b) / np.linalg.norm(b):.4f}" if a.shape == b.shape else "another shape"


def sweep_table(sweeps: dict[str, list[dict[str, object]]]) -> str:
    """The whole command."""
    if not sweeps:
        return ""
    ours = sweeps["clipskip"][0] if "clipskip" in sweeps else None
    lines = ["### Ten pictures, Clip Skip 1 to 5 without and with a LoRA, two steps each, whole command", ""]
    lines += ["| | s | to ours | peak memory, GB |", "|---|---|---|---|"]
    for name, runs in sweeps.items():
        ratio = f"{runs[0]['whole_s'] / ours['whole_s']:.2f}" if ours else ""
        lines.append(f"| {NAMES[name]} | {runs[0]['whole_s']:.0f} | {ratio} | {runs[0]['peak_gb']:.1f} |")
    return "\n".join(lines)


def starter_table(starter: dict[str, list[dict[str, object]]]) -> str:
    """Whole commands from a cold process."""
    titles = {
        "help": "`clipskip --help`",
        "first-picture": "the starter's first picture, 20 steps",
        "guide-sweep": "the guide's sweep with the starter: 10 pictures, 30 steps",
        "open-clipskip": "opening the full-size file, without imports, from the page cache",
        "open-diffusers": "diffusers opening its folder in bfloat16, likewise",
        "open-read": "reading the file, likewise",
    }
    rows = [
        f"| {title} | {statistics.median(r['whole_s'] for r in starter[name]):.2f} | {max(r['peak_gb'] for r in starter[name]):.2f} |"
        for name, title in titles.items()
        if name in starter
    ]
    head = ["### Whole commands from a cold process", "", "| | s | peak memory, GB |", "|---|---|---|"]
    return "\n".join([*head, *rows]) if rows else ""


def growth_text(growth: dict[str, list[dict[str, object]]]) -> str:
    """The plot's place."""
    picture = "![Time and memory by cells and by pixels](growth.svg)"
    return f"### How cost grows\n\n{picture}\n\nOne step a cell; loading is left out." if growth else ""


def failures(folder: Path) -> str:
    """What was tried and did not work."""
    found = {path.stem: path.read_text().strip().splitlines()[-1] for path in folder.glob("results/*.failed")}
    lines = [f"- {name}: {line}" for name, line in sorted(found.items())]
    return "\n".join(["### Failed", "", *lines]) if lines else ""


def plot(growth: dict[str, list[dict[str, object]]]) -> str:
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
