"""What strategies share that measure schedules off the budget on their way to one at it."""

from __future__ import annotations

from collections.abc import Sequence

from search.strategies.base import SearchState, Strategy, Tried
from search.strategies.free_space import FreeSpace
from space.coding import SearchSpace


class OffBudgetStrategy(Strategy):
    """Proposes in the space without a budget; what it finds is scaled to the budget in the end.

    Args:
        samples_per_trial: Samples of each trial, rounded to whole blocks; None for the whole split,
            or for less where that is too much for the samples that may be scored.
    """

    def __init__(self, samples_per_trial: int | None = None) -> None:
        self.samples_per_trial = samples_per_trial

    def space(self, space: SearchSpace) -> FreeSpace:
        """Return the space without a budget."""
        return FreeSpace(space)

    def ranking(self, state: SearchState) -> Sequence[Tried]:
        """Order what has been measured: first what spends the budget, then what it met on the way.

        A schedule on the way may be within the budget by far. It is not what the method is about,
        and of many measured on few samples one would look best by luck.
        """
        space = state.space
        assert isinstance(space, FreeSpace)
        return sorted(
            super().ranking(state), key=lambda tried: not space.spends_budget(tried.point)
        )
