"""What figures show, against independent ways to say it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna._hypervolume import compute_hypervolume

from pruners.methods import METHODS
from studies.plots.anytime import anytime_curves
from studies.plots.hypervolume import hypervolume, hypervolume_curve
from studies.plots.importance import choice_importance
from studies.plots.incumbents import incumbent_steps
from studies.plots.kept import kept_points, kept_rows
from studies.plots.staircase import staircase_points
from studies.plots.tasks import task_bars
from studies.schedule_levels import schedule_levels, variance_ratio
from studies.statistics import paired_interval

POINTS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=12)


@given(POINTS)
def test_the_hypervolume_is_the_number_of_dominated_cells(points):
    costs, values = ([float(point[k]) for point in points] for k in (0, 1))
    cells = sum(
        any(cost <= x and y < value for cost, value in points) for x in range(8) for y in range(10)
    )
    assert hypervolume(costs, values, (8.0, 0.0)) == cells


@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=12),
)
def test_the_hypervolume_is_optunas(points):
    loss = np.array([(cost, -value) for cost, value in points])
    # Optuna wants points within the reference point.
    expected = compute_hypervolume(np.minimum(loss, [0.9, -0.1]), np.array([0.9, -0.1]))
    costs, values = zip(*points, strict=True)
    assert hypervolume(costs, values, (0.9, 0.1)) == pytest.approx(expected)


TRIALS = st.lists(
    st.tuples(st.sampled_from(["1 TFLOPs", "2 TFLOPs"]), st.integers(0, 3), st.integers(1, 4)),
    min_size=1,
    max_size=12,
)


@settings(max_examples=30)
@given(TRIALS, st.integers(0, 99))
def test_incumbents_are_the_best_levels_so_far_valued_at_the_end(make_record, drawn, seed):
    table = np.random.default_rng(seed).random((4, 4))
    trials = [
        make_record(
            budget, number, schedule=schedule, samples=25 * blocks, seconds=float(number),
            accuracy=table[schedule, :blocks].mean(), blocks=table[schedule, :blocks].tolist(),
        )
        for number, (budget, schedule, blocks) in enumerate(drawn)
    ]  # fmt: skip
    steps = incumbent_steps(reversed(trials))
    assert len(steps) == len(trials)
    for end, step in enumerate(steps, start=1):
        most: dict[tuple[str, str], int] = {}
        for trial in trials[:end]:
            key = (trial.budget, trial.measured_hash)
            most[key] = max(most.get(key, 0), trial.samples)
        assert step.samples == sum(most.values())
        assert set(step.incumbents) == {budget for budget, _ in most}
        for budget, incumbent in step.incumbents.items():
            whole = _longest(trials, budget)
            ratio = variance_ratio(whole)
            now = schedule_levels(_longest(trials[:end], budget), ratio)
            assert now[incumbent.schedule].estimate == max(level.estimate for level in now.values())
            assert incumbent.accuracy == schedule_levels(whole, ratio)[incumbent.schedule].estimate


def _longest(trials, budget):
    """The blocks of each schedule, in the order in which the schedules were first tried."""
    blocks = {}
    for trial in trials:
        if trial.budget == budget:
            known = blocks.get(trial.measured_hash, ())
            blocks[trial.measured_hash] = max(known, trial.blocks, key=len)
    return blocks


def test_what_is_above_the_budget_is_never_the_incumbent(make_record):
    dense = make_record("2 TFLOPs", 0, schedule=0, accuracy=1.0, seconds=0.0)
    within = [
        make_record("2 TFLOPs", number, schedule=number, accuracy=accuracy, seconds=float(number))
        for number, accuracy in ((1, 0.5), (2, 0.7))
    ]
    steps = incumbent_steps([replace(dense, within_budget=False), *within])
    found = [(step.samples, step.incumbents["2 TFLOPs"].schedule) for step in steps]
    assert found == [
        (50, "measured 1"),
        (75, "measured 2"),
    ]  # dense's samples are spent all the same
    assert incumbent_steps([replace(dense, within_budget=False)]) == []


def test_trials_that_were_not_scored_are_no_steps(make_record):
    trial = make_record("2 TFLOPs", 0)
    assert incumbent_steps([replace(trial, accuracy=None, samples=0, blocks=())]) == []


def _final(stored):
    """Cost and level of the best schedule at the end of a budget's search."""
    blocks = _longest(stored.trials, stored.budget)
    levels = schedule_levels(blocks, variance_ratio(blocks))
    return stored.trials[0].tflops, max(level.estimate for level in levels.values())


