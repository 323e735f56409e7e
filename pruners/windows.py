"""Choosing tokens window by window of the image (VScan, arXiv 2505.22654)."""

from __future__ import annotations

import math
from itertools import accumulate, groupby

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
    cells = [place * windows // side for place in range(side)]
    window_of = [row * windows + column for row in cells for column in cells]
    quota = int(share * count) // windows**2

    # Sorted by score and then, stably, by window: windows one after the other, each best first.
    by_score = local.argsort(dim=-1, descending=True, stable=True)
    window = torch.tensor(window_of, device=local.device)[by_score]
    by_window = by_score.gather(-1, window.argsort(dim=-1, stable=True))
    sizes = [len(list(group)) for _, group in groupby(sorted(window_of))]
    places = [
        end - size + place
        for size, end in zip(sizes, accumulate(sizes), strict=True)
        for place in range(min(quota, size))
    ]
    chosen = by_window[:, places]
    return add_top_tokens(chosen, scores, count - len(places))
