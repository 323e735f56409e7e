"""Choosing tokens window by window of the image (VScan, arXiv 2505.22654)."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from pruners.selection import add_top_tokens


class GridScores(NamedTuple):
    """Scores of tokens that form a grid.

    Attributes:
        values: Scores row by row, (batch, rows * columns).
        rows: Rows of the grid.
        columns: Columns of the grid.
    """

    values: Tensor
    rows: int
    columns: int


def top_tokens_of_windows(
    local: GridScores, scores: Tensor, count: int, *, share: float, windows: int
) -> Tensor:
    """Choose the best tokens of each window, and the best of all others (VScan's encoder stage).

    Every window gives as many tokens as the others, ``int(share * count)`` over the number of
    windows, rounded down, or all that it has.

    Args:
        local: Scores that windows are judged by.
        scores: Scores that choose the rest, (batch, tokens).
        count: Tokens to choose per sample, at most `tokens`.
        share: Share of them that windows choose, in [0, 1]; VScan: 0.5.
        windows: Windows along each side, as far as there are tokens; VScan: 4. Where they do not
            divide a side, some are a token larger than others.

    Returns:
        Indices of the chosen tokens in rising order, (batch, count).
    """
    values, rows, columns = local
    down, across = min(windows, rows), min(windows, columns)
    quota = int(share * count) // (down * across)
    taken = sum(
        min(quota, high * wide)
        for high in _window_sizes(rows, down)
        for wide in _window_sizes(columns, across)
    )

    # Sorted by score and then, stably, by window: windows one after the other, each best first.
    device = values.device
    window_row = torch.arange(rows, device=device) * down // rows
    window_column = torch.arange(columns, device=device) * across // columns
    window_of = (window_row.unsqueeze(1) * across + window_column).flatten()  # tokens
    by_score = values.argsort(dim=-1, descending=True, stable=True)
    by_window = by_score.gather(-1, window_of[by_score].argsort(dim=-1, stable=True))
    in_order = window_of.sort().values
    place_in_window = torch.arange(len(in_order), device=device) - torch.searchsorted(
        in_order, in_order
    )
    # Places of the best of all windows come first, which are as many whatever the scores.
    places = (place_in_window >= quota).to(torch.uint8).argsort(stable=True)[:taken]
    chosen = by_window[:, places]
    return add_top_tokens(chosen, scores, count - taken)


def _window_sizes(side: int, windows: int) -> list[int]:
    """List how many tokens of a side fall into each of the windows along it."""
    starts = [-(-window * side // windows) for window in range(windows + 1)]
    return [end - start for start, end in pairwise(starts)]
