from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from pruners.errors import DataError
from pruners.schedule import Schedule
from search.analytic import TASK_ACCURACIES, AnalyticEvaluator
from search.baselines import published_at
from search.evaluators import SampleKey
from search.measured_form import as_measured
from space.budgets import Budget
from space.shapes import preset
from studies.identity import SPLITS

SEEDS = 200


def _pruned(evaluator: AnalyticEvaluator) -> Schedule:
    schedules = published_at(Budget("share", 0.5), preset("llava-1.5-7b"))
    return as_measured(schedules["desap"], evaluator.shape)


def _scores(schedule: Schedule | None = None) -> np.ndarray:
    """Scores on the report split, `(seeds, samples)`; of the dense model when None."""
    evaluators = [AnalyticEvaluator(seed) for seed in range(SEEDS)]
    samples = range(len(evaluators[0].samples("report")))
    return np.array([each.score(schedule or Schedule(), "report", samples) for each in evaluators])


def test_a_sample_without_an_image_of_its_own_has_its_name() -> None:
    assert SampleKey("a", "task").image == "a"
    assert SampleKey("a", "task", "picture").image == "picture"


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(DataError, match=r"unknown split 'test'; choose .* search, confirm, report"):
        AnalyticEvaluator().samples("test")


def test_images_have_two_questions_of_every_task_and_are_of_one_split() -> None:
    evaluator = AnalyticEvaluator()
    images = {split: {key.image for key in evaluator.samples(split)} for split in SPLITS}
    assert not images["search"] & images["report"]
    counts = Counter((key.image, key.task) for key in evaluator.samples("report"))
    assert set(counts.values()) == {2}
    assert len(counts) == len(images["report"]) * len(TASK_ACCURACIES) == 50 * 5


@pytest.mark.parametrize("is_dense", [True, False])
def test_scores_are_right_on_average_and_alike_within_an_image(is_dense: bool) -> None:
    evaluator = AnalyticEvaluator()
    schedule = Schedule() if is_dense else _pruned(evaluator)
    keys = evaluator.samples("report")
    scores = _scores(schedule)
    expected = [TASK_ACCURACIES[key.task] * evaluator.relative_accuracy(schedule) for key in keys]
    per_task = scores.reshape(SEEDS, len(TASK_ACCURACIES), 100).mean(axis=(0, 2))
    # 20,000 draws in images of 10: a standard error of at most 0.5 points.
    assert per_task == pytest.approx(np.array(expected)[::100], abs=0.02)

    left = scores - np.array(expected)
    by_image = left.reshape(SEEDS, 5, 50, 2)  # seeds, tasks, images, questions
    covariance = (by_image[..., 0] * by_image[..., 1]).mean(axis=(0, 2))
    variance = (left**2).reshape(SEEDS, 5, 100).mean(axis=(0, 2))
    # Two questions have the image's luck with probability 0.4 squared, and then the same answer, if
    # both draw anew for this schedule or both do not: 0.3 squared + 0.7 squared.
    together = 0.16 * 0.58
    assert (covariance / variance).mean() == pytest.approx(together, abs=0.02)
    across_images = (by_image[:, :, :-1, 0] * by_image[:, :, 1:, 1]).mean()
    assert across_images == pytest.approx(0, abs=0.003)


def test_probes_say_the_same_as_scores_with_less_noise() -> None:
    evaluator = AnalyticEvaluator()
    pruned = _pruned(evaluator)
    everything = range(len(evaluator.samples("report")))
    probe = evaluator.probe(pruned, "report", everything)
    assert probe.scores.tolist() == evaluator.score(pruned, "report", everything).tolist()
    assert ((probe.answer_probabilities > 0.5) == (probe.scores == 1)).all()
    assert probe.answer_probabilities.std() < 0.7 * probe.scores.std()
    assert np.corrcoef(probe.answer_probabilities, probe.scores)[0, 1] < 0.95

    of_dense = evaluator.probe(Schedule(), "report", everything)
    assert of_dense.hidden_agreements == pytest.approx(1)
    assert probe.hidden_agreements.max() < 1
    assert probe.answer_probabilities.mean() < of_dense.answer_probabilities.mean()
    assert ((probe.hidden_agreements > 0) & (probe.answer_probabilities < 1)).all()
