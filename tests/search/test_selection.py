from __future__ import annotations

import numpy as np
import pytest

from pruners.errors import DataError
from pruners.published import dense
from pruners.schedule import Schedule
from pruners.shape import LLAVA_1_5_7B
from search.analytic import ANALYTIC_SHAPE, AnalyticEvaluator
from search.baselines import published_at
from search.measured_form import as_measured
from search.measuring import Measurements
from search.outcomes import Candidate
from search.selection import confirm, score_split
from space.budgets import Budget
from space.coding import SearchSpace

SPACE = SearchSpace(LLAVA_1_5_7B, Budget("tokens", 136), decoder_stages=1, layer_step=4)


def _candidates(number: int) -> list[Candidate]:
    """Schedules that prune at another layer each, in the order of their values."""
    candidates = []
    for trial in range(number):
        point = {"boundary_1": (trial + 0.5) / number, "ratio_1": 0.3}
        schedule = SPACE.decode(point | {"contextual": 0.2, "similarity_weight": 0.3})
        measured = as_measured(schedule, ANALYTIC_SHAPE)
        candidates.append(Candidate(schedule, measured, 1 - trial / 100, trial))
    return candidates


def test_the_winner_is_the_best_on_the_confirm_split_whatever_the_search_said() -> None:
    candidates = _candidates(5)
    winner = confirm(Measurements(AnalyticEvaluator()), candidates)

    evaluator = AnalyticEvaluator()
    everything = range(len(evaluator.samples("confirm")))
    tasks = np.array([sample.task for sample in evaluator.samples("confirm")])
    reference = evaluator.score(dense(ANALYTIC_SHAPE), "confirm", everything)

    def relative(schedule: Schedule) -> float:
        scores = evaluator.score(schedule, "confirm", everything)
        ratios = [
            scores[tasks == task].mean() / reference[tasks == task].mean()
            for task in np.unique(tasks)
        ]
        return float(np.mean(ratios))

    values = [relative(candidate.measured) for candidate in candidates]
    assert len(set(values)) == len(values)
    assert winner == candidates[int(np.argmax(values))]
    assert winner != candidates[0]


def test_choosing_touches_no_other_split() -> None:
    evaluator = AnalyticEvaluator()
    measurements = Measurements(evaluator)
    confirm(measurements, _candidates(2))
    assert evaluator.scored == 3 * 300  # two candidates and dense


def test_all_schedules_are_scored_on_the_same_samples_in_their_order() -> None:
    evaluator, blocks = AnalyticEvaluator(), []
    schedules = {"dense": dense(LLAVA_1_5_7B), "searched": _candidates(1)[0].schedule}
    scores = score_split(Measurements(evaluator), schedules, "report", blocks.append)
    assert sum(blocks) == 500
    assert scores.tasks == tuple(sample.task for sample in evaluator.samples("report"))
    assert scores.images == tuple(sample.image for sample in evaluator.samples("report"))
    measured = as_measured(schedules["searched"], ANALYTIC_SHAPE)
    expected = evaluator.score(measured, "report", range(500))
    assert scores.by_schedule["searched"].tolist() == expected.tolist()


@pytest.mark.parametrize("share", [0.5, 0.33, 0.22])
def test_published_schedules_stand_at_the_budget_with_their_own_rules(share: float) -> None:
    budget = Budget("share", share)
    schedules = published_at(budget, LLAVA_1_5_7B)
    kinds = {
        name: [stage.scorer.kind for stage in schedule.stages]
        for name, schedule in schedules.items()
    }
    assert kinds == {
        "visiondrop": ["cls-attention", *["visual-self-attention"] * 3],
        "desap": ["similarity-fusion"],
    }
    limit = share * 9.064
    for schedule in schedules.values():
        assert schedule.cost is not None
        assert limit * 0.99 < schedule.cost.tflops <= limit


def test_a_split_on_which_the_dense_model_is_always_wrong_is_named() -> None:
    """Small splits are how users try things out, and three of them may be at fault."""
    measurements = Measurements(AnalyticEvaluator(), limits={"confirm": 5})  # one of each task
    with pytest.raises(DataError, match=r"^on the confirm split, the dense model scores 0 on "):
        confirm(measurements, _candidates(2))
