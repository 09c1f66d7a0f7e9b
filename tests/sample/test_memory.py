"""What a device has left, and which errors mean that it has not enough."""

from pathlib import Path

import pytest
import torch

from clipskip import heap
from clipskip.errors import SpecError
from clipskip.sample import check_room, free_bytes, has_room, is_out_of_memory, memory

CPU = torch.device("cpu")


def test_a_cpus_free_memory_is_what_linux_calls_available(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 900 kB\nMemFree: 5 kB\nMemAvailable:    300 kB\n")
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    assert free_bytes(CPU) == 300 * 1024


def test_where_nothing_says_half_the_memory_is_taken_to_be_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "none")
    assert free_bytes(CPU) > 2**28


def test_a_gpus_free_memory_counts_what_torch_keeps_unused(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = {"mem_get_info": (100, 1000), "memory_reserved": 50, "memory_allocated": 20}
    for name, number in numbers.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, number=number: number)
    assert free_bytes(torch.device("cuda")) == 130


def test_a_failed_allocation_is_known_from_torch_and_python_alone() -> None:
    with pytest.raises(RuntimeError) as failed:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(failed.value)
    assert is_out_of_memory(torch.OutOfMemoryError()) and is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("shapes differ"))


def test_what_is_kept_is_given_back_where_room_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[int] = []
    monkeypatch.setattr(memory, "free_bytes", lambda device: 100 + sum(given))
    monkeypatch.setattr(heap, "give_back", lambda: given.append(50))
    assert has_room(CPU, 100) and not given
    assert has_room(CPU, 120) and given == [50]
    assert not has_room(CPU, 300)


def test_weights_that_do_not_fit_are_refused_with_what_they_take_and_what_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    (tmp_path / "meminfo").write_text("MemAvailable: 9000000 kB\nSwapFree: 1000000 kB\n")
    check_room(CPU, 10_000_000_000, what="pony.safetensors")
    with pytest.raises(
        SpecError, match=r"pony.safetensors takes 13.9 GB of memory, and 10.2 GB are free; close"
    ) as told:
        check_room(CPU, 13_900_000_000, what="pony.safetensors")
    assert told.value.field == "model"
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "none")
    check_room(CPU, 10**15, what="pony.safetensors")  # not Linux, where nothing says what is free
