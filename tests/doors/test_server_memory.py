"""What hostile files and bodies take of memory: under 1.5 GB in all, whoever sends them and however many at once."""

import base64
import io
import json
import struct
import subprocess
import sys
import threading
from pathlib import Path

import httpx2
import pytest
from PIL import Image, PngImagePlugin
from test_killed_server import serving

MOST = 1.5e9


def peak(process: "subprocess.Popen[str]") -> int:
    """The most memory that it has had until now."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


def png(pixels: Image.Image, text: str = "") -> str:
    stored, about = io.BytesIO(), PngImagePlugin.PngInfo()
    about.add_text("parameters", text)
    pixels.save(stored, "PNG", pnginfo=about)
    return base64.b64encode(stored.getvalue()).decode()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_a_server_takes_little_memory_for_three_huge_pictures_at_once(folder: Path, tmp_path: Path) -> None:
    huge, wordy = png(Image.new("RGB", (9999, 9999))), png(Image.new("RGB", (64, 64)), "a frog " * 3_000_000)
    begins = {"prompt": "a frog", "steps": 1}
    asked = (
        ("/sdapi/v1/png-info", {"image": huge}, 200),
        ("/sdapi/v1/img2img", begins | {"init_images": [huge]}, 422),
        ("/sdapi/v1/png-info", {"image": wordy}, 422),
    )
    found: list[tuple[str, int, int]] = []

    def send(path: str, body: object) -> None:
        answer = httpx2.post(f"{address}{path}", json=body, timeout=200)
        found.append((path, answer.status_code, len(answer.content)))

    with serving(tmp_path, folder) as (server, address):
        for path, body, status in asked:
            found.clear()
            threads = [threading.Thread(target=send, args=(path, body)) for _ in range(3)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert [(path, status)] * 3 == [answer[:2] for answer in found]
            assert all(size < 1000 for _, _, size in found)
            assert peak(server) < MOST, path


MEASURED = """
import resource, sys
from clipskip.doors.cli import main
try:
    main()
finally:
    used = resource.getrusage(resource.RUSAGE_SELF)
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))  # ru_maxrss holds what the parent had
    print(int(status["VmHWM"].split()[0]) * 1024, used.ru_utime + used.ru_stime)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak is counted in other units elsewhere")
@pytest.mark.parametrize("kind", ["a million tensors", "20 MB of metadata"])
def test_inspecting_a_huge_header_takes_little_memory(kind: str, tmp_path: Path) -> None:
    tables: dict[str, object] = {
        "a million tensors": {f"{i:x}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(10**6)},
        "20 MB of metadata": {"__metadata__": {"notes": "a" * 20_000_000}},
    }
    content = json.dumps(tables[kind], separators=(",", ":")).encode()
    (tmp_path / "huge.safetensors").write_bytes(struct.pack("<Q", len(content)) + content)
    words = [sys.executable, "-c", MEASURED, "inspect", str(tmp_path / "huge.safetensors")]
    done = subprocess.run(words, capture_output=True, text=True)
    most, seconds = map(float, done.stdout.split())
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr[:300]
    assert "at most 16,000,000 are read" in done.stderr
    assert most < MOST
    assert seconds < 10
