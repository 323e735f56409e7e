"""Strategies: the Optuna samplers that propose schedules."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from pydantic import JsonValue

from search.settings import Strategy

if TYPE_CHECKING:
    import optuna

# Optuna's defaults have changed between releases; a study must not change with them.
TPE_STARTUP_TRIALS = 10
TPE_CANDIDATES = 24

_SEEDS_PER_STUDY = 1  # words of randomness that a sampler is seeded with


def make_sampler(strategy: Strategy, seed: int, trial: int) -> optuna.samplers.BaseSampler:
    """Make the sampler that proposes one trial.

    Every trial has its own, seeded by its place in the study: a sampler's state is not stored, so
    that a continued study would otherwise start the same random sequence again. This way it
    proposes what the study would have been given without the interruption.

    Args:
        strategy: Name of the strategy.
        seed: Seed of the study.
        trial: How many trials the study has finished.

    Returns:
        The sampler.
    """
    from optuna.samplers import RandomSampler, TPESampler

    state = int(np.random.SeedSequence([seed, trial]).generate_state(_SEEDS_PER_STUDY)[0])
    if strategy == "random":
        return RandomSampler(seed=state)
    return TPESampler(
        n_startup_trials=TPE_STARTUP_TRIALS,
        n_ei_candidates=TPE_CANDIDATES,
        multivariate=True,
        constant_liar=True,
        seed=state,
    )


def strategy_settings(strategy: Strategy) -> dict[str, JsonValue]:
    """Say what decides a strategy's proposals beside seed and history.

    Args:
        strategy: Name of the strategy.

    Returns:
        The sampler's settings, for the study's identity.
    """
    if strategy == "random":
        return {"sampler": "random"}
    return {
        "sampler": "tpe",
        "startup_trials": TPE_STARTUP_TRIALS,
        "candidates": TPE_CANDIDATES,
        "multivariate": True,
        "constant_liar": True,
    }
