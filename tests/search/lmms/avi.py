"""A video file without a video library: Motion JPEG in an AVI container."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

from PIL.Image import Image


def chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)


def write_avi(frames: Sequence[Image], path: Path, frames_per_second: int) -> None:
    """Write frames of one size as a video."""
    width, height = frames[0].size
    pictures = []
    for frame in frames:
        file = BytesIO()
        frame.save(file, "JPEG", quality=95)
        pictures.append(file.getvalue())
    largest, count = max(map(len, pictures)), len(pictures)
    main = struct.pack(
        "<14I", 1_000_000 // frames_per_second, 0, 0, 0x10, count, 0, 1, largest, width, height,
        0, 0, 0, 0,
    )  # fmt: skip
    stream = b"vidsMJPG" + struct.pack(
        "<IHHIIIIIIII4H", 0, 0, 0, 0, 1, frames_per_second, 0, count, largest, 0, 0,
        0, 0, width, height,
    )  # fmt: skip
    picture_format = struct.pack(
        "<IiiHH4sIiiII", 40, width, height, 1, 24, b"MJPG", 3 * width * height, 0, 0, 0, 0
    )
    header = chunk(b"avih", main) + chunk(
        b"LIST", b"strl" + chunk(b"strh", stream) + chunk(b"strf", picture_format)
    )
    movie, index = b"movi", b""
    for picture in pictures:
        index += b"00dc" + struct.pack("<III", 0x10, len(movie), len(picture))
        movie += chunk(b"00dc", picture)
    parts = chunk(b"LIST", b"hdrl" + header) + chunk(b"LIST", movie) + chunk(b"idx1", index)
    path.write_bytes(chunk(b"RIFF", b"AVI " + parts))
