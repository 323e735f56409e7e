"""Choosing a stage's dominant tokens by its selector."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from pruners.diversity import (
    deduplicated_tokens,
    determinantal_tokens,
    least_duplicated_tokens,
    most_distant_tokens,
)
from pruners.scores import Scores
from pruners.selection import top_tokens, top_tokens_of_two
from pruners.selectors import (
    Deduplicated,
    Determinantal,
    LeastDuplication,
    LocalWindows,
    MaxMinDistance,
    Selector,
    TopScores,
)
from pruners.windows import GridScores, top_tokens_of_windows


def choose_tokens(
    selector: Selector,
    scores: Scores,
    tokens: Callable[[], Tensor],
    count: int,
    *,
    local: Callable[[LocalWindows], GridScores],
    text_pivots: Callable[[int], Tensor | None],
) -> Tensor:
    """Choose tokens.

    Args:
        selector: How.
        scores: Scores of the tokens.
        tokens: What is compared, (batch, tokens, width); called if the selector compares tokens.
        count: Tokens to choose, fewer than there are.
        local: Scores that windows choose by; called if there are windows.
        text_pivots: Vectors of so many text pivots, (batch, pivots, width), or None; called if the
            selector has pivots.

    Returns:
        Indices in rising order, (batch, count).
    """
    first = scores.first
    if count == 0:
        return first.new_zeros((first.shape[0], 0)).long()
    match selector:
        case TopScores():
            if scores.second is None:
                return top_tokens(first, count)
            second_count = count - scores.first_count
            return top_tokens_of_two(first, scores.second, scores.first_count, second_count)
        case LocalWindows(share=share, windows=windows):
            return top_tokens_of_windows(
                local(selector), first, count, share=share, windows=windows
            )
        case Deduplicated(share=share, step=step):
            return deduplicated_tokens(tokens(), first, count, share=share, step=step)
        case Determinantal():
            return determinantal_tokens(tokens(), first, count)
        case MaxMinDistance():
            return most_distant_tokens(tokens(), count)
        case LeastDuplication(image_pivots=image_pivots, text_pivots=pivots):
            # A pivot behind as many as there are tokens to choose would choose none.
            text = text_pivots(min(pivots, count))
            return least_duplicated_tokens(
                tokens(), first, count, image_pivots=image_pivots, text=text
            )
