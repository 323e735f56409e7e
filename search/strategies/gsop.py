"""GSOP, reconstructed: deletions sorted by the loss they cause; any budget is a prefix."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from search.strategies.base import Proposal, SearchState
from search.strategies.free_space import FreeSpace
from search.strategies.off_budget import OffBudgetStrategy
from search.strategies.replay import Course, Point, next_point
from search.strategies.spending import afford
from search.strategies.staircases import Step, equal_segments, schedule_of_steps
from space.flops import dense_cost

MOST_GROUPS = 8
"""Token groups; with four segments there are 32 deletions."""

MOST_TRIALS = 200
"""About what all re-sorts need together."""

DEPTH = 0.5
"""How far the deletions reach: the last level has this share of the budget's tokens."""


class Deletion(NamedTuple):
    """One operation: the next group of tokens no longer runs through a segment of layers.

    Attributes:
        segment: Number of the segment.
        group: Number of the group, from the least important one.
    """

    segment: int
    group: int


class Gsop(OffBudgetStrategy):
    """Sorts the deletions by the score that each costs, and takes as many as the budget asks for.

    Source: Zhang et al., arXiv 2507.02909, and its public code as described there; written anew.
    The method scores the deletion of each (layer, token group, operation), sorts them by loss, and
    re-sorts what is left 15 to 20 times along the way. Any budget is a prefix of the order.

    What differs here: our runtime prunes tokens, which leave for good, so that an operation is the
    rest of the decoder for a group, not one attention or feed-forward block; layers are grouped
    into the segments that a schedule of the space can have; groups are not of equal size but shrink
    to `DEPTH` of the budget in equal ratios, and losses are per token and layer. As a token that is
    gone stays gone, a deletion within one segment cannot be measured alone: its loss is the
    difference between two schedules that cut from this segment on and from the next one on. After
    each sort, the prefix that meets the budget is measured, scaled to spend it; then the second
    half of it is put back and sorted anew, until one deletion is left.

    Args:
        samples_per_trial: Samples of each trial, rounded to whole blocks; None for the whole split,
            or for less where that is too much for the samples that may be scored.
    """

    name = "gsop"

    def propose(self, state: SearchState) -> Proposal | None:
        """Propose the next schedule that sorting needs; None when nothing is left to sort."""
        assert isinstance(state.space, FreeSpace)
        spending = afford(state, self.samples_per_trial, MOST_TRIALS)
        segments = len(equal_segments(state.space))
        # Besides one sort, there is the dense model and the schedule at the budget.
        groups = max(1, min(MOST_GROUPS, (spending.trials - 2) // segments))
        point = next_point(Deletions(state.space, groups).course(), state)
        return None if point is None else Proposal(point, spending.blocks)


class Deletions:
    """The deletions that a space's schedules are made of, and how they are sorted.

    Args:
        space: The space that deletions are tried in.
        groups: Token groups.
    """

    def __init__(self, space: FreeSpace, groups: int) -> None:
        self._space = space
        self.segments = equal_segments(space)
        self.groups = groups
        share = space.budget.limit(space.shape) / space.budget.amount(dense_cost(space.shape))
        self.levels = np.geomspace(1.0, DEPTH * share, groups + 1)
        """Share of the tokens left after each number of groups, `(groups + 1,)`."""

    @property
    def layers(self) -> NDArray[np.intp]:
        """Layers of each segment, `(segments,)`."""
        return np.diff([*self.segments, self._space.shape.decoder_layers])

    def course(self) -> Course:
        """Sort, measure the prefix at the budget, put half of it back, and so on."""
        kept: list[Deletion] = []
        while True:
            losses = yield from self.losses(self.counts(kept))
            order = [*kept, *self.sorted(losses, self.counts(kept))]
            prefix = self.prefix(order)
            yield self._space.at_budget(self.point(self.counts(prefix)))
            left = len(prefix) - len(kept)
            if left <= 1:
                return
            kept = prefix[: len(kept) + left // 2]

    def losses(self, counts: Sequence[int]) -> Generator[Point, float, NDArray[np.float64]]:
        """Measure what each further deletion costs on top of some.

        Args:
            counts: Groups already deleted in each segment.

        Yields:
            Points to measure.

        Returns:
            Loss of deleting each group in each segment alone, `(segments, groups)`; 0 for those
            already deleted.
        """
        # cut[s, k] is the score when the segments from s on have lost k groups, if not more.
        shape = (len(self.segments) + 1, self.groups + 1)
        cut = np.empty(shape)
        for segment, groups in np.ndindex(*shape):
            after = [
                max(count, groups) if number >= segment else count
                for number, count in enumerate(counts)
            ]
            cut[segment, groups] = yield self.point(after)
        alone: NDArray[np.float64] = np.diff(cut[1:] - cut[:-1], axis=1)
        return alone

    def sorted(self, losses: NDArray[np.float64], counts: Sequence[int]) -> list[Deletion]:
        """Sort the deletions that are left, each after those that it rests on.

        A group leaves a segment after the less important groups, and after it has left all deeper
        segments, as it cannot come back.

        Args:
            losses: Loss of each deletion, `(segments, groups)`.
            counts: Groups already deleted in each segment.

        Returns:
            The deletions; at each place the one of those possible that costs least per token and
            layer.
        """
        saved = np.outer(self.layers, -np.diff(self.levels))
        rates = losses / saved
        done = list(counts)
        order: list[Deletion] = []
        while possible := [
            Deletion(segment, done[segment])
            for segment in range(len(done))
            if done[segment] < self.groups
            and (segment == len(done) - 1 or done[segment] < done[segment + 1])
        ]:
            # Of equals the deepest: it touches the fewest layers that follow.
            best = min(possible, key=lambda deletion: (rates[deletion], -deletion.segment))
            order.append(best)
            done[best.segment] += 1
        return order

    def prefix(self, order: Sequence[Deletion]) -> list[Deletion]:
        """Return the shortest prefix of an order that meets the budget; all of it if none does."""
        for length in range(len(order)):
            point = self.point(self.counts(order[:length]))
            if self._space.meets_budget(self._space.decode(point)):
                return list(order[:length])
        return list(order)

    def counts(self, deletions: Sequence[Deletion]) -> list[int]:
        """Count the groups that some deletions take from each segment."""
        segments = [deletion.segment for deletion in deletions]
        return [segments.count(number) for number in range(len(self.segments))]

    def point(self, counts: Sequence[int]) -> Point:
        """Find the point whose segments have lost so many groups each."""
        assert all(before <= after for before, after in pairwise(counts))
        steps = [
            Step(layer, float(self.levels[count]))
            for layer, count in zip(self.segments, counts, strict=True)
        ]
        return self._space.encode(schedule_of_steps(self._space, steps))
