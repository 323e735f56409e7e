"""Strategies that are Optuna's samplers, as they come."""

from __future__ import annotations

from abc import abstractmethod
from importlib.util import find_spec
from typing import TYPE_CHECKING

from pruners.errors import SettingsError
from search.strategies.base import Proposal, SearchState, Strategy, blocks_holding
from search.strategies.seeding import trial_seed
from space.coding import SearchSpace
from space.parameters import Choice, Value
from studies.records import ORIGIN_ATTRIBUTE

if TYPE_CHECKING:
    import optuna
    from pydantic import JsonValue

# Optuna's defaults have changed between releases; a study must not change with them.
TPE_STARTUP_TRIALS = 10
TPE_CANDIDATES = 24
GP_STARTUP_TRIALS = 10
CMAES_STARTUP_TRIALS = 1
NSGA2_POPULATION = 50


class SamplerStrategy(Strategy):
    """Lets a sampler of Optuna propose.

    Every trial has a sampler of its own, seeded by its place in the study: a sampler's state is not
    stored, so that a continued study would otherwise start the same random sequence again. This way
    it proposes what the study would have been given without the interruption.

    Args:
        published_first: Whether the first trials are the published schedules at the same budget.
        samples_per_trial: Samples that a trial is measured on, rounded to whole blocks; None for
            the whole split.
    """

    def __init__(self, *, published_first: bool, samples_per_trial: int | None = None) -> None:
        self._published_first = published_first
        self._samples_per_trial = samples_per_trial
        self._first_points: dict[SearchSpace, dict[str, dict[str, Value]]] = {}

    @abstractmethod
    def sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        """Make the sampler of one trial.

        Args:
            seed: Its seed.

        Returns:
            The sampler, with every setting that matters pinned.
        """

    def propose(self, state: SearchState) -> Proposal | optuna.Trial:
        """Propose the next published schedule that is missing, then what the sampler says."""
        if self._published_first:
            points = self._published(state.space)
            done = _origins(state.study) | {each.origin for each in state.in_flight}
            for name, point in points.items():
                if name not in done:
                    return Proposal(point, self.blocks_of_a_trial(state), name)
        state.study.sampler = self.sampler(trial_seed(state))
        return state.study.ask()

    def blocks_of_a_trial(self, state: SearchState) -> int:
        """Return the number of blocks of every trial."""
        return blocks_holding(self._samples_per_trial, state.block_sizes)

    def _published(self, space: SearchSpace) -> dict[str, dict[str, Value]]:
        # Imported late, so that naming the strategies takes none of the methods.
        from search.first_trials import first_points

        if space not in self._first_points:
            self._first_points[space] = first_points(space)
        return self._first_points[space]


def _origins(study: optuna.Study) -> set[object]:
    """Return where the finished trials of a study come from."""
    from optuna.trial import TrialState

    finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return {trial.user_attrs.get(ORIGIN_ATTRIBUTE) for trial in finished}


class RandomSearch(SamplerStrategy):
    """Draws points uniformly; trials race. The independent baseline."""

    name = "random"
    races = True

    def sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        """Make the sampler of one trial."""
        from optuna.samplers import RandomSampler

        return RandomSampler(seed=seed)


class Tpe(SamplerStrategy):
    """The tree-structured Parzen estimator, multivariate; trials race.

    Source: Watanabe, "Tree-structured Parzen estimator" (2023), as in Optuna's `TPESampler`.
    """

    name = "tpe"
    races = True

    def sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        """Make the sampler of one trial."""
        from optuna.samplers import TPESampler

        return TPESampler(
            n_startup_trials=TPE_STARTUP_TRIALS,
            n_ei_candidates=TPE_CANDIDATES,
            multivariate=True,
            constant_liar=True,
            seed=seed,
        )

    def identity(self) -> dict[str, JsonValue]:
        """Say what decides its proposals."""
        return {
            "sampler": self.name,
            "startup_trials": TPE_STARTUP_TRIALS,
            "candidates": TPE_CANDIDATES,
            "multivariate": True,
            "constant_liar": True,
        }


class GaussianProcess(SamplerStrategy):
    """A Gaussian process with Matern 5/2 kernel and log expected improvement.

    Source: Optuna's `GPSampler`. Every trial is measured on the same samples, as its model has one
    noise for all; no trial leaves early.
    """

    name = "gp"

    def sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        """Make the sampler of one trial."""
        from optuna.samplers import GPSampler

        return GPSampler(n_startup_trials=GP_STARTUP_TRIALS, seed=seed)

    def identity(self) -> dict[str, JsonValue]:
        """Say what decides its proposals."""
        return {"sampler": self.name, "startup_trials": GP_STARTUP_TRIALS}


class CmaEs(SamplerStrategy):
    """The covariance matrix adaptation evolution strategy.

    Source: Hansen, "The CMA evolution strategy: a tutorial" (2016), as in Optuna's `CmaEsSampler`.
    Its state is in the study, but its random numbers depend on the numbers of failed trials too, so
    that an interruption changes them. No trial leaves early.

    Args:
        published_first: Whether the first trials are the published schedules at the same budget.
        samples_per_trial: Samples that a trial is measured on, rounded to whole blocks; None for
            the whole split.

    Raises:
        SettingsError: The package `cmaes` is not installed.
    """

    name = "cmaes"

    def __init__(self, *, published_first: bool, samples_per_trial: int | None = None) -> None:
        super().__init__(published_first=published_first, samples_per_trial=samples_per_trial)
        if find_spec("cmaes") is None:
            raise SettingsError(
                "the strategy cmaes needs the package cmaes, which is not installed; "
                "pip install cmaes, or choose another strategy"
            )

    def space(self, space: SearchSpace) -> SearchSpace:
        """Return the space.

        Raises:
            SettingsError: It has choices among names, which have no covariance.
        """
        choices = [each.name for each in space.parameters if isinstance(each, Choice)]
        if choices:
            raise SettingsError(
                f"the strategy cmaes searches numbers only, but the {space.vocabulary.name} space "
                f"chooses among names ({', '.join(choices)}); choose another strategy, or the "
                "mission space"
            )
        return space

    def sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        """Make the sampler of one trial."""
        from optuna.samplers import CmaEsSampler

        return CmaEsSampler(n_startup_trials=CMAES_STARTUP_TRIALS, seed=seed)

    def identity(self) -> dict[str, JsonValue]:
        """Say what decides its proposals."""
        return {"sampler": self.name, "startup_trials": CMAES_STARTUP_TRIALS}


class Nsga2(SamplerStrategy):
    """The genetic algorithm NSGA-II, with one objective: the first generation is random.

    Source: Deb et al., "A fast and elitist multiobjective genetic algorithm: NSGA-II" (2002), as in
    Optuna's `NSGAIISampler`. No trial leaves early.
    """

    name = "nsga2"

    def sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        """Make the sampler of one trial."""
        from optuna.samplers import NSGAIISampler

        return NSGAIISampler(population_size=NSGA2_POPULATION, seed=seed)

    def identity(self) -> dict[str, JsonValue]:
        """Say what decides its proposals."""
        return {"sampler": self.name, "population": NSGA2_POPULATION}
