"""Sizes of the models that `prefill.py` builds, and the schedules that it times on them."""

from __future__ import annotations

from pruners.errors import UnsupportedModelError
from pruners.shape import Shape, TextTowerShape, VisionShape
from space.shapes import preset

SMALL = Shape(
    name="small",
    decoder_layers=32,
    hidden_size=384,
    intermediate_size=1024,
    attention_heads=6,
    key_value_heads=6,
    head_size=64,
    vocabulary_size=4000,
    visual_tokens=576,
    vision=VisionShape(
        layers=12,
        hidden_size=128,
        intermediate_size=512,
        attention_heads=2,
        patches=576,
        patch_size=14,
        projection_size=128,
    ),
    text_tower=TextTowerShape(
        layers=4,
        hidden_size=128,
        intermediate_size=512,
        attention_heads=2,
        projection_size=128,
    ),
)
"""LLaVA-1.5's tokens and depth at a width for CPUs; vision tower and head cost about the same share
as in LLaVA-1.5-7B, so that matrix products outweigh what Python costs."""

TINY = SMALL.model_copy(
    update={
        "name": "tiny",
        "decoder_layers": 16,
        "hidden_size": 64,
        "intermediate_size": 128,
        "attention_heads": 2,
        "key_value_heads": 2,
        "head_size": 32,
        "vocabulary_size": 100,
        "vision": SMALL.vision.model_copy(update={"layers": 3}),
    }
)
"""Runs in a second; its timings mean nothing."""


def _as_next(shape: Shape) -> Shape:
    """Give a model LLaVA-NeXT's tokens: a square image's overview and 2 x 2 tiles."""
    tiles = 5
    tokens = tiles * shape.vision.patches
    return shape.model_copy(
        update={
            "name": f"{shape.name}-next",
            "family": "llava_next",
            "visual_tokens": tokens,
            "newline_tokens": 2 * shape.vision.rows_and_columns[0],
            "tiles": tiles,
            "projector_tokens": tokens,
        }
    )


SMALL_NEXT, TINY_NEXT = _as_next(SMALL), _as_next(TINY)

NAMES = (
    "small",
    "small-next",
    "llava-1.5-7b",
    "llava-1.5-13b",
    "llava-next-7b",
    "tiny",
    "tiny-next",
)

_LLAVA_SCHEDULES = ("visiondrop:64", "visiondrop:32", "desap:64", "fastv:64", "pyramiddrop:64")
_NEXT_SCHEDULES = ("visiondrop:320", "desap:320", "fastv:320", "pyramiddrop:320")


def named_shape(name: str) -> Shape:
    """Return a shape that models are built of.

    Args:
        name: One of `NAMES`.

    Returns:
        The shape.

    Raises:
        UnsupportedModelError: No model is built of that name.
    """
    if name not in NAMES:
        raise UnsupportedModelError(f"--shape is {name!r}; models are built for {', '.join(NAMES)}")
    own = {shape.name: shape for shape in (SMALL, SMALL_NEXT, TINY, TINY_NEXT)}
    return own.get(name) or preset(name)


def default_schedules(shape: Shape) -> tuple[str, ...]:
    """List the methods at the visual tokens of their published figures, as ``method:tokens``."""
    return _NEXT_SCHEDULES if shape.family == "llava_next" else _LLAVA_SCHEDULES
