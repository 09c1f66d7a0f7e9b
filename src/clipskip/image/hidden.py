"""Settings in the lowest bits of a picture's pixels: "stealth PNG info", an extension of A1111's, and NovelAI's.

The bits run down each column, columns from the left: a mark of 15 letters, the number of bits that follow (32 bits,
most significant first), then UTF-8, or gzip of it. A pixel holds one bit in the alpha channel, or one in each of red,
green and blue.
"""

import zlib

import numpy as np
from PIL import Image

MARKS = {b"stealth_pnginfo": False, b"stealth_pngcomp": True, b"stealth_rgbinfo": False, b"stealth_rgbcomp": True}
"""For each mark, whether the text is compressed."""
ALPHA, COLOURS = (3,), (0, 1, 2)
MARK_BITS, SIZE_BITS = 15 * 8, 32
MOST_TEXT = 10 * 2**20
GZIP = 16 + zlib.MAX_WBITS


def read_hidden(picture: Image.Image) -> str | None:
    """Return the text in an RGB or RGBA picture, or None. Only the columns that hold it are copied."""
    for channels in (ALPHA, COLOURS) if picture.mode == "RGBA" else (COLOURS,):
        mark = _bytes(picture, channels, 0, MARK_BITS)
        if mark in MARKS:
            size = int.from_bytes(_bytes(picture, channels, MARK_BITS, SIZE_BITS), "big")
            start = MARK_BITS + SIZE_BITS
            room = picture.width * picture.height * len(channels) - start
            if not size <= min(8 * MOST_TEXT, room):
                return None
            content = _bytes(picture, channels, start, size)
            return _unpacked(content) if MARKS[mark] else content.decode("utf-8", "replace")
    return None


def _bytes(picture: Image.Image, channels: tuple[int, ...], start: int, count: int) -> bytes:
    """Return bits from `start` on, eight to a byte; fewer where the picture ends."""
    column = picture.height * len(channels)
    first, last = start // column, min(picture.width, -(-(start + count) // column))
    values = np.asarray(picture.crop((first, 0, max(first, last), picture.height)))[:, :, channels]
    bits = values.transpose(1, 0, 2).reshape(-1) & 1
    return np.packbits(bits[start - first * column :][:count]).tobytes()


def _unpacked(content: bytes) -> str | None:
    """Return gzip's text, or None where it is damaged or larger than settings are."""
    decoder = zlib.decompressobj(GZIP)
    try:
        text = decoder.decompress(content, MOST_TEXT)
    except zlib.error:
        return None
    return text.decode("utf-8", "replace") if not decoder.unconsumed_tail else None
