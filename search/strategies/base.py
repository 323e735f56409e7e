"""What a strategy is: it chooses which schedule is measured next, and on how many samples."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from pruners.schedule import Schedule
from space.coding import SearchSpace
from space.parameters import Value

if TYPE_CHECKING:
    import optuna
    from pydantic import JsonValue

    from search.evaluators import Evaluator

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
        value: What the study was told of it: the mean of its signals; where these are accuracies
            and all blocks are known, its relative accuracy on the whole split; a prediction of
            that where the race was left. None for the mean of the signals.
    """

    trial: int
    point: Mapping[str, Value]
    schedule: Schedule
    measured: str
    accuracies: NDArray[np.float64]
    signals: NDArray[np.float64]
    raced_out: bool = False
    within_budget: bool = True
    value: float | None = None

    @property
    def blocks(self) -> int:
        """How many blocks it has been measured on."""
        return len(self.accuracies)

    @property
    def estimate(self) -> float:
        """Its value; the mean of its signals where it has none."""
        if self.value is not None:
            return self.value
        return float(self.signals.mean()) if len(self.signals) else float("-inf")


@dataclass(frozen=True)
class InFlight:
    """A schedule that a worker measures now.

    Attributes:
        point: Its point in the strategy's space.
        measured: Content hash of the schedule as the measured model runs it.
        origin: Where its trial comes from; None for the strategy itself.
    """

    point: Mapping[str, Value]
    measured: str
    origin: str | None = None


def _itself(schedule: Schedule) -> Schedule:
    return schedule


@dataclass(frozen=True)
class SearchState:
    """All that a strategy may know when it chooses.

    Attributes:
        space: The strategy's own space (`Strategy.space`), in which it proposes.
        study: The Optuna study in which trials are kept.
        seed: Seed of the search.
        trials: Trials that have finished.
        block_sizes: Samples of each block of the search split.
        samples: Samples scored by finished trials.
        limit: Samples that trials may score in all, at `others`' budgets too; None for no limit.
        tried: What has been measured at this budget, in order of the first trial.
        others: What has been measured at the other budgets of a run that shares them, in the order
            of the budgets; their own `others` are left out.
        measured_form: Tells what is measured in a schedule's place; schedules with the same form
            behave alike and are measured once.
        in_flight: What other workers measure at this budget while the strategy chooses.
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
    measured_form: Callable[[Schedule], Schedule] = _itself
    in_flight: tuple[InFlight, ...] = ()

    @property
    def begun(self) -> int:
        """Trials that have finished or are under way."""
        return self.trials + len(self.in_flight)

    @property
    def left(self) -> int | None:
        """Samples that may still be scored; None for no limit."""
        if self.limit is None:
            return None
        return max(0, self.limit - self.samples - sum(other.samples for other in self.others))


@dataclass(frozen=True)
class Proposal:
    """A schedule to measure.

    Attributes:
        point: Its point in the strategy's space.
        blocks: On how many blocks it shall be known afterwards; those already measured cost
            nothing. What has left the race is not measured further.
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

    block_size: int = 50
    """Samples per block of the search split, unless the settings say otherwise."""

    shares_budgets: bool = False
    """Whether the budgets of a run are searched together, in turn, each seeing the others."""

    def space(self, space: SearchSpace) -> SearchSpace:
        """Return the space that the strategy proposes in; the given one unless it needs another."""
        return space

    def prepare(self, evaluator: Evaluator) -> None:  # noqa: B027 (most need nothing)
        """Take what it must know of the measured model; called before a search.

        Args:
            evaluator: What measures schedules.

        Raises:
            SettingsError: The model cannot give what the strategy needs.
        """

    @abstractmethod
    def propose(self, state: SearchState) -> Proposal | optuna.Trial | None:
        """Choose what to measure next.

        Args:
            state: What is known.

        Returns:
            A proposal; or a trial that was asked of `state.study`, whose sampler fills it in, to be
            measured on as many blocks as `blocks_of_a_trial` says; or None when nothing more is
            worth measuring, or what is in flight must be known first.
        """

    def blocks_of_a_trial(self, state: SearchState) -> int:
        """Return on how many blocks a trial that a sampler has filled in is measured."""
        return len(state.block_sizes)

    def ranking(self, state: SearchState) -> Sequence[Tried]:
        """Order what has been measured, best first, for choosing the incumbent.

        By default these are the schedules known on the most blocks, by their estimate; of equals
        the one tried first. Schedules known on fewer follow; those above the budget and those that
        left the race are left out.
        """
        return sorted(
            (tried for tried in state.tried if tried.within_budget and not tried.raced_out),
            key=lambda tried: (-tried.blocks, -tried.estimate, tried.trial),
        )

    def identity(self) -> dict[str, JsonValue]:
        """Say what decides its proposals beside seed and history, for the study's identity."""
        return {"sampler": self.name}


def blocks_holding(samples: int | None, block_sizes: Sequence[int]) -> int:
    """Round a number of samples to whole blocks.

    Args:
        samples: Samples; None for all.
        block_sizes: Samples of each block.

    Returns:
        How many of the first blocks hold the number nearest to it; at least 1.
    """
    if samples is None:
        return len(block_sizes)
    distances = np.abs(np.cumsum(block_sizes) - samples)
    return int(distances.argmin()) + 1
