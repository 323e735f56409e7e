"""From the best few of a search to a measured result, on samples that the search never saw."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pruners.errors import DataError
from pruners.published import dense
from pruners.schedule import Schedule
from search.measuring import Measurements
from search.outcomes import Candidate
from studies.results import DENSE
from studies.statistics import relative_accuracy

BLOCK = 50
"""Samples measured together: all schedules see a block before the next one is looked at."""


@dataclass(frozen=True)
class Scores:
    """Scores of several schedules on the same samples of one split.

    Attributes:
        split: Name of the split.
        tasks: Task of each sample.
        images: Image of each sample.
        by_schedule: Score per sample by the schedule's name, each `(samples,)`.
    """

    split: str
    tasks: tuple[str, ...]
    images: tuple[str, ...]
    by_schedule: dict[str, NDArray[np.float64]]

    def relative_accuracy(self, name: str) -> float:
        """Compare a schedule with the dense model, which must be among the schedules.

        Args:
            name: The schedule's name.

        Returns:
            Its relative accuracy, as `studies.statistics.relative_accuracy` defines it.

        Raises:
            DataError: The dense model scores 0 on a task; the message names the split.
        """
        try:
            return relative_accuracy(self.by_schedule[name], self.by_schedule[DENSE], self.tasks)
        except DataError as error:
            raise DataError(f"on the {self.split} split, {error}") from error


def score_split(
    measurements: Measurements,
    schedules: Mapping[str, Schedule],
    split: str,
    on_block: Callable[[int], None] = lambda samples: None,
    indices: Sequence[int] | None = None,
) -> Scores:
    """Score schedules on a split, block by block.

    Args:
        measurements: Scores of the measured model.
        schedules: Schedules by name, of any depth.
        split: Name of the split.
        on_block: Called with the number of samples after each block that all have been scored on.
        indices: Indices of the samples to score; all of the split's when None.

    Returns:
        The scores, in that order.

    Raises:
        PrunetuneError: The evaluator cannot score a schedule.
    """
    measured = {name: measurements.measured_form(schedule) for name, schedule in schedules.items()}
    tasks = measurements.tasks(split)
    asked = list(range(len(tasks)) if indices is None else indices)
    scores = {name: np.empty(len(asked)) for name in schedules}
    blocks = [asked[start : start + BLOCK] for start in range(0, len(asked), BLOCK)]
    at_once = -(-measurements.workers // len(schedules))
    for first in range(0, len(blocks), at_once):
        group = blocks[first : first + at_once]
        measurements.measure(list(measured.values()), split, group)
        for number, block in enumerate(group, start=first):
            place = slice(number * BLOCK, (number + 1) * BLOCK)
            for name, schedule in measured.items():
                scores[name][place] = measurements.scores(schedule, split, block)
            on_block(len(block))
    images = measurements.images(split)
    return Scores(
        split,
        tasks=tuple(tasks[index] for index in asked),
        images=tuple(images[index] for index in asked),
        by_schedule=scores,
    )


def confirm(
    measurements: Measurements,
    candidates: Sequence[Candidate],
    on_block: Callable[[int], None] = lambda samples: None,
) -> Candidate:
    """Choose the winner of a search on the confirm split.

    Args:
        measurements: Scores of the measured model.
        candidates: The best few of the search, best first.
        on_block: Called with the number of samples after each block.

    Returns:
        The candidate with the highest relative accuracy there; of equals, the search's favourite.

    Raises:
        DataError: The dense model scores 0 on a task there.
        PrunetuneError: The evaluator cannot score a schedule.
    """
    names = [f"trial {candidate.trial}" for candidate in candidates]
    schedules = {
        name: candidate.schedule for name, candidate in zip(names, candidates, strict=True)
    }
    scores = score_split(
        measurements,
        {DENSE: dense(measurements.evaluator.shape), **schedules},
        "confirm",
        on_block,
    )
    values = [scores.relative_accuracy(name) for name in names]
    return candidates[int(np.argmax(values))]
