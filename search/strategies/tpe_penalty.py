"""What Optuna's manual leads to: every retention free, and the budget as a constraint."""

from __future__ import annotations

from typing import TYPE_CHECKING

from search.strategies.base import SearchState, Strategy, blocks_holding
from search.strategies.free_space import FreeSpace
from search.strategies.seeding import trial_seed
from space.coding import SearchSpace
from space.parameters import Parameter
from studies.records import note_samples, note_schedule

if TYPE_CHECKING:
    import optuna
    from pydantic import JsonValue

CONSTRAINT = "excess"
"""Name of the constraint: by which share of the budget a schedule exceeds it."""

STARTUP_TRIALS = 10
"""Trials before the estimator chooses: Optuna's default, pinned."""

INFEASIBLE = 0.0
"""What the study is told of a schedule above the budget. The sampler goes by the constraint."""


class TpePenalty(Strategy):
    """The tree-structured Parzen estimator with the budget as a constraint of Optuna's.

    This is what a user of Optuna alone would write: all retentions are free, no budget is solved,
    and a schedule above the budget violates a constraint by its excess. Its cost is known without
    measuring it, so that such a trial costs no samples, but it is a trial. Of uniformly drawn
    points of the embedded model's space, 93 % meet half of its visual tokens and 14 % an
    eighteenth; those that do leave some of the budget unspent.

    Args:
        trials: Trials after which nothing is proposed any more, infeasible ones included.
        samples_per_trial: Samples of each trial, rounded to whole blocks; None for the whole split.
    """

    name = "tpe-penalty"

    def __init__(self, trials: int, samples_per_trial: int | None = None) -> None:
        self._trials = trials
        self._samples_per_trial = samples_per_trial

    def space(self, space: SearchSpace) -> FreeSpace:
        """Return the space without a budget."""
        return FreeSpace(space)

    def propose(self, state: SearchState) -> optuna.Trial | None:
        """Finish infeasible trials until the sampler proposes a feasible one."""
        from optuna.samplers import TPESampler

        assert isinstance(state.space, FreeSpace)
        for number in range(state.begun, self._trials):
            state.study.sampler = TPESampler(
                n_startup_trials=STARTUP_TRIALS, seed=trial_seed(state, number)
            )
            trial = state.study.ask()
            for dimension in state.space.parameters:
                if isinstance(dimension, Parameter):
                    trial.suggest_float(dimension.name, dimension.low, dimension.high)
                else:
                    trial.suggest_categorical(dimension.name, dimension.options)
            schedule = state.space.decode(trial.params)
            excess = state.space.excess(schedule)
            trial.set_constraint(CONSTRAINT, excess)
            if excess <= 0:
                return trial
            note_schedule(trial, schedule, within_budget=False)
            note_samples(trial, 0)
            state.study.tell(trial, INFEASIBLE)
        return None

    def blocks_of_a_trial(self, state: SearchState) -> int:
        """Return the blocks of every feasible trial."""
        return blocks_holding(self._samples_per_trial, state.block_sizes)

    def identity(self) -> dict[str, JsonValue]:
        """Say what decides its proposals."""
        return {"sampler": self.name, "startup_trials": STARTUP_TRIALS}