def test_the_anytime_curve_ends_at_the_incumbent_and_what_was_reported(study):
    curves = anytime_curves(study)
    assert [curve.budget for curve in curves] == ["2 TFLOPs", "4 TFLOPs"]
    for curve, stored in zip(curves, study.budgets, strict=True):
        assert curve.percent[-1] == pytest.approx(100 * _final(stored)[1])
        # The best of these schedules is near 0.8 by construction, the mean near 0.65.
        assert 75 < curve.percent[-1] < 85
        assert list(curve.samples) == sorted(curve.samples)
        evidence = stored.result.schedule("searched").evidence
        low, high = evidence.interval_95
        assert curve.reported == (100 * evidence.relative_accuracy, 100 * low, 100 * high)


def test_curves_of_a_study_without_results_are_what_is_known(study):
    running = replace(
        study, budgets=tuple(replace(budget, result=None) for budget in study.budgets)
    )
    assert [curve.reported for curve in anytime_curves(running)] == [None, None]
    assert hypervolume_curve(running) is None
    assert hypervolume_curve(replace(study, budgets=study.budgets[:1])) is None


def test_the_hypervolume_curve_measures_incumbents_and_reported_schedules(study):
    curve = hypervolume_curve(study)
    dense = 8.9
    # Two points make two rectangles: from the cheap one at its value, from the dear one above it.
    cheap, dear = map(_final, study.budgets)
    area = (dense - cheap[0]) * cheap[1] + (dense - dear[0]) * max(0.0, dear[1] - cheap[1])
    assert curve.percent[-1] == pytest.approx(100 * area / dense)
    assert curve.samples[-1] == sum(each.samples[-1] for each in anytime_curves(study))
    assert list(curve.reported) == ["searched", "visiondrop", "desap"]
    for name, percent in curve.reported.items():
        cheap, dear = (
            stored.result.schedule(name).evidence.relative_accuracy for stored in study.budgets
        )
        area = (dense - 2) * cheap + (dense - 4) * max(0.0, dear - cheap)
        assert percent == pytest.approx(100 * area / dense)


def _with_known_effects(make_record, noise):
    rng = np.random.default_rng(3)
    trials = []
    for number in range(120):
        strong, weak, none = rng.random(3)
        trials.append(
            make_record(
                f"{2 + number % 2} TFLOPs",
                number,
                schedule=number,
                # The budgets differ by much, which is nobody's merit.
                accuracy=0.3 * strong + 0.1 * weak + 0.4 * (number % 2) + noise * rng.normal(),
                strong=strong,
                weak=weak,
                none=none,
                option="ab"[number % 3 == 0],
                constant=1.0,
            )
        )
    return trials


def test_importance_orders_choices_by_their_effect(make_record):
    importance = choice_importance(_with_known_effects(make_record, noise=0.01))
    found = dict(zip(importance.choices, importance.low, strict=True))
    assert importance.choices[:2] == ("strong", "weak")
    assert found["strong"] > found["weak"] > 0
    place = importance.choices.index("none")
    assert importance.low[place] <= 0.1 * importance.median[0]
    assert set(importance.choices) == {"strong", "weak", "none", "option", "cost"}
    assert importance.explained > 0.8
    assert importance.schedules == 120
    for low, median, high in zip(importance.low, importance.median, importance.high, strict=True):
        assert low <= median <= high


