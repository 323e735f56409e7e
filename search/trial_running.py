"""One trial: a schedule measured block by block, as far as it is worth it."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pruners.schedule import Schedule
from search.block_measuring import BlockMeter
from search.racing import has_lost, predicted_value
from search.search_history import (
    DUPLICATE_ATTRIBUTE,
    KNOWN_BLOCKS_ATTRIBUTE,
    RACED_OUT_ATTRIBUTE,
    SearchHistory,
)
from search.strategies.base import Tried
from search.workers.assignments import Assignment
from space.parameters import Dimension, Parameter, Value
from studies.records import ACCURACIES_ATTRIBUTE, MEASURED_ATTRIBUTE, note_samples, note_schedule

if TYPE_CHECKING:
    import optuna


Course = Generator[Assignment, None, "TrialResult"]
"""A trial under way: yields what must be measured before it is resumed."""


@dataclass(frozen=True)
class TrialResult:
    """How a trial ended.

    Attributes:
        value: What the study is to be told; None when the trial could not measure anything.
        out_of_samples: Whether a block did not fit into the samples left.
    """

    value: float | None
    out_of_samples: bool = False


class TrialRunner:
    """Runs the trials of one budget.

    Args:
        meter: Measures blocks.
        history: What is known, and the space of its points.
        races: Whether a trial ends when it loses against the best one.
    """

    def __init__(self, meter: BlockMeter, history: SearchHistory, *, races: bool) -> None:
        self._meter = meter
        self._history = history
        self._races = races

    def decode(self, trial: optuna.Trial) -> Schedule:
        """Let a trial propose.

        Args:
            trial: The trial; gets parameters and attributes.

        Returns:
            What is to be measured of it.
        """
        dimensions = self._history.space.parameters
        point = {dimension.name: _suggest(trial, dimension) for dimension in dimensions}
        schedule = self._history.decode(point)
        measured = self._meter.measurements.measured_form(schedule)
        note_schedule(trial, schedule, within_budget=self._history.meets_budget(schedule))
        trial.set_user_attr(MEASURED_ATTRIBUTE, measured.content_hash)
        return measured

    def run(
        self,
        trial: optuna.Trial,
        measured: Schedule,
        blocks: int,
        has_room: Callable[[int], bool],
    ) -> Course:
        """Measure a trial's schedule, beginning where it has not been measured.

        Args:
            trial: The trial; gets intermediate values and attributes.
            measured: What `decode` returned; no other trial may be measuring it.
            blocks: On how many blocks its schedule shall be known.
            has_room: Tells whether so many more samples may be scored; those are then taken.

        Yields:
            What must be measured and kept before the course goes on.

        Returns:
            The result.
        """
        known = self._history.find(measured.content_hash)
        if known is not None:
            if known.raced_out or known.blocks >= blocks:
                return TrialResult(self._repeat(trial, known))
            trial.set_user_attr(KNOWN_BLOCKS_ATTRIBUTE, known.blocks)
        return (yield from self._measure(trial, measured, known, blocks, has_room))

    def _measure(
        self,
        trial: optuna.Trial,
        measured: Schedule,
        known: Tried | None,
        blocks: int,
        has_room: Callable[[int], bool],
    ) -> Course:
        sizes = self._meter.sizes
        accuracies = [] if known is None else known.accuracies.tolist()
        signals = [] if known is None else known.signals.tolist()
        for number, signal in enumerate(signals):
            trial.report(signal, number)
        begun = len(signals)
        best = self._history.best(blocks) if self._races else None
        raced_out = out_of_samples = False
        for number in range(begun, blocks):
            if not has_room(sizes[number]):
                out_of_samples = True
                break
            if (assignment := self._meter.missing(measured, number)) is not None:
                yield assignment
            accuracy, signal = self._meter.measure(measured, number)
            accuracies.append(accuracy)
            signals.append(signal)
            trial.report(signal, number)
            # After the last block there is nothing left to save.
            if best is not None and number < blocks - 1:
                raced_out = has_lost(signals, dict(enumerate(best.signals)))
                if raced_out:
                    break
        if len(signals) == begun:
            return TrialResult(None, out_of_samples)
        note_samples(trial, sum(sizes[: len(signals)]))
        if self._meter.signal != "accuracy":
            trial.set_user_attr(ACCURACIES_ATTRIBUTE, accuracies)
        if raced_out or (self._races and RACED_OUT_ATTRIBUTE in trial.user_attrs):
            # Where it is there already, an ended process had noted it and got no further.
            trial.set_user_attr(RACED_OUT_ATTRIBUTE, raced_out)
        if best is not None and (raced_out or out_of_samples):
            # Returned, not raised as TrialPruned: Optuna would then take the last block's signal
            # for the trial's value.
            value = predicted_value(signals, dict(enumerate(best.signals)), best.estimate)
        elif self._meter.signal == "accuracy" and len(signals) == len(sizes):
            value = self._meter.relative_accuracy(measured)
        else:
            value = float(np.mean(signals))
        return TrialResult(value, out_of_samples)

    def _repeat(self, trial: optuna.Trial, known: Tried) -> float:
        """Give a duplicate what is known of its schedule, at no cost."""
        # Optuna may call either of them its best trial.
        for block, signal in enumerate(known.signals.tolist()):
            trial.report(signal, block)
        note_samples(trial, sum(self._meter.sizes[: known.blocks]))
        trial.set_user_attr(DUPLICATE_ATTRIBUTE, known.trial)
        if self._meter.signal != "accuracy":
            trial.set_user_attr(ACCURACIES_ATTRIBUTE, known.accuracies.tolist())
        if known.raced_out:
            trial.set_user_attr(RACED_OUT_ATTRIBUTE, True)
        return known.estimate


def _suggest(trial: optuna.Trial, dimension: Dimension) -> Value:
    """Let the sampler propose a value."""
    if isinstance(dimension, Parameter):
        return trial.suggest_float(dimension.name, dimension.low, dimension.high)
    return trial.suggest_categorical(dimension.name, dimension.options)
