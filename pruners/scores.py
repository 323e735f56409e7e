"""The scores of a stage, one per token, or two that share the tokens between them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Scores:
    """What a stage orders its tokens by.

    Attributes:
        first: Scores, float32, (batch, tokens).
        second: Scores that choose among what the first have left; None for one score.
        first_count: Tokens that the first choose, where there are second ones.
    """

    first: Tensor
    second: Tensor | None = None
    first_count: int = 0

    def map(self, change: Callable[[Tensor], Tensor]) -> Scores:
        """Change both scores alike."""
        second = None if self.second is None else change(self.second)
        return Scores(change(self.first), second, self.first_count)

    def of_origin(self, origin: Tensor) -> Scores:
        """Hand out patches' scores to the tokens that come from them.

        Args:
            origin: Patch that each token is or was merged into, -1 for the CLS token, (batch,
                visual).

        Returns:
            Scores of the tokens; the CLS token, once kept, stays.
        """

        def pick(scores: Tensor) -> Tensor:
            scores = scores.to(origin.device).gather(1, origin.clamp(min=0))
            return scores.masked_fill(origin < 0, torch.inf)

        return self.map(pick)
