from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from pruners.errors import DataError
from studies.statistics import (
    difference,
    differences,
    holm,
    paired_interval,
    relative_accuracy,
    task_accuracies,
)


def _answers(rng, dense_accuracy, agreement, samples):
    """Dense and pruned answers that agree with a known probability, and flip otherwise."""
    dense = (rng.random(samples) < dense_accuracy).astype(float)
    flips = rng.random(samples) > agreement
    return np.where(flips, 1 - dense, dense), dense


def test_relative_accuracy_is_the_mean_over_tasks_of_the_ratios():
    tasks = ["gqa"] * 4 + ["pope"] * 2
    pruned = [1, 0, 0, 1, 1, 0]  # gqa 2/4, pope 1/2
    dense = [1, 1, 1, 1, 1, 0]  # gqa 4/4, pope 1/2
    assert relative_accuracy(pruned, dense, tasks) == pytest.approx((0.5 + 1.0) / 2)
    assert task_accuracies(pruned, tasks) == {"gqa": 0.5, "pope": 0.5}


def test_relative_accuracy_does_not_depend_on_the_order_of_samples():
    rng = np.random.default_rng(0)
    pruned, dense = _answers(rng, 0.9, 0.8, 60)
    tasks = np.repeat(["a", "b", "c"], 20)
    order = rng.permutation(60)
    assert relative_accuracy(pruned, dense, list(tasks)) == pytest.approx(
        relative_accuracy(pruned[order], dense[order], list(tasks[order]))
    )


@pytest.mark.parametrize("continuous", [False, True])
def test_interval_agrees_with_scipy_on_stratified_pairs(continuous):
    rng = np.random.default_rng(1)
    pruned, dense = _answers(rng, 0.9, 0.85, 300)
    if continuous:  # such as an answer's agreement with ten annotators
        pruned, dense = pruned * rng.random(300), dense * rng.uniform(0.5, 1, 300)
    tasks = ["a"] * 100 + ["b"] * 200

    def statistic(first, second, axis):
        # Resampling each task's sample numbers keeps its size and its pairs.
        ratios = [
            pruned[rows.astype(int)].mean(axis=axis) / dense[rows.astype(int)].mean(axis=axis)
            for rows in (first, second)
        ]
        return np.mean(ratios, axis=0)

    expected = stats.bootstrap(
        (np.arange(100), np.arange(100, 300)),
        statistic,
        n_resamples=20_000,
        method="percentile",
        rng=np.random.default_rng(2),
    ).confidence_interval
    interval = paired_interval(pruned, dense, tasks, resamples=20_000)
    width = expected.high - expected.low
    assert interval.low == pytest.approx(expected.low, abs=0.05 * width)
    assert interval.high == pytest.approx(expected.high, abs=0.05 * width)


def test_interval_covers_the_truth_about_95_times_in_100():
    rng = np.random.default_rng(3)
    settings = {"a": (0.9, 0.8), "b": (0.7, 0.95)}  # dense accuracy, agreement with dense
    # P(pruned right) = P(dense right) P(agree) + P(dense wrong) P(disagree)
    truth = np.mean([(p * q + (1 - p) * (1 - q)) / p for p, q in settings.values()])
    tasks = ["a"] * 150 + ["b"] * 150
    covered = 0
    for _ in range(400):
        pairs = [_answers(rng, p, q, 150) for p, q in settings.values()]
        pruned, dense = (np.concatenate(answers) for answers in zip(*pairs, strict=True))
        low, high = paired_interval(pruned, dense, tasks, resamples=1000)
        covered += low <= truth <= high
    # Binomial(400, 0.95) lies in [367, 391] with 99.5 % probability; percentile intervals of 150
    # samples cover slightly less than they promise.
    assert 363 <= covered <= 393


def test_interval_is_the_same_for_the_same_seed_only():
    rng = np.random.default_rng(4)
    pruned, dense = _answers(rng, 0.9, 0.8, 200)
    tasks = ["a"] * 200
    first = paired_interval(pruned, dense, tasks, seed=1)
    assert first == paired_interval(pruned, dense, tasks, seed=1)
    assert first != paired_interval(pruned, dense, tasks, seed=2)


def test_a_schedule_equal_to_dense_has_no_uncertainty():
    dense = np.array([1.0, 0, 1, 1, 0, 1])
    assert paired_interval(dense, dense, ["a"] * 6) == (1.0, 1.0)
    same = difference(dense, dense, dense, ["a"] * 6)
    assert (same.estimate, same.interval, same.significant) == (0.0, (0.0, 0.0), False)


def test_difference_is_antisymmetric_and_paired():
    rng = np.random.default_rng(5)
    first, dense = _answers(rng, 0.95, 0.9, 500)
    second = np.where(rng.random(500) < 0.04, 0, first)  # the same answers but for a few
    tasks = ["a"] * 500
    forward = difference(first, second, dense, tasks)
    backward = difference(second, first, dense, tasks)
    assert forward.estimate == pytest.approx(-backward.estimate)
    assert forward.estimate == pytest.approx(
        relative_accuracy(first, dense, tasks) - relative_accuracy(second, dense, tasks)
    )
    # Unpaired, the two intervals overlap widely; paired, the few lost answers tell.
    assert paired_interval(first, dense, tasks).low < paired_interval(second, dense, tasks).high
    assert forward.significant
    assert forward.interval.low > 0


def test_false_alarms_stay_below_the_level_over_a_family():
    rng = np.random.default_rng(6)
    tasks = ["a"] * 200
    alarms = 0
    for _ in range(200):
        dense = (rng.random(200) < 0.9).astype(float)
        equals = [np.where(rng.random(200) < 0.2, 1 - dense, dense) for _ in range(4)]
        family = differences(
            equals[0], dict(zip("bcd", equals[1:], strict=True)), dense, tasks, resamples=1000
        )
        alarms += any(each.significant for each in family.values())
    # Binomial(200, 0.05) exceeds 18 with probability 0.01; uncorrected, about 11 % raise an alarm.
    assert alarms <= 18


def test_holm_gives_back_published_examples():
    # R: p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm")
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


@pytest.mark.parametrize(
    ("pruned", "dense", "tasks", "message"),
    [
        ([1, 0], [1], ["a"], "one score per sample"),
        ([], [], [], "no samples"),
        ([1, float("nan")], [1, 1], ["a", "a"], "finite"),
        ([1, 1], [1, 0], ["gqa", "pope"], "scores 0 on pope"),
    ],
)
def test_scores_that_cannot_be_compared_are_refused(pruned, dense, tasks, message):
    for function in (relative_accuracy, paired_interval):
        with pytest.raises(DataError, match=message):
            function(pruned, dense, tasks)
