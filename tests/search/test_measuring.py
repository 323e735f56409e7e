from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pruners.errors import SettingsError
from pruners.published import dense, published
from pruners.schedule import Schedule
from pruners.shape import LLAVA_1_5_7B
from search.analytic import ANALYTIC_SHAPE, AnalyticEvaluator
from search.measured_form import as_measured
from search.measuring import Measurements
from search.sample_limits import equal_shares
from space.budgets import Budget
from space.coding import SearchSpace

SPACE = SearchSpace(LLAVA_1_5_7B, Budget("share", 0.3), decoder_stages=3, layer_step=4)
POINTS = st.fixed_dictionaries(
    {parameter.name: st.floats(parameter.low, parameter.high) for parameter in SPACE.parameters}
)


@given(point=POINTS)
def test_what_is_measured_is_what_the_exported_schedule_does_on_the_model(
    point: dict[str, float],
) -> None:
    schedule = SPACE.decode(point)
    scaled, measured = schedule.scaled_to(ANALYTIC_SHAPE), as_measured(schedule, ANALYTIC_SHAPE)
    tokens = ANALYTIC_SHAPE.visual_tokens
    assert measured.visual_tokens_per_layer(8, tokens) == scaled.visual_tokens_per_layer(8, tokens)
    effective = [
        count
        for count, before in zip(
            scaled.counts(tokens),
            (tokens, *(count.alive for count in scaled.counts(tokens))),
            strict=False,
        )
        if count.alive < before
    ]
    assert list(measured.counts(tokens)) == effective
    assert as_measured(measured, ANALYTIC_SHAPE) == measured


def test_schedules_that_differ_only_on_the_target_have_one_hash() -> None:
    schedule = published("visiondrop", tokens=64)
    stage = schedule.stages[0]
    nudged = stage.model_copy(update={"retention": stage.retention + 0.1 / 576})
    other = schedule.model_copy(update={"stages": (nudged, *schedule.stages[1:])})
    assert schedule.content_hash != other.content_hash
    assert (
        as_measured(schedule, ANALYTIC_SHAPE).content_hash
        == as_measured(other, ANALYTIC_SHAPE).content_hash
    )


def test_nothing_is_measured_twice() -> None:
    evaluator = AnalyticEvaluator()
    measurements = Measurements(evaluator)
    first = measurements.scores(dense(), "search", [3, 1, 400])
    again = measurements.scores(dense(), "search", [400, 3, 1, 7])
    assert evaluator.scored == 4
    assert again.tolist()[:3] == [first[2], first[0], first[1]]
    measurements.scores(dense(), "report", [3])
    measurements.scores(_half(), "search", [3])
    assert evaluator.scored == 6


def test_nothing_is_probed_twice_and_what_is_probed_is_scored() -> None:
    evaluator = AnalyticEvaluator()
    measurements = Measurements(evaluator)
    first = measurements.probe(_half(), "search", [3, 1, 400])
    again = measurements.probe(_half(), "search", [400, 3, 1, 7])
    assert evaluator.scored == 4
    for one, other in zip(first, again, strict=True):
        assert other.tolist()[:3] == [one[2], one[0], one[1]]
    assert measurements.scores(_half(), "search", [1, 7]).tolist() == again.scores[2:].tolist()
    assert evaluator.scored == 4
    expected = evaluator.probe(_half(), "search", [400, 3, 1, 7])
    for got, wanted in zip(again, expected, strict=True):
        assert got.tolist() == wanted.tolist()


def test_scores_alone_are_no_probe() -> None:
    evaluator = AnalyticEvaluator()
    measurements = Measurements(evaluator)
    scores = measurements.scores(_half(), "search", [3, 1])
    assert measurements.probe(_half(), "search", [3, 1]).scores.tolist() == scores.tolist()
    assert evaluator.scored == 4


class _ScoresOnly:
    """An evaluator without probes, as those of real benchmarks are."""

    def __init__(self, evaluator: AnalyticEvaluator) -> None:
        self.name, self.measured_on = evaluator.name, evaluator.measured_on
        self.shape, self.fingerprint = evaluator.shape, evaluator.fingerprint
        self.samples, self.score = evaluator.samples, evaluator.score
        self.split_fingerprint = evaluator.split_fingerprint


def test_an_evaluator_without_probes_is_known_as_such() -> None:
    measurements = Measurements(_ScoresOnly(AnalyticEvaluator()))
    assert measurements.probing is None
    with pytest.raises(SettingsError, match="gives scores only"):
        measurements.probe(_half(), "search", [0])


def test_the_measured_form_can_be_another() -> None:
    nearest = _half()
    measurements = Measurements(AnalyticEvaluator(), measured_form=lambda schedule: nearest)
    assert measurements.measured_form(dense()) is nearest
    plain = Measurements(AnalyticEvaluator())
    schedule = published("visiondrop", tokens=64)
    assert plain.measured_form(schedule) == as_measured(schedule, ANALYTIC_SHAPE)


def test_scores_do_not_depend_on_which_samples_are_asked_together() -> None:
    together = Measurements(AnalyticEvaluator()).scores(_half(), "search", range(500))
    measurements = Measurements(AnalyticEvaluator())
    apart = [measurements.scores(_half(), "search", [index])[0] for index in range(500)]
    assert together.tolist() == apart


def test_limits_use_the_same_samples_for_every_schedule() -> None:
    measurements = Measurements(AnalyticEvaluator(), limits={"search": 50}, seed=4)
    assert len(measurements.samples("search")) == 50
    assert set(Counter(measurements.tasks("search")).values()) == {10}
    assert len(measurements.samples("report")) == 500
    everything = AnalyticEvaluator().score(_half(), "search", range(500))
    names = [sample.identifier for sample in AnalyticEvaluator().samples("search")]
    chosen = [names.index(sample.identifier) for sample in measurements.samples("search")]
    assert measurements.scores(_half(), "search", range(50)).tolist() == everything[chosen].tolist()


@pytest.mark.parametrize("limit", [1, 7, 12, 1000])
def test_shares_are_equal_where_there_are_enough(limit: int) -> None:
    tasks = ["a"] * 100 + ["b"] * 3 + ["c"] * 50
    drawn = equal_shares(tasks, limit, seed=0)
    assert drawn == sorted(set(drawn))
    counts = Counter(np.array(tasks)[drawn].tolist())
    expected = {
        1: {"a": 1},
        7: {"a": 3, "b": 2, "c": 2},
        12: {"a": 4, "b": 3, "c": 4},
        1000: {"a": 100, "b": 3, "c": 50},
    }
    assert counts == expected[limit]


def test_which_samples_are_used_depends_on_the_seed() -> None:
    drawn = [
        [sample.identifier for sample in measurements.samples("search")]
        for seed in (0, 1, 1)
        for measurements in [Measurements(AnalyticEvaluator(), limits={"search": 50}, seed=seed)]
    ]
    assert drawn[0] != drawn[1] == drawn[2]


def _half() -> Schedule:
    return as_measured(published("desap", tokens=288), ANALYTIC_SHAPE)
