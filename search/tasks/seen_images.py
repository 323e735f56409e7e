"""Images as a model sees them, made again from its inputs."""

from __future__ import annotations

import math
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pruners.adapters import adapter_for
from pruners.errors import DataError
from search.tasks.live_model import LiveModel
from search.tasks.preparing import Inputs


class SeenImage(NamedTuple):
    """An image as a model sees it.

    Attributes:
        png: The image, a PNG file.
        rows: Rows of its visual tokens.
        columns: Columns of its visual tokens.
    """

    png: bytes
    rows: int
    columns: int


def seen_image(live: LiveModel, inputs: Inputs, identifier: str) -> SeenImage:
    """Make the image of a sample again from what the processor has made of it.

    Args:
        live: The model.
        inputs: The sample's inputs.
        identifier: Names the sample in messages.

    Returns:
        The image, cut and resized as the processor has cut and resized it.

    Raises:
        DataError: The sample's visual tokens do not stand on one grid over one image.
    """
    placeholder = adapter_for(live.model).placeholder_ids()["image"]
    tokens = int(inputs["input_ids"].eq(placeholder).sum())
    if "pixel_values" not in inputs or tokens == 0:
        raise DataError(f"sample {identifier} has no image")
    pixels = inputs["pixel_values"].float().numpy()
    processor = live.processor.image_processor
    if "image_grid_thw" in inputs:
        grid = inputs["image_grid_thw"].tolist()
        if len(grid) != 1 or grid[0][0] != 1:
            raise DataError(f"sample {identifier} has several images; one can be shown")
        _, high, wide = grid[0]
        merged = int(processor.merge_size)
        rows, columns = high // merged, wide // merged
        pixels = _unpacked(pixels, high, wide, merged, int(processor.patch_size))
    else:
        if pixels.ndim != 4 or len(pixels) != 1:
            raise DataError(
                f"the model sees the image of sample {identifier} in several tiles; only images "
                "that are one grid of tokens can be shown"
            )
        rows = columns = math.isqrt(tokens)
        pixels = pixels[0]
    if rows * columns != tokens:
        raise DataError(
            f"the {tokens} visual tokens of sample {identifier} are not {rows} rows of {columns}"
        )
    return SeenImage(_png(pixels, processor), rows, columns)


def _unpacked(
    patches: NDArray[np.float32], high: int, wide: int, merged: int, side: int
) -> NDArray[np.float32]:
    """Put an image together from patches as Qwen's processors order them.

    Args:
        patches: Patches, those of one token after the other, (high * wide, channels * frames *
            side * side).
        high: Rows of patches.
        wide: Columns of patches.
        merged: Patches along each side of a token.
        side: Pixels along each side of a patch.

    Returns:
        The first frame, (channels, height, width).
    """
    blocks = patches.reshape(
        high // merged, wide // merged, merged, merged, 3, -1, side, side
    )  # rows, columns, row and column in the token, channels, frames, pixels
    image = blocks[:, :, :, :, :, 0].transpose(4, 0, 2, 5, 1, 3, 6)
    return image.reshape(3, high * side, wide * side)


def _png(pixels: NDArray[np.float32], processor: Any) -> bytes:
    """Undo a processor's normalisation: (channels, height, width)."""
    from PIL import Image

    mean, deviation = (
        np.asarray(getattr(processor, name), dtype=np.float32)[:, None, None]
        for name in ("image_mean", "image_std")
    )
    colours = (255 * (pixels * deviation + mean)).round().clip(0, 255).astype(np.uint8)
    file = BytesIO()
    Image.fromarray(colours.transpose(1, 2, 0)).save(file, "PNG")
    return file.getvalue()
