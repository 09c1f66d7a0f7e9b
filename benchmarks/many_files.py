"""Seconds until the page can be used with thousands of LoRA files, and milliseconds of a key in its search, in Chromium.

Usage: python benchmarks/many_files.py [number of LoRAs] [source folder of the server, such as another commit's src]
"""

import json
import os
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

MODULES, RANK, WIDTH = 264, 8, 768
PARTS = ("self_attn_q_proj", "self_attn_k_proj", "self_attn_v_proj", "self_attn_out_proj", "mlp_fc1", "mlp_fc2")
TYPED = ("word4242", "lora0123", "tag7 ogre")
PATIENCE_MS = 280_000
SERVE = "from clipskip.doors.cli import main; main()"
LISTED = """async () => {
    const all = await (await fetch("/v1/files")).json();
    return all.reading ? 0 : all.loras.length;
}"""
LATENCY = """() => {
    window.spent = [];
    addEventListener("keydown", () => {
        const begun = performance.now();
        requestAnimationFrame(() => setTimeout(() => window.spent.push(performance.now() - begun)));
    }, true);
}"""


def header() -> tuple[dict[str, object], int]:
    """The tensors of a usual LoRA: 264 modules, each down, up and alpha; and the bytes of their data."""
    tensors, at = {}, 0
    for module in range(MODULES):
        if module < 12 * len(PARTS):
            name = f"lora_te_text_model_encoder_layers_{module // len(PARTS)}_{PARTS[module % len(PARTS)]}"
        else:
            name = (
                f"lora_unet_up_blocks_{1 + module % 3}_attentions_{module % 3}_transformer_blocks_0_attn2_to_q_{module}"
            )
        for part, shape in (("lora_down.weight", [RANK, WIDTH]), ("lora_up.weight", [WIDTH, RANK]), ("alpha", [])):
            size = 2 * (shape[0] * shape[1] if shape else 1)
            tensors[f"{name}.{part}"] = {"dtype": "F16", "shape": shape, "data_offsets": [at, at + size]}
            at += size
    return tensors, at


def write_files(folder: Path, count: int) -> None:
    """So many LoRAs, each with its own words; their data are holes in the files."""
    tensors, size = header()
    folder.mkdir(parents=True)
    for number in range(count):
        tags = json.dumps({"10_set": {f"tag{(number + k) % 50}": 10 + k for k in range(20)} | {f"word{number}": 40}})
        about = {
            "ss_clip_skip": "2",
            "ss_output_name": f"lora{number:04d}",
            "ss_tag_frequency": tags,
            "ss_network_dim": str(RANK),
        }
        text = json.dumps({"__metadata__": about} | tensors).encode()
        with (folder / f"lora{number:04d}.safetensors").open("wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            file.truncate(8 + len(text) + size)


def serve(place: Path, port: int, source: Path) -> "subprocess.Popen[bytes]":
    environment = os.environ | {
        "PYTHONPATH": str(source),
        "XDG_CACHE_HOME": str(place / "cache"),
        "HF_HUB_OFFLINE": "1",
    }
    words = ["serve", "--port", str(port), "--out", str(place / "out"), "--models-folder", str(place / "models")]
    log = (place / "log").open("ab")
    running = subprocess.Popen([sys.executable, "-c", SERVE, *words], env=environment, stdout=log, stderr=log)
    for _ in range(3000):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/samplers", timeout=5).close()
            return running
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise SystemExit((place / "log").read_text())


def look(page: Page, address: str, count: int) -> dict[str, float | list[float]]:
    """Opens the page; seconds until it can be typed into, until every LoRA is in its list, and the slowest key after that."""
    begun = time.perf_counter()
    page.goto(address)
    page.wait_for_selector("#ready", state="attached", timeout=PATIENCE_MS)
    ready = time.perf_counter() - begun
    while page.evaluate(LISTED) < count:
        page.wait_for_timeout(200)
    whole = time.perf_counter() - begun
    if page.locator("input#add-lora").count() == 0:
        return {"ready_s": round(ready, 2), "listed_s": round(whole, 2)}
    page.wait_for_timeout(1500)
    spent = type_keys(page)
    keys = {"slowest_key_ms": round(max(spent), 1), "median_key_ms": round(statistics.median(spent), 1)}
    return {"ready_s": round(ready, 2), "listed_s": round(whole, 2)} | keys


def type_keys(page: Page) -> list[float]:
    """Milliseconds from each key in the search to the picture of the page after it."""
    page.evaluate(LATENCY)
    spent: list[float] = []
    for text in TYPED:
        page.fill("#add-lora", "")
        page.evaluate("window.spent = []")
        for key in text:
            page.keyboard.press(key if key != " " else "Space")
            page.wait_for_timeout(60)
        spent += page.evaluate("window.spent")
    return spent


def main(count: int, source: Path) -> None:
    with socket.socket() as free, tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        place, address = Path(folder), f"http://127.0.0.1:{port}"
        write_files(place / "models" / "Lora", count)
        chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for when in ("first", "after a restart"):
            running = serve(place, port, source)
            try:
                for load in ("opened", "reloaded"):
                    page = chromium.new_page(viewport={"width": 1440, "height": 900})
                    print(
                        json.dumps({"loras": count, "server": when, "page": load} | look(page, address, count)),
                        flush=True,
                    )
                    page.close()
            finally:
                running.terminate()
                running.wait(20)
        chromium.close()


if __name__ == "__main__":
    words = sys.argv[1:]
    main(int(words[0]) if words else 5000, Path(words[1] if len(words) > 1 else "src").resolve())
