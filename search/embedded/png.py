"""Writing palette images as PNG files whose bytes depend on nothing but the pixels.

Pillow's bytes follow the zlib it was built with; the files here hold their pixels uncompressed, and
the parquet file around them compresses them all together.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_STORED_LIMIT = 65_535


def _chunk(name: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(name + content)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)


def encode_png(indices: NDArray[np.uint8], palette: NDArray[np.uint8]) -> bytes:
    """Return a PNG file with 8-bit palette indices and one stored deflate block.

    Args:
        indices: Palette index of every pixel, uint8, shape (height, width).
        palette: Red, green and blue of at most 256 entries, uint8, shape (entries, 3).

    Returns:
        The bytes of the file.

    Raises:
        ValueError: The image has more than 65,535 bytes, which one stored block cannot hold.
    """
    height, width = indices.shape
    rows = np.zeros((height, width + 1), dtype=np.uint8)
    rows[:, 1:] = indices
    raw = rows.tobytes()
    if len(raw) > _STORED_LIMIT:
        raise ValueError(
            f"image has {len(raw)} bytes; at most {_STORED_LIMIT} fit, make it smaller"
        )
    block = b"\x01" + struct.pack("<HH", len(raw), len(raw) ^ 0xFFFF) + raw
    stream = b"\x78\x01" + block + struct.pack(">I", zlib.adler32(raw))
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    return (
        _SIGNATURE
        + _chunk(b"IHDR", header)
        + _chunk(b"PLTE", palette.tobytes())
        + _chunk(b"IDAT", stream)
        + _chunk(b"IEND", b"")
    )
