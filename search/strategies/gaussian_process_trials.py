"""Trials that Optuna's Gaussian process fills in, all measured on equally many samples."""

from __future__ import annotations

from typing import TYPE_CHECKING

from search.strategies.base import SearchState, Strategy
from search.strategies.seeding import trial_seed
from search.strategies.spending import Spending, afford

if TYPE_CHECKING:
    import optuna

_FEWEST_RANDOM = 3
_RANDOM_SHARE = 3  # at most a third of the trials are random, where that is more


class GaussianProcessTrials(Strategy):
    """Searches its space by Optuna's `GPSampler`; the first trials are random.

    Args:
        samples_per_trial: Samples of each trial, rounded to whole blocks; None for the whole split,
            or for less where that is too much for the samples that may be scored.
    """

    most_trials: int
    """Trials after which it has nothing more to propose."""

    most_random: int
    """Random trials that it begins with, where enough can be afforded."""

    def __init__(self, samples_per_trial: int | None = None) -> None:
        self.samples_per_trial = samples_per_trial

    def propose(self, state: SearchState) -> optuna.Trial | None:
        """Let the sampler choose; None after the last trial."""
        from optuna.samplers import GPSampler

        if state.begun >= self.most_trials:
            return None
        affordable = self._spending(state).trials
        startup = min(self.most_random, max(_FEWEST_RANDOM, affordable // _RANDOM_SHARE))
        state.study.sampler = GPSampler(n_startup_trials=startup, seed=trial_seed(state))
        return state.study.ask()

    def blocks_of_a_trial(self, state: SearchState) -> int:
        """Return the blocks of every trial."""
        return self._spending(state).blocks

    def _spending(self, state: SearchState) -> Spending:
        return afford(state, self.samples_per_trial, self.most_trials)
