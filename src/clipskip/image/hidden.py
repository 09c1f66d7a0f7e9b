"""Settings in the lowest bits of a picture's pixels: the "stealth PNG info" of an extension of A1111's, and of NovelAI.

Down each column, columns from the left: a mark of 15 letters, the number of bits that follow (32 bits, most significant
first), then UTF-8, or gzip of it. One bit a pixel in the alpha channel, or one in each of red, green and blue.
"""

import zlib

import numpy as np
from numpy.typing import NDArray

MARKS = {b"stealth_pnginfo": False, b"stealth_pngcomp": True, b"stealth_rgbinfo": False, b"stealth_rgbcomp": True}
"""Whether what follows is compressed."""
MARK_BITS, SIZE_BITS = 15 * 8, 32
MOST_TEXT = 10 * 2**20
GZIP = 16 + zlib.MAX_WBITS


def read_hidden(pixels: NDArray[np.uint8]) -> str | None:
    """The text in pixels [height, width, 3 or 4], or None where there is none."""
    channels = [pixels[:, :, 3:]] if pixels.shape[2] == 4 else []
    for values in (*channels, pixels[:, :, :3]):
        mark = _bytes(values, 0, MARK_BITS)
        if mark in MARKS:
            size = int.from_bytes(_bytes(values, MARK_BITS, SIZE_BITS), "big")
            start = MARK_BITS + SIZE_BITS
            if not size <= min(8 * MOST_TEXT, values.size - start):
                return None
            content = _bytes(values, start, size)
            return _unpacked(content) if MARKS[mark] else content.decode("utf-8", "replace")
    return None


def _bytes(values: NDArray[np.uint8], start: int, count: int) -> bytes:
    """Bits from `start` on, eight to a byte; fewer where the picture ends."""
    column = values.shape[0] * values.shape[2]
    first, last = start // column, -(-(start + count) // column)
    bits = values[:, first:last].transpose(1, 0, 2).reshape(-1) & 1
    return np.packbits(bits[start - first * column :][:count]).tobytes()


def _unpacked(content: bytes) -> str | None:
    """Gzip's text, if it is any and not larger than settings are."""
    decoder = zlib.decompressobj(GZIP)
    try:
        text = decoder.decompress(content, MOST_TEXT)
    except zlib.error:
        return None
    return text.decode("utf-8", "replace") if not decoder.unconsumed_tail else None
