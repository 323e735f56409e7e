"""The budget as a constraint: infeasible trials are finished, cost nothing, and never rank."""

from __future__ import annotations

import numpy as np
import optuna
from optuna.trial import TrialState

from pruners.shape import LLAVA_1_5_7B
from search.strategies.base import SearchState
from search.strategies.tpe_penalty import CONSTRAINT, TpePenalty
from space import SearchSpace, parse_budget

SPACE = SearchSpace(LLAVA_1_5_7B, parse_budget("50%"))


def asked(
    trials: int, study: optuna.Study, within: SearchSpace = SPACE
) -> list[optuna.trial.FrozenTrial]:
    """Feasible trials that are proposed, valued by the tokens of their last layer."""
    strategy = TpePenalty(trials, samples_per_trial=25)
    space = strategy.space(within)
    feasible = []
    while True:
        number = len(study.get_trials(states=(TrialState.COMPLETE,)))
        trial = strategy.propose(SearchState(space, study, 0, number, (25,) * 20, 0, None, ()))
        if trial is None:
            return feasible
        cost = space.decode(trial.params).cost
        assert cost is not None
        feasible.append(study.tell(trial, cost.visual_tokens_per_layer[-1] / 576))


def test_only_schedules_within_the_budget_are_proposed() -> None:
    study = optuna.create_study(direction="maximize")
    feasible = asked(60, study)
    assert len(study.trials) == 60
    assert 5 < len(feasible) < 55
    space = TpePenalty(60).space(SPACE)
    for trial in study.trials:
        cost = space.decode(trial.params).cost
        assert cost is not None
        within = cost.tflops <= 0.5 * cost.dense_tflops
        assert (trial.number in {each.number for each in feasible}) == within
        assert (trial.constraints[CONSTRAINT] <= 0) == within
        assert within or (trial.value == 0 and trial.user_attrs["samples"] == 0)
    assert study.best_trial.number in {each.number for each in feasible}


def test_the_sampler_learns_what_the_budget_allows() -> None:
    tight = SearchSpace(LLAVA_1_5_7B, parse_budget("32 tokens"))
    study = optuna.create_study(direction="maximize")
    feasible = asked(80, study, tight)
    space = TpePenalty(80).space(tight)
    generator = np.random.default_rng(0)
    points = [
        {each.name: generator.uniform(each.low, each.high) for each in space.parameters}
        for _ in range(300)
    ]
    by_chance = np.mean([space.meets_budget(space.decode(point)) for point in points])
    assert 0.05 < by_chance < 0.25
    assert sum(trial.number >= 20 for trial in feasible) / 60 > 2 * by_chance


def test_it_goes_on_as_it_would_have() -> None:
    whole = optuna.create_study(direction="maximize")
    asked(30, whole)
    parts = optuna.create_study(direction="maximize")
    asked(12, parts)
    asked(30, parts)
    assert [trial.params for trial in whole.trials] == [trial.params for trial in parts.trials]
