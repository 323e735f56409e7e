"""What decoder layers get instead of the arguments that the model passes them."""

from __future__ import annotations

from typing import Any

from torch import Tensor


def with_positions(
    kwargs: dict[str, Any], rotation: tuple[Tensor, Tensor] | None, attention_mask: Any
) -> dict[str, Any]:
    """Give a decoder layer its own stage's positions and mask.

    Args:
        kwargs: Arguments of the layer.
        rotation: Cosines and sines at the stage's positions; None before the first decoder stage.
        attention_mask: What the stage's attention gets.

    Returns:
        The arguments. Position ids are left out: rotations are all that they are for, and flash
        attention would read ids with gaps as packed sequences.
    """
    kwargs = {**kwargs, "position_ids": None}
    if rotation is not None:
        kwargs["position_embeddings"] = rotation
        kwargs["attention_mask"] = attention_mask
    return kwargs
