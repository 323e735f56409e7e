"""What a strategy is: it chooses which schedule is measured next, and on how many samples."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from pruners.schedule import Schedule
from space.coding import SearchSpace
from space.parameters import Value

if TYPE_CHECKING:
    import optuna

Signal = Literal["accuracy", "answer-probability", "hidden-agreement"]
"""What a strategy compares schedules by, as a mean over samples.

`accuracy` is the relative accuracy. `answer-probability` is the probability that the pruned model
gives to the dense model's answer. `hidden-agreement` is the cosine between the hidden states behind
the decoder's last norm at the prompt's last token, pruned and dense (VFlowOpt's objective).
"""


@dataclass(frozen=True)
class Tried:
    """What is known of a schedule that has been measured.

    Attributes:
        trial: Number of the trial that measured it first.
        point: Its point in the strategy's space.
        schedule: The schedule, for the target and priced there.
        measured: Content hash of the schedule as the measured model runs it.
        accuracies: Relative accuracy on each block measured, from block 0 on, `(blocks,)`.
        signals: Mean of the strategy's signal on the same blocks, `(blocks,)`; the accuracies
            themselves where that is the signal.
        raced_out: Whether its trial ended early because it was losing.
        within_budget: Whether it may be exported; some strategies measure others on their way.
    """

    trial: int
    point: Mapping[str, Value]
    schedule: Schedule
    measured: str
    accuracies: NDArray[np.float64]
    signals: NDArray[np.float64]
    raced_out: bool = False
    within_budget: bool = True

    @property
    def blocks(self) -> int:
        """How many blocks it has been measured on."""
        return len(self.accuracies)


@dataclass(frozen=True)
class SearchState:
    """All that a strategy may know when it chooses.

    Attributes:
        space: The schedules to choose from, all of which meet the budget.
        study: The Optuna study in which trials are kept.
        seed: Seed of the search.
        trials: Trials that have finished.
        block_sizes: Samples of each block of the search split.
        samples: Samples scored by finished trials.
        limit: Samples that trials may score in all; None for no limit.
        tried: What has been measured at this budget, in order of the first trial.
        others: What has been measured at other budgets of the same run.
    """

    space: SearchSpace
    study: optuna.Study
    seed: int
    trials: int
    block_sizes: tuple[int, ...]
    samples: int
    limit: int | None
    tried: tuple[Tried, ...]
    others: tuple[SearchState, ...] = ()

    @property
    def left(self) -> int | None:
        """Samples that may still be scored; None for no limit."""
        return None if self.limit is None else max(0, self.limit - self.samples)


@dataclass(frozen=True)
class Proposal:
    """A schedule to measure.

    Attributes:
        point: Its point in the strategy's space.
        blocks: On how many blocks it shall be known afterwards; those already measured cost
            nothing.
        origin: Where it comes from, for the study's table; None for the strategy itself.
    """

    point: Mapping[str, Value]
    blocks: int
    origin: str | None = None


class Strategy(ABC):
    """Chooses what a search measures. Decides nothing from anything but the state it is given."""

    name: str
    """Name by which users choose it."""

    signal: Signal = "accuracy"
    """What it compares schedules by."""

    races: bool = False
    """Whether a trial ends early when it loses against the best one by the paired test."""

    def space(self, space: SearchSpace) -> SearchSpace:
        """Return the space that the strategy proposes in; the given one unless it needs another."""
        return space

    @abstractmethod
    def propose(self, state: SearchState) -> Proposal | optuna.Trial | None:
        """Choose what to measure next.

        Args:
            state: What is known.

        Returns:
            A proposal; or a trial that an Optuna sampler has filled in, to be measured on as many
            blocks as `blocks_of_a_trial` says; or None when nothing more is worth measuring.
        """

    def blocks_of_a_trial(self, state: SearchState) -> int:
        """Return on how many blocks a trial that a sampler has filled in is measured."""
        return len(state.block_sizes)

    def ranking(self, state: SearchState) -> Sequence[Tried]:
        """Order what has been measured, best first, for choosing the incumbent.

        By default these are the schedules known on the most blocks, by the mean of their signal;
        of equals the one tried first. Schedules known on fewer follow; those above the budget are
        left out.
        """
        return sorted(
            (tried for tried in state.tried if tried.within_budget),
            key=lambda tried: (-tried.blocks, -_mean(tried.signals), tried.trial),
        )


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if len(values) else float("-inf")
