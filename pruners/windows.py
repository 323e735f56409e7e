"""Choosing tokens window by window of the image (VScan, arXiv 2505.22654)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pruners.errors import ScheduleMismatchError
from pruners.selection import add_top_tokens


def top_tokens_of_windows(
    local: Tensor, scores: Tensor, count: int, *, share: float, windows: int
) -> Tensor:
    """Choose the best tokens of each window, and the best of all others (VScan's encoder stage).

    Every window gives ``int(share * count) // windows ** 2`` tokens, or all that it has.

    Args:
        local: Scores that windows are judged by, of a square grid of patches row by row, (batch,
            patches).
        scores: Scores that choose the rest, (batch, patches).
        count: Tokens to choose per sample, at most `patches`.
        share: Share of them that windows choose, in [0, 1]; VScan: 0.5.
        windows: Windows along each side, as far as there are patches; VScan: 4. Where they do not
            divide the side, some are a patch larger than others.

    Returns:
        Indices of the chosen tokens in rising order, (batch, count).

    Raises:
        ScheduleMismatchError: The patches do not form a square.
    """
    patches = local.shape[-1]
    side = math.isqrt(patches)
    if side * side != patches:
        raise ScheduleMismatchError(
            f"local windows need a square grid of patches, but there are {patches} tokens; use "
            "them at layer 0 of a model with square images"
        )
    windows = min(windows, side)
    quota = int(share * count) // windows**2
    # Rows, and columns alike, of patches in each row of windows.
    sizes = [
        _first(place + 1, side, windows) - _first(place, side, windows) for place in range(windows)
    ]
    taken = sum(min(quota, rows * columns) for rows in sizes for columns in sizes)

    # Sorted by score and then, stably, by window: windows one after the other, each best first.
    cell = torch.arange(side, device=local.device) * windows // side
    window_of = (cell.unsqueeze(1) * windows + cell).flatten()  # patches
    by_score = local.argsort(dim=-1, descending=True, stable=True)
    by_window = by_score.gather(-1, window_of[by_score].argsort(dim=-1, stable=True))
    in_order = window_of.sort().values
    place_in_window = torch.arange(patches, device=local.device) - torch.searchsorted(
        in_order, in_order
    )
    # Places of the best of all windows come first, which are as many whatever the scores.
    places = (place_in_window >= quota).to(torch.uint8).argsort(stable=True)[:taken]
    chosen = by_window[:, places]
    return add_top_tokens(chosen, scores, count - taken)


def _first(window: int, side: int, windows: int) -> int:
    """Return the first row of patches in a row of windows."""
    return -(-window * side // windows)
