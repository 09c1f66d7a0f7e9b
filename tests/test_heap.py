"""What is freed stays with the process while pictures are drawn, in whichever thread, and goes back afterwards.

Each in a process of its own: what a heap looks like depends on all that happened in it before.
"""

import subprocess
import sys

import pytest

from clipskip import heap

needs_glibc = pytest.mark.skipif(heap._glibc() is None, reason="another C library")

COUNTING = """
import resource
from pathlib import Path
from threading import Thread
from clipskip import heap

SIZE = 256 << 20

def block():  # pages that the system hands out for a large block, which is then let go
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    bytearray(b"x") * SIZE
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / (SIZE / resource.getpagesize())

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / SIZE
"""
BLOCKS = """
def blocks():
    first = resident()
    with heap.kept():
        block()
        print(block() + block(), resident() - first)
    print(resident() - first, block())
"""


def numbers(code: str) -> list[float]:
    """What a fresh process prints."""
    made = subprocess.run([sys.executable, "-c", COUNTING + code], capture_output=True, text=True, check=True)
    return [float(word) for word in made.stdout.split()]


@needs_glibc
@pytest.mark.parametrize("where", ["blocks()", "heap.share(); t = Thread(target=blocks); t.start(); t.join()"])
def test_a_block_is_taken_from_the_system_once_and_goes_back_at_the_end(where: str) -> None:
    again, while_kept, afterwards, later = numbers(BLOCKS + where)
    assert again < 0.1 and while_kept > 0.9
    assert afterwards < 0.1 and later > 0.9, "as before"


@needs_glibc
def test_it_can_be_given_back_before_the_end() -> None:
    (left,) = numbers("first = resident()\nwith heap.kept():\n    block(); heap.give_back(); print(resident() - first)")
    assert left < 0.1


def test_with_another_c_library_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    heap._glibc.cache_clear()
    monkeypatch.setattr(sys, "platform", "darwin")
    try:
        with heap.kept():
            heap.share()
            heap.give_back()
        assert heap._glibc() is None
    finally:
        heap._glibc.cache_clear()