def test_importance_says_when_nothing_can_be_predicted(make_record):
    trials = _with_known_effects(make_record, noise=0.01)
    accuracies = np.random.default_rng(5).permutation([trial.accuracy for trial in trials[::2]])
    shuffled = [
        replace(trial, accuracy=accuracy, blocks=(accuracy,))
        for trial, accuracy in zip(trials[::2], accuracies.tolist(), strict=True)
    ]
    importance = choice_importance(shuffled)
    assert importance.explained < 0.1
    assert all(low <= 0 for low in importance.low)


def test_importance_counts_a_schedule_once_and_needs_twenty(make_record):
    trials = _with_known_effects(make_record, noise=0.01)
    again = [replace(trial, number=200 + trial.number, samples=5) for trial in trials]
    assert choice_importance(trials[:60]) == choice_importance([*trials[:60], *again[:60]])
    assert choice_importance(trials[:19] + again[:19]) is None
    alike = [replace(trial, budget="2 TFLOPs", parameters={"weight": 1.0}) for trial in trials]
    assert choice_importance(alike) is None


def test_bars_and_their_intervals_are_those_of_each_task(make_result):
    result, scores = make_result(2.0, 64, {"searched": 0.1, "visiondrop": 0.3, "desap": 0.2})
    tasks = ["counting"] * 300 + ["digits"] * 300
    bars = task_bars([result])
    assert len(bars) == 3 * 2
    for bar in bars:
        chosen = np.array([task == bar.task for task in tasks])
        own, reference = scores[bar.schedule][chosen], scores["dense"][chosen]
        assert bar.percent == pytest.approx(100 * own.mean() / reference.mean())
        interval = paired_interval(own, reference, [bar.task] * 300)
        # The same bootstrap with five times the resamples.
        assert (bar.low, bar.high) == pytest.approx([100 * end for end in interval], abs=0.7)


def test_bars_of_a_crowd_are_those_that_stand_out(make_result):
    result, _ = make_result(2.0, 64, dict.fromkeys(METHODS, 0.2), methods=METHODS)
    assert {bar.schedule for bar in task_bars([result])} == {"searched", "visiondrop", "desap"}


def test_staircases_are_the_tokens_of_each_layer(study):
    results = [stored.result for stored in study.budgets]
    points = staircase_points(results)
    for result in results:
        for name in ("searched", "visiondrop", "desap"):
            chosen = points[(points.budget == result.budget) & (points.schedule == name)]
            expected = result.schedule(name).visual_tokens_per_layer
            assert tuple(chosen.visual_tokens) == expected
            assert list(chosen.layer) == list(range(32))
    assert "dense" not in set(points.schedule)


def test_patches_are_dominant_contextual_or_dropped(gallery):
    rows = kept_rows(gallery, "2 TFLOPs", "searched")
    assert len(rows) == 2
    points = kept_points(rows)
    assert len(points) == 2 * 2 * 24
    first = points[(points["sample"] == "one") & (points.layer == 0)]
    assert first.state.value_counts().to_dict() == {"dropped": 17, "dominant": 5, "contextual": 2}
    rings = first[first.state == "contextual"]
    assert list(zip(rings.row, rings.column, strict=True)) == [(1, 1), (2, 0)]  # 7 and 12 of 6 wide
    assert kept_rows(gallery, "4 TFLOPs", "searched") == []
    assert kept_rows(gallery, "2 TFLOPs", "desap") == []


def test_samples_shown_are_of_different_tasks(gallery):
    one = gallery.samples[0]
    tasks = ["counting", "counting", "digits", "counting", "reading"]
    samples = tuple(
        one.model_copy(update={"identifier": str(place), "task": task})
        for place, task in enumerate(tasks)
    )
    rows = kept_rows(gallery.model_copy(update={"samples": samples}), "2 TFLOPs", "searched")
    assert [row.sample.identifier for row in rows] == ["0", "2", "4"]
