from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from pruners.errors import DataError
from studies.bootstrap import sharing_tasks
from studies.intervals import holm
from studies.statistics import (
    difference,
    differences,
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


def _level(images, groups):
    """Level of the percentile interval that covers a normal mean as Student's t does."""
    freedom = images - groups
    return 2 * stats.norm.cdf(np.sqrt(images / freedom) * stats.t.ppf(0.975, freedom)) - 1


def _close(interval, expected):
    width = expected[1] - expected[0]
    return interval == pytest.approx(tuple(expected), abs=0.05 * width)


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
        confidence_level=_level(300, 2),
        method="percentile",
        rng=np.random.default_rng(2),
    ).confidence_interval
    assert _close(paired_interval(pruned, dense, tasks, resamples=20_000), expected)


def test_interval_of_a_small_sample_agrees_with_scipy():
    rng = np.random.default_rng(11)
    pruned, dense = _answers(rng, 0.8, 0.8, 12)
    expected = stats.bootstrap(
        (pruned, dense),
        lambda first, second, axis: first.mean(axis=axis) / second.mean(axis=axis),
        paired=True,
        n_resamples=20_000,
        confidence_level=_level(12, 1),
        method="percentile",
        rng=np.random.default_rng(2),
    ).confidence_interval
    names = [f"image {number}" for number in range(12)]
    found = paired_interval(pruned, dense, ["a"] * 12, images=names, resamples=20_000)
    assert _close(found, expected)
    assert found == paired_interval(pruned, dense, ["a"] * 12, resamples=20_000)


def _population(rng, images, share):
    """Questions of 2 tasks about each image, ten in all, whose luck is partly that of the image.

    The dense model is right in 80 and 60 %, the pruned one in 85 % of that.
    """
    tasks = np.tile(np.repeat(["a", "b"], [6, 4]), images)
    names = np.repeat(np.arange(images), 10).astype(str)
    accuracies = np.where(tasks == "a", 0.8, 0.6)

    def luck():
        of_image = np.repeat(rng.random(images), 10)
        return np.where(rng.random(len(tasks)) < share, of_image, rng.random(len(tasks)))

    base = luck()
    changed = np.where(rng.random(len(tasks)) < 0.3, luck(), base)
    pruned, dense = changed < 0.85 * accuracies, base < accuracies
    return pruned.astype(float), dense.astype(float), tasks.tolist(), names.tolist()


def test_interval_agrees_with_a_loop_that_draws_images():
    rng = np.random.default_rng(12)
    pruned, dense, tasks, images = _population(rng, 40, 0.5)
    kept = rng.random(len(tasks)) < 0.5  # so that images have different numbers of questions
    pruned, dense = pruned[kept], dense[kept]
    tasks = [task for task, stays in zip(tasks, kept, strict=True) if stays]
    images = [image for image, stays in zip(images, kept, strict=True) if stays]
    # A third task on images of its own, some of them with two questions.
    apart, reference = _answers(rng, 0.9, 0.7, 30)
    pruned, dense = np.concatenate([pruned, apart]), np.concatenate([dense, reference])
    tasks += ["c"] * 30
    images += [f"c{number // 2}" if number < 10 else f"c{number}" for number in range(30)]

    samples_of = {
        image: [at for at, name in enumerate(images) if name == image] for image in images
    }
    shared = [image for image in samples_of if not image.startswith("c")]
    own = [image for image in samples_of if image.startswith("c")]
    labels = np.array(tasks)
    values = []
    for _ in range(4000):
        drawn = [*rng.choice(shared, len(shared)), *rng.choice(own, len(own))]
        at = np.concatenate([samples_of[image] for image in drawn])
        values.append(relative_accuracy(pruned[at], dense[at], labels[at].tolist()))
    level = _level(len(samples_of), 2)
    expected = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    found = paired_interval(pruned, dense, tasks, images=images)
    assert _close(found, expected)


