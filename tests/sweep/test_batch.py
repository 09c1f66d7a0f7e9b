"""How many pictures at once: from the device's memory, and half as many when it runs out."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from clipskip.errors import SpecError
from clipskip.spec import ClipSkip, Render, Request
from clipskip.sweep import Advance, Drawn, Extras, Model, batch, open_model, resolve
from clipskip.weights import Library

ASKED = Request(prompt="swamp", negative_prompt="blurry", steps=2, seed=5, width=64, height=64)
GPU_ERROR = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB")
CPU_ERROR = RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")


class Limited(nn.Module):
    """A UNet on a device with room for so many rows."""

    def __init__(self, unet: nn.Module, rows: int, error: BaseException) -> None:
        super().__init__()
        self.inner, self.rows, self.error, self.calls = unet, rows, error, []

    dtype = property(lambda self: self.inner.dtype)
    device = property(lambda self: self.inner.device)
    shape = property(lambda self: self.inner.shape)

    def forward(self, x: Tensor, time: Tensor, text: Tensor, *args: object) -> Tensor:
        self.calls.append(len(text))
        if len(text) > self.rows:
            raise self.error
        out: Tensor = self.inner(x, time, text, *args)
        return out


@pytest.fixture
def own(library: Library) -> Iterator[Model]:
    yield open_model("tiny", library=library)


def renders(model: Model, library: Library, count: int) -> tuple[list[Render], Extras]:
    base, extras = resolve(ASKED, model.facts, library)
    return [replace(base, seed=seed) for seed in range(count)], extras


@pytest.mark.parametrize("error", [GPU_ERROR, CPU_ERROR, MemoryError()])
def test_out_of_memory_halves_the_batch_and_goes_on(
    own: Model, library: Library, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "CPU_BATCHES", ((8 * 8, 8),))
    asked, extras = renders(own, library, 7)
    expected = {e.index: e.pixels for e in own.draw(asked, extras) if isinstance(e, Drawn)}
    own.unet = Limited(own.unet, 4, error)  # type: ignore[assignment]
    events = list(own.draw(asked, extras))
    drawn = [e for e in events if isinstance(e, Drawn)]
    assert sorted(e.index for e in drawn) == list(range(7))
    # 16 rows fail (seven pictures and a filler), 6 rows fail, then 2 at a time fit; bfloat16 sums differ by batch, a few of 255.
    assert own.unet.calls[:3] == [16, 6, 2]  # type: ignore[union-attr, index]
    assert all(np.abs(e.pixels.astype(int) - expected[e.index]).max() <= 8 for e in drawn)


def test_one_picture_too_large_is_said_with_its_size(own: Model, library: Library) -> None:
    asked, extras = renders(own, library, 2)
    own.unet = Limited(own.unet, 1, CPU_ERROR)  # type: ignore[assignment]
    with pytest.raises(SpecError, match="64 x 64 does not fit"):
        list(own.draw(asked, extras))


def test_other_errors_are_not_taken_for_memory(own: Model, library: Library) -> None:
    asked, extras = renders(own, library, 2)
    own.unet = Limited(own.unet, 1, RuntimeError("a bug"))  # type: ignore[assignment]
    with pytest.raises(RuntimeError, match="a bug"):
        list(own.draw(asked, extras))


def test_a_picture_asked_for_twice_is_drawn_once_and_given_twice(own: Model, library: Library) -> None:
    (one, other), extras = renders(own, library, 2)
    own.unet = Limited(own.unet, 99, GPU_ERROR)  # type: ignore[assignment]
    events = list(own.draw([one, other, one], extras, previews=True))
    drawn = {e.index: e for e in events if isinstance(e, Drawn)}
    assert set(own.unet.calls) == {10}, "two pictures filled up to five, of two rows each"
    assert drawn.keys() == {0, 1, 2} and np.array_equal(drawn[0].pixels, drawn[2].pixels)
    assert drawn[0].render == drawn[2].render == one
    steps = [e for e in events if isinstance(e, Advance)]
    assert all(sorted(e.indices) == [0, 1, 2] and len(e.previews) == 3 for e in steps)


class Chip:
    """What `pictures_at_once` asks of a UNet on a GPU."""

    device, dtype = torch.device("cuda"), torch.float16

    def __init__(self, unet: nn.Module) -> None:
        self.shape = unet.shape


@pytest.mark.parametrize(("free", "pictures"), [(10**12, 32), (0, 1), (150_000_000, 5)])
def test_a_gpus_batch_is_what_its_free_memory_holds(
    own: Model, library: Library, monkeypatch: pytest.MonkeyPatch, free: int, pictures: int
) -> None:
    monkeypatch.setattr(batch, "free_bytes", lambda device: free)
    (render,), _ = renders(own, library, 1)
    chip: Any = Chip(own.unet)
    # 4096 cells x 32 channels x 2 bytes x 2 rows x 40 maps; four fifths of the memory, and no more than fills the chip.
    assert batch.drawing_bytes(chip, 64 * 64) == 20_971_520
    assert batch.pictures_at_once(chip, replace(render, width=512, height=512)) == pictures


def test_a_cpu_takes_the_more_pictures_the_smaller_they_are(own: Model, library: Library) -> None:
    (render,), _ = renders(own, library, 1)
    sizes = {512: 1, 1024: 1, 256: 2, 192: 2, 128: 5, 64: 5}
    assert {side: batch.pictures_at_once(own.unet, replace(render, width=side, height=side)) for side in sizes} == sizes


class Overflowing(Limited):
    """A UNet that gives no numbers for some of its rows."""

    def __init__(self, unet: nn.Module, rows: slice) -> None:
        super().__init__(unet, 999, CPU_ERROR)
        self.bad = rows

    def forward(self, *args: Any) -> Tensor:
        out = super().forward(*args).clone()
        out[self.bad] = torch.nan
        return out


@pytest.mark.parametrize("broken", [0, 1, 2])
def test_a_picture_that_is_no_numbers_any_more_takes_no_other_with_it(
    own: Model, library: Library, broken: int
) -> None:
    asked, extras = renders(own, library, 3)
    own.unet = Overflowing(own.unet, slice(2 * broken, 2 * broken + 1))  # type: ignore[assignment]
    drawn = []
    with pytest.raises(SpecError, match=r"Clip Skip 2 with guidance 7 contains NaN or infinity .* get another copy"):
        for event in own.draw(asked, extras):
            drawn += [event.index] if isinstance(event, Drawn) else []
    assert drawn == [i for i in range(3) if i != broken]


def test_where_no_picture_is_numbers_any_more_no_further_step_is_made(own: Model, library: Library) -> None:
    asked, extras = renders(own, library, 2)
    own.unet = Overflowing(own.unet, slice(None))  # type: ignore[assignment]
    with pytest.raises(SpecError, match="contains NaN or infinity"):
        list(own.draw(asked, extras))
    assert own.unet.calls == [10]  # type: ignore[union-attr]


@pytest.mark.parametrize("sampler", ["Euler a", "DPM++ SDE"])
def test_a_picture_has_the_same_bits_whatever_is_drawn_beside_it(own: Model, library: Library, sampler: str) -> None:
    """A matrix product of another number of rows may add up in another order: batches always have one size."""
    asked = Request(
        prompt="a red frog, (swamp:1.2)",
        negative_prompt="blurry",
        sampler=sampler,
        steps=2,
        seed=3,
        width=64,
        height=64,
    )
    requests = [
        asked,
        replace(asked, prompt=f"{asked.prompt} AND a cat"),
        replace(asked, cfg_scale=1),
        replace(asked, clip_skip=ClipSkip(3), prompt="word " * 80),
        replace(asked, clip_skip=ClipSkip(2)),
    ]
    planned = [resolve(request, own.facts, library) for request in requests]
    together = drawn_pixels(own, [render for render, _ in planned], planned[0][1])
    backwards = drawn_pixels(own, [render for render, _ in planned[::-1]], planned[0][1])[::-1]
    alone = [drawn_pixels(own, [render], extras)[0] for render, extras in planned]
    for one, two, three in zip(together, backwards, alone, strict=True):
        assert np.array_equal(one, two) and np.array_equal(one, three)


def drawn_pixels(model: Model, renders: list[Render], extras: Extras) -> list[NDArray[np.uint8]]:
    found = {event.index: event.pixels for event in model.draw(renders, extras) if isinstance(event, Drawn)}
    return [found[i] for i in range(len(renders))]
