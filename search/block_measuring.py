"""Schedules measured block by block: relative accuracy, and the signal that a strategy compares."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pruners.errors import DataError
from pruners.published import dense
from pruners.schedule import Schedule
from search.evaluators import Probe
from search.measuring import Measurements
from search.racing import block_accuracy, make_blocks
from search.strategies.base import Signal
from search.workers.assignments import Assignment
from studies.statistics import relative_accuracy, task_accuracies


class BlockResult(NamedTuple):
    """What one block says of a schedule.

    Attributes:
        accuracy: Its relative accuracy.
        signal: Mean of the signal over the block's samples; the accuracy where that is the signal.
    """

    accuracy: float
    signal: float


class BlockMeter:
    """Measures schedules on the blocks of the search split, the same for all of them.

    Args:
        measurements: Scores of the measured model.
        signal: What the strategy compares schedules by; accuracy takes its place where the
            evaluator does not probe.
        block_size: Samples per block.
        seed: Seed of the order of the samples.
    """

    def __init__(
        self, measurements: Measurements, signal: Signal, block_size: int, seed: int
    ) -> None:
        self.measurements = measurements
        self._tasks = np.array(measurements.tasks("search"))
        self._blocks = make_blocks(self._tasks.tolist(), block_size, seed)
        self.sizes = tuple(map(len, self._blocks))
        """Samples of each block."""
        probes = signal != "accuracy" and measurements.probing is not None
        self.signal: Signal = signal if probes else "accuracy"
        """What is measured in fact."""
        self._dense_scores = np.empty(0)
        self._dense_accuracies: dict[str, float] = {}

    def score_dense(self) -> None:
        """Score the model without pruning, to which everything is relative; to be called first.

        Raises:
            DataError: It scores 0 on a task, so that nothing is relative to it there.
        """
        schedule = dense(self.measurements.evaluator.shape)
        scores = np.empty(len(self._tasks))
        self.measurements.measure([schedule], "search", self._blocks)
        for block in self._blocks:
            scores[block] = self.measurements.scores(schedule, "search", block)
        self._dense_scores = scores
        self._dense_accuracies = task_accuracies(scores, self._tasks.tolist())
        failed = [task for task, accuracy in self._dense_accuracies.items() if accuracy <= 0]
        if failed:
            raise DataError(
                f"the dense model answers nothing right on {', '.join(failed)}, so that no "
                "schedule can be rated there; use another model or other tasks"
            )

    def missing(self, measured: Schedule, number: int) -> Assignment | None:
        """Say what must be measured before `measure` has nothing left to do.

        Args:
            measured: The schedule in its measured form.
            number: Number of the block.

        Returns:
            What to begin with `Measurements.begin`; None when all is known.
        """
        probes = self.signal != "accuracy"
        block = self._blocks[number]
        return self.measurements.missing(measured, "search", block, probes=probes)

    def measure(self, measured: Schedule, number: int) -> BlockResult:
        """Measure a schedule on one block.

        Args:
            measured: The schedule in its measured form.
            number: Number of the block.

        Returns:
            The block's result.
        """
        block = self._blocks[number]
        if self.signal == "accuracy":
            scores = self.measurements.scores(measured, "search", block)
            probe = None
        else:
            probe = self.measurements.probe(measured, "search", block)
            scores = probe.scores
        accuracy = block_accuracy(scores, self._tasks[block].tolist(), self._dense_accuracies)
        return BlockResult(accuracy, accuracy if probe is None else self._signal_of(probe))

    def relative_accuracy(self, measured: Schedule) -> float:
        """Return the relative accuracy on the whole search split of what is measured on it."""
        scores = self.measurements.scores(measured, "search", range(len(self._tasks)))
        return relative_accuracy(scores, self._dense_scores, self._tasks.tolist())

    def samples(self, blocks: int) -> tuple[int, ...]:
        """Return the indices of the first blocks' samples in the search split, rising."""
        return tuple(sorted(index for block in self._blocks[:blocks] for index in block))

    def _signal_of(self, probe: Probe) -> float:
        agrees = self.signal == "hidden-agreement"
        return float((probe.hidden_agreements if agrees else probe.answer_probabilities).mean())
