"""The program's own strategy: few samples on many schedules, more on those that may be the best.

A Gaussian process predicts what schedules are worth from those measured, at all budgets of a run
together. Each trial draws one guess of all values from it (Thompson sampling [Thompson1933]) and
measures the schedule that the guess calls best, a new one on a block or two of samples, one known
already on half as many again; what other workers measure is left to them. Compared are
probabilities of the dense model's answers, not right answers: they tell schedules apart with fewer
samples. It ends when measuring everything perfectly could be expected to gain less than a
threshold.

[Thompson1933] Thompson: On the likelihood that one unknown probability exceeds another, 1933.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from pruners.schedule import Schedule
from search.strategies.base import Proposal, SearchState, Signal, Strategy, Tried
from search.strategies.block_effects import adjust
from search.strategies.candidates import Candidate, neighbours, starting_candidates
from search.strategies.schedule_features import schedule_features
from search.strategies.seeding import trial_seed
from search.strategies.surrogate import Posterior, Surrogate
from space.parameters import Value

RANDOM_CANDIDATES = 300
NEIGHBOURS = 8
"""Candidates drawn anew for each trial, near the best schedules measured."""

PARENTS = 4
SHORT_LIST = 150
"""Candidates that are drawn together; the others are too unlikely to be the best."""

DRAWS = 200
"""Draws by which the gain of more trials is expected."""

FEWEST_TRIED = 10
"""Schedules measured before a search may end by itself."""

_NEW_SHARE = 80
_KNOWN_SHARE = 40
"""A trial is given this fraction of the blocks measured so far, so that trials stay few."""


@dataclass(frozen=True)
class _Option:
    """A candidate with what the surrogate needs to know of it."""

    candidate: Candidate
    measured: str
    features: NDArray[np.float64]


class AdaptiveStrategy(Strategy):
    """Thompson sampling from a Gaussian process over schedules, shared by a run's budgets.

    Args:
        least_gain: In the unit of the signal that is measured; the search ends when more trials are
            expected to gain less. 0 lets it go on.
    """

    name = "adaptive"
    signal: Signal = "answer-probability"
    block_size = 25
    shares_budgets = True

    def __init__(self, least_gain: float = 0.0) -> None:
        self.least_gain = least_gain
        # What a state determines, kept because working it out takes long.
        self._pools: dict[tuple[str, int], list[_Option]] = {}
        self._known: dict[tuple[str, str], _Option] = {}

    def propose(self, state: SearchState) -> Proposal | None:
        """Choose what to measure next; None when little is left to gain."""
        pool = self._pool(state)
        busy = {each.measured for each in state.in_flight}
        if not state.tried:
            first = next((option for option in pool if option.measured not in busy), None)
            if first is None:
                return None
            return Proposal(first.candidate.point, 1, first.candidate.origin)
        generator = np.random.default_rng(trial_seed(state))
        belief = self._belief(state)
        best = belief.best_points(PARENTS)
        near = neighbours(best, state.space.parameters, NEIGHBOURS, generator)
        options = belief.short_list([*pool, *(_option(each, state) for each in near)])
        posterior = belief.of_options(options)
        draws = posterior.draws(DRAWS, generator)
        # What knowing all values would gain over the schedule that is expected to be best.
        gain = float((draws.max(axis=1) - draws[:, int(posterior.means.argmax())]).mean())
        if gain < self.least_gain and len(state.tried) >= FEWEST_TRIED:
            return None
        return _most_promising(state, belief, options, draws[0], busy)

    def ranking(self, state: SearchState) -> Sequence[Tried]:
        """Order the schedules measured by their expected values, best first."""
        if not state.tried:
            return []
        values = self._belief(state).values
        order = sorted(range(len(values)), key=lambda place: (-values[place], place))
        return [state.tried[place] for place in order]

    def identity(self) -> dict[str, JsonValue]:
        """Say what decides its proposals beside seed and history."""
        return {
            "sampler": self.name,
            "random_candidates": RANDOM_CANDIDATES,
            "neighbours": NEIGHBOURS,
        }

    def _belief(self, state: SearchState) -> _Belief:
        """Fit the surrogate to what is known at all budgets."""
        own = [self._option_of(tried, state) for tried in state.tried]
        others = [self._option_of(tried, other) for other in state.others for tried in other.tried]
        known = [*state.tried, *(tried for other in state.others for tried in other.tried)]
        return _Belief.of(own, others, known, state.block_sizes)

    def _option_of(self, tried: Tried, state: SearchState) -> _Option:
        key = (str(state.space.budget), tried.measured)
        if key not in self._known:
            measured = state.measured_form(tried.schedule)
            self._known[key] = _described(Candidate(tried.point), measured, state)
        return self._known[key]

    def _pool(self, state: SearchState) -> list[_Option]:
        key = (str(state.space.budget), state.seed)
        if key not in self._pools:
            found: dict[str, _Option] = {}
            for candidate in starting_candidates(state.space, RANDOM_CANDIDATES, state.seed):
                option = _option(candidate, state)
                found.setdefault(option.measured, option)
            self._pools[key] = list(found.values())
        return self._pools[key]


@dataclass(frozen=True)
class _Belief:
    """What the schedules measured say, at this budget and the others.

    Attributes:
        tried: Those of this budget, with features, as options.
        blocks: Blocks that each has been measured on, by its hash.
        values: Their expected values.
        surrogate: The surrogate, fitted to those of all budgets; this budget's come first.
    """

    tried: tuple[_Option, ...]
    blocks: Mapping[str, int]
    values: NDArray[np.float64]
    surrogate: Surrogate

    @classmethod
    def of(
        cls,
        own: Sequence[_Option],
        others: Sequence[_Option],
        known: Sequence[Tried],
        block_sizes: Sequence[int],
    ) -> _Belief:
        """Fit the surrogate.

        Args:
            own: Schedules measured at this budget.
            others: Schedules measured at other budgets.
            known: What was measured of both, in the same order.
            block_sizes: Samples of each block.

        Returns:
            What it says.
        """
        features = np.array([option.features for option in (*own, *others)])
        adjusted = adjust([tried.signals for tried in known], block_sizes)
        surrogate = Surrogate(features, adjusted.means, adjusted.variances)
        values = surrogate.means(features[: len(own)], np.arange(len(own)))
        blocks = {tried.measured: tried.blocks for tried in known[: len(own)]}
        return cls(tuple(own), blocks, values, surrogate)

    def best_points(self, number: int) -> list[Mapping[str, Value]]:
        """Return the points of the best schedules measured."""
        order = np.argsort(-self.values)[:number]
        return [self.tried[place].candidate.point for place in order]

    def short_list(self, options: Sequence[_Option]) -> list[_Option]:
        """Return the options that may well be the best, those measured first."""
        new: dict[str, _Option] = {}
        for option in options:
            if option.measured not in self.blocks:
                new.setdefault(option.measured, option)
        fresh = list(new.values())
        kept = list(np.array(self.tried, dtype=object)[np.argsort(-self.values)[:SHORT_LIST]])
        if fresh:
            means, deviations = self.surrogate.expected(
                np.array([option.features for option in fresh])
            )
            order = np.argsort(-(means + 2 * deviations))[:SHORT_LIST]
            kept += [fresh[place] for place in order]
        return kept

    def of_options(self, options: Sequence[_Option]) -> Posterior:
        """Return what is believed of options."""
        places = {option.measured: place for place, option in enumerate(self.tried)}
        measured = np.array([places.get(option.measured, -1) for option in options])
        return self.surrogate.posterior(np.array([option.features for option in options]), measured)


def _most_promising(
    state: SearchState,
    belief: _Belief,
    options: Sequence[_Option],
    drawn: NDArray[np.float64],
    busy: Set[str],
) -> Proposal | None:
    """Return the option with the highest drawn value that is not busy nor wholly known."""
    total = len(state.block_sizes)
    spent = state.samples * total // sum(state.block_sizes)
    for place in np.argsort(-drawn):
        option = options[place]
        known = belief.blocks.get(option.measured, 0)
        if known < total and option.measured not in busy:
            share = _KNOWN_SHARE if known else _NEW_SHARE
            more = max(1, known // 2, spent // share)
            origin = None if known else option.candidate.origin
            return Proposal(option.candidate.point, min(total, known + more), origin)
    return None


def _option(candidate: Candidate, state: SearchState) -> _Option:
    schedule = state.space.decode(candidate.point)
    return _described(candidate, state.measured_form(schedule), state)


def _described(candidate: Candidate, measured: Schedule, state: SearchState) -> _Option:
    shape = measured.shape or state.space.shape
    features = schedule_features(measured, candidate.point, state.space.parameters, shape)
    return _Option(candidate, measured.content_hash, features)
