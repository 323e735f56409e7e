"""Models that need more memory than there is, give no numbers, or do not answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import perilous
import pytest
import torch
from numpy.typing import NDArray

from pruners.errors import ModelError
from pruners.published import published
from pruners.schedule import Schedule
from search.analytic import AnalyticEvaluator
from search.evaluators import Probe
from search.measuring import Measurements
from search.workers.local import LocalWorker
from search.workers.mishaps import NotANumberWarning
from search.workers.supervision import SupervisedPool
from studies.scores import ScoreCache

pytestmark = pytest.mark.faults

Survived = Callable[[str], None]
BLOCK = range(10)


class Faulty(AnalyticEvaluator):
    """Fails as it is told, once."""

    def __init__(self, fault: Callable[[], float]) -> None:
        super().__init__()
        self._fault: Callable[[], float] | None = fault

    def score(self, schedule: Schedule, split: str, indices: Sequence[int]) -> NDArray[np.float64]:
        scores = super().score(schedule, split, indices)
        if self._fault is not None:
            fault, self._fault = self._fault, None
            scores[3] = fault()
        return scores

    def probe(self, schedule: Schedule, split: str, indices: Sequence[int]) -> Probe:
        probe = super().probe(schedule, split, indices)
        probe.hidden_agreements[5] = float("nan")
        return probe


def too_much_for_python() -> float:
    raise MemoryError


def too_much_for_torch() -> float:
    return float(torch.empty(2**60, dtype=torch.uint8)[0])


@pytest.mark.parametrize("fault", [too_much_for_python, too_much_for_torch])
def test_memory_that_runs_out_is_said_and_what_was_measured_stays(
    fault: Callable[[], float], tmp_path: Path, survived: Survived
) -> None:
    schedule = published("visiondrop", 64)
    with ScoreCache(tmp_path / "scores.db") as cache:
        measurements = Measurements(Faulty(fault), cache)
        measured = measurements.measured_form(schedule)
        with pytest.raises(ModelError, match=r"memory ran out while measuring 10 samples.*contin"):
            measurements.scores(measured, "search", BLOCK)
        again = measurements.scores(measured, "search", BLOCK)
    expected = AnalyticEvaluator().score(measured, "search", BLOCK)
    np.testing.assert_array_equal(again, expected)
    survived("out of memory")


def test_other_errors_of_torch_are_not_taken_for_a_lack_of_memory() -> None:
    def wrong() -> float:
        return float((torch.ones(2) @ torch.ones(3)).item())

    measurements = Measurements(Faulty(wrong))
    with pytest.raises(RuntimeError, match="size"):
        measurements.scores(measurements.measured_form(published("fastv", 64)), "search", BLOCK)


def test_answers_that_are_no_numbers_count_as_wrong_and_are_told(survived: Survived) -> None:
    measurements = Measurements(Faulty(lambda: float("nan")))
    measured = measurements.measured_form(published("visiondrop", 64))
    with pytest.warns(
        NotANumberWarning, match="no numbers for 1 of 10 samples of the search split"
    ):
        scores = measurements.scores(measured, "search", BLOCK)
    expected = AnalyticEvaluator().score(measured, "search", BLOCK)
    expected[3] = 0.0
    np.testing.assert_array_equal(scores, expected)
    with pytest.warns(NotANumberWarning):
        probe = measurements.probe(measured, "search", BLOCK)
    assert np.isfinite(np.stack(probe)).all()
    assert probe.answer_probabilities[5] == 0
    survived("NaN from the model")


def test_a_sample_that_hangs_is_measured_by_another_worker(
    tmp_path: Path, survived: Survived
) -> None:
    maker = partial(perilous.PerilousEvaluator, tmp_path)
    fingerprint = AnalyticEvaluator().fingerprint
    perilous.set_traps(tmp_path, "measure", "hang")
    with (
        ScoreCache(tmp_path / "scores.db") as cache,
        SupervisedPool(lambda _: LocalWorker(maker, {}), 1, fingerprint, patience=15) as pool,
    ):
        measurements = Measurements(AnalyticEvaluator(), cache, pool=pool)
        measured = measurements.measured_form(published("visiondrop", 64))
        scores = measurements.scores(measured, "search", BLOCK)
    expected = AnalyticEvaluator().score(measured, "search", BLOCK)
    np.testing.assert_array_equal(scores, expected)
    assert len(perilous.measured(tmp_path)) == len(BLOCK)
    survived("hanging sample")
