"""Strategies: how the schedules of a search are chosen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from search.strategies.adaptive import AdaptiveStrategy
from search.strategies.base import Strategy
from search.strategies.fitprune import FitPrune
from search.strategies.g_search import GSearch
from search.strategies.grid import Grid
from search.strategies.gsop import Gsop
from search.strategies.p_sigmoid import PSigmoid
from search.strategies.samplers import (
    CmaEs,
    GaussianProcess,
    Nsga2,
    RandomSearch,
    SamplerStrategy,
    Tpe,
)
from search.strategies.tpe_penalty import TpePenalty
from search.strategies.vflowopt import VFlowOpt

if TYPE_CHECKING:
    from search.settings import SearchSettings

__all__ = ["STRATEGIES", "StrategyEntry", "describe_strategies", "make_strategy"]


@dataclass(frozen=True)
class StrategyEntry:
    """A strategy that users can choose.

    Attributes:
        description: What it does, in a few words, for the help.
        make: Makes it from the settings of a search.
    """

    description: str
    make: Callable[[SearchSettings], Strategy]


def _sampled(kind: type[SamplerStrategy]) -> Callable[[SearchSettings], Strategy]:
    """Say how a strategy of Optuna's is made."""

    def make(settings: SearchSettings) -> Strategy:
        return kind(
            published_first=settings.starts_with_published,
            samples_per_trial=settings.samples_per_trial,
        )

    return make


# Modules of strategies import Optuna, SciPy and torch where they need them, so that naming the
# strategies in the help costs nothing.
STRATEGIES: Mapping[str, StrategyEntry] = MappingProxyType(
    {
        "adaptive": StrategyEntry(
            "a Gaussian process over schedules, few samples on each, the default",
            lambda settings: AdaptiveStrategy(settings.least_gain / 100),
        ),
        "tpe": StrategyEntry("Parzen estimator, with racing", _sampled(Tpe)),
        "random": StrategyEntry("random search with racing, a baseline", _sampled(RandomSearch)),
        "gp": StrategyEntry("Optuna's Gaussian process", _sampled(GaussianProcess)),
        "cmaes": StrategyEntry("Optuna's CMA-ES, on numbers only", _sampled(CmaEs)),
        "nsga2": StrategyEntry("Optuna's genetic algorithm NSGA-II", _sampled(Nsga2)),
        "grid": StrategyEntry(
            "exhaustive grid, coarse to fine", lambda settings: Grid(settings.samples_per_trial)
        ),
        "tpe-penalty": StrategyEntry(
            "TPE with the budget as a constraint instead of solved",
            lambda settings: TpePenalty(settings.trials, settings.samples_per_trial),
        ),
        "p-sigmoid": StrategyEntry(
            "one sigmoid over depth, its shape by a Gaussian process",
            lambda settings: PSigmoid(settings.samples_per_trial),
        ),
        "g-search": StrategyEntry(
            "bisects each segment's retention, shallow to deep",
            lambda settings: GSearch(settings.samples_per_trial),
        ),
        "vflowopt": StrategyEntry(
            "ratios at fixed layers, by agreement of hidden states",
            lambda settings: VFlowOpt(settings.samples_per_trial),
        ),
        "fitprune": StrategyEntry(
            "one schedule from the dense model's attention", lambda settings: FitPrune()
        ),
        "gsop": StrategyEntry(
            "deletions sorted by their loss", lambda settings: Gsop(settings.samples_per_trial)
        ),
    }
)
"""Strategies by the name that users choose them by, the default first."""


def make_strategy(settings: SearchSettings) -> Strategy:
    """Make the strategy that settings name.

    Args:
        settings: Settings of a search.

    Returns:
        The strategy.

    Raises:
        SettingsError: A package that it needs is missing.
    """
    return STRATEGIES[settings.strategy].make(settings)


def describe_strategies() -> str:
    """List all strategies with what they do, for the help."""
    return "; ".join(f"{name} ({entry.description})" for name, entry in STRATEGIES.items())