def test_asking_the_same_again_about_an_image_narrows_nothing():
    rng = np.random.default_rng(13)
    pruned, dense, tasks, images = _population(rng, 30, 0.2)
    other = np.where(rng.random(len(pruned)) < 0.1, 0, pruned)
    again = [np.tile(scores, 3) for scores in (pruned, other, dense)]
    found = difference(pruned, other, dense, tasks, images=images)
    repeated = difference(*again, tasks * 3, images=images * 3)
    assert repeated.interval == pytest.approx(found.interval)
    assert repeated.p_value == found.p_value
    # As if each question were about another image:
    low, high = difference(*again, tasks * 3).interval
    assert high - low < 0.7 * (found.interval.high - found.interval.low)


@pytest.mark.parametrize(("images", "share"), [(20, 0.8), (60, 0.8), (60, 0.0)])
def test_intervals_over_images_cover_the_truth_where_questions_share_luck(images, share):
    rng = np.random.default_rng(14)
    covered = {"images": 0, "questions": 0}
    for _ in range(400):
        pruned, dense, tasks, names = _population(rng, images, share)
        for kind, clusters in (("images", names), ("questions", None)):
            low, high = paired_interval(pruned, dense, tasks, images=clusters, resamples=1000)
            covered[kind] += low <= 0.85 <= high
    # Binomial(400, 0.95) lies in [367, 391] with 99.5 % probability, Binomial(400, 0.935), which is
    # what the expanded percentiles of 20 images cover, in [359, 387].
    assert 359 <= covered["images"] <= 391
    if share:  # questions that were independent would seldom be covered less than 363 times
        assert covered["questions"] < 340
    else:
        assert abs(covered["questions"] - covered["images"]) < 12


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


def test_a_difference_is_significant_where_its_interval_excludes_0():
    rng = np.random.default_rng(15)
    decided = 0
    for loss in rng.uniform(0, 0.12, 60):
        pruned, dense, tasks, images = _population(rng, 15, 0.5)
        worse = np.where(rng.random(len(pruned)) < loss, 0, pruned)
        found = difference(pruned, worse, dense, tasks, images=images, resamples=2000)
        if abs(found.p_value - 0.05) > 0.01:  # elsewhere quantiles may fall between two resamples
            excludes = found.interval.low > 0 or found.interval.high < 0
            assert found.significant == excludes == (found.p_value < 0.05)
            decided += excludes
    assert 10 < decided < 50


def test_resamples_without_a_dense_success_are_left_out():
    # Only 1 of 4 images has what the dense model knows of task b: (3/4)^4 of the draws lack it.
    dense, pruned = [1, 0, 1, 0, 1, 0, 1, 1], [1, 0, 0, 0, 1, 0, 1, 1]
    low, high = paired_interval(pruned, dense, list("abababab"), images=list("11223344"))
    assert np.isfinite([low, high]).all()
    assert low < relative_accuracy(pruned, dense, list("abababab")) <= high


@pytest.mark.parametrize("tasks", ["a", "abc", "aaaa"])
def test_one_image_shows_nothing(tasks: str):
    right, wrong = [1] * len(tasks), [0] * len(tasks)
    found = difference(right, wrong, right, list(tasks), images=["x"] * len(tasks))
    assert found.estimate == 1
    assert not found.significant  # although its interval excludes 0


def test_three_images_are_too_few_for_any_difference_and_four_are_not():
    for images in (2, 3):
        assert not difference([1] * images, [0] * images, [1] * images, ["a"] * images).significant
    assert difference([1] * 4, [0] * 4, [1] * 4, ["a"] * 4).significant


def test_tasks_are_drawn_together_where_images_link_them():
    has = np.array([[1, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0, 1, 0, 0, 1], [0, 0, 0, 1, 0]], dtype=bool)
    assert sharing_tasks(has) == [[0, 1, 4], [2], [3]]


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


def test_there_is_one_image_per_sample():
    with pytest.raises(DataError, match="2 images were given for 3 samples"):
        paired_interval([1, 1, 1], [1, 1, 1], ["a"] * 3, images=["x", "y"])
