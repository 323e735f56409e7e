"""The sequences of a call before anything is dropped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pruners.batch import Batch
from pruners.groups import Group
from pruners.prompt import Prompt
from pruners.sequence import Layout


def dense_batch(
    groups: Sequence[Group], prompt: Prompt, arguments: Mapping[str, Any], position_axes: int
) -> Batch:
    """Lay out the prompts as the decoder is given them.

    Args:
        groups: The groups of the prompts.
        prompt: The prompts.
        arguments: Arguments of the decoder, whose mask and positions are used where it has them.
        position_axes: Axes of a position.

    Returns:
        The sequences, with all their tokens.
    """
    mask = arguments.get("attention_mask") if prompt.real is not None else None
    position_ids = arguments.get("position_ids")
    if position_ids is not None:
        # Qwen's models put the text's positions before those of the axes.
        if position_ids.ndim == 3:
            position_ids = position_ids[-position_axes:]
        position_ids = position_ids.expand(*position_ids.shape[:-2], len(prompt), -1)
    layouts = tuple(
        Layout.dense(
            group.visual,
            prompt.length,
            None if position_ids is None else group.of(position_ids, dim=-2),
            None if mask is None else group.of(mask),
            in_one_piece=group.in_one_piece,
            end=prompt.end,
        )
        for group in groups
    )
    padding = tuple(min(map(prompt.padding, group.rows)) for group in groups)
    return Batch(tuple(groups), layouts, padding, prompt.padding_side)
