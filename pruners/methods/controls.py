"""Controls that every method should beat: random tokens, and a smaller image."""

from __future__ import annotations

from pruners.methods.base import Method, Needs, encoder_only
from pruners.schedule import Schedule
from pruners.scorers import Downsampling, Random
from pruners.shape import Shape
from pruners.stages import Stage


def random_tokens(tokens: int, shape: Shape) -> Schedule:
    """Make the schedule that keeps random patches, the same ones for every image.

    Args:
        tokens: Tokens to keep.
        shape: The model's shape.

    Returns:
        The schedule, with seed 0.
    """
    return encoder_only(Stage(layer=0, retention=1.0, scorer=Random()), tokens, shape)


def downsampled_image(tokens: int, shape: Shape) -> Schedule:
    """Make the schedule that shrinks the image until it has so few patches.

    Args:
        tokens: Most tokens to keep; the grid is h x h or h x (h + 1) patches.
        shape: The model's shape.

    Returns:
        The schedule.
    """
    return encoder_only(Stage(layer=0, retention=1.0, scorer=Downsampling()), tokens, shape)


RANDOM = Method("random", "random tokens", "control", random_tokens, control=True)
DOWNSAMPLING = Method(
    "downsampling",
    "smaller image",
    "control",
    downsampled_image,
    control=True,
    needs=Needs.OPEN_TOWER,
    instead="random",
)
