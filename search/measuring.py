"""Scores of schedules on the measured model, none of them measured twice."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pruners.errors import SettingsError
from pruners.schedule import Schedule
from pruners.shape import Shape
from search.evaluators import Evaluator, Probe, ProbingEvaluator, SampleKey
from studies.scores import SampleProbe, ScoreCache


def as_measured(schedule: Schedule, shape: Shape) -> Schedule:
    """Carry a schedule over to the measured model, in the plainest form that behaves the same.

    Retentions and contextual shares become exact shares of the measured model's tokens, and stages
    that drop nothing there go. Schedules that differ on the target but not on the measured model
    thereby have the same content hash, and are measured once.

    Args:
        schedule: A schedule for any depth.
        shape: Shape of the measured model.

    Returns:
        The schedule to measure, with layers of `shape`'s depth.
    """
    scaled = schedule.scaled_to(shape)
    stages = []
    previous = shape.visual_tokens
    counts = scaled.counts(shape.visual_tokens, shape.tokens_per_tile)
    for stage, count in zip(scaled.stages, counts, strict=True):
        if count.alive < previous:
            share = count.contextual / count.alive if count.alive else 0.0
            retention = count.alive / shape.visual_tokens
            stages.append(stage.model_copy(update={"retention": retention, "contextual": share}))
            previous = count.alive
    return scaled.model_copy(update={"stages": tuple(stages)})


def measured_share(schedule: Schedule, shape: Shape) -> float:
    """Return how many visual tokens a schedule keeps on the measured model.

    Args:
        schedule: A schedule for any depth.
        shape: Shape of the measured model.

    Returns:
        Visual tokens as a share of the measured model's own, averaged over its layers.
    """
    tokens = as_measured(schedule, shape).visual_tokens_per_layer(
        shape.decoder_layers, shape.visual_tokens, shape.tokens_per_tile
    )
    return sum(tokens) / (len(tokens) * shape.visual_tokens)


class Measurements:
    """Scores of schedules from one evaluator, kept in a cache.

    Args:
        evaluator: What measures.
        cache: Where scores are kept; in memory when None.
        check: Called before each block is measured; may raise to stop.
        limits: Most samples to use, by split; drawn at random, in equal shares of the tasks.
        seed: Seed of that draw.
        measured_form: What is measured in a schedule's place, in a form that is the same for all
            that behave alike; `as_measured` when None. Evaluators that know only some schedules
            give the nearest of those.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        cache: ScoreCache | None = None,
        check: Callable[[], None] = lambda: None,
        limits: Mapping[str, int] | None = None,
        seed: int = 0,
        measured_form: Callable[[Schedule], Schedule] | None = None,
    ) -> None:
        self.evaluator = evaluator
        self._measured_form = measured_form
        self._cache = cache if cache is not None else ScoreCache(Path(":memory:"))
        self._check = check
        self._limits = dict(limits or {})
        self._seed = seed
        self._chosen: dict[str, list[int]] = {}

    def samples(self, split: str) -> list[SampleKey]:
        """List the samples of a split that are used, in an order that never changes."""
        samples = self.evaluator.samples(split)
        return [samples[index] for index in self._indices(split)]

    def tasks(self, split: str) -> list[str]:
        """List the task of each of `samples`."""
        return [sample.task for sample in self.samples(split)]

    def images(self, split: str) -> list[str]:
        """List the image of each of `samples`."""
        return [sample.image for sample in self.samples(split)]

    @cached_property
    def probing(self) -> ProbingEvaluator | None:
        """The evaluator, if it can probe; else None."""
        return self.evaluator if isinstance(self.evaluator, ProbingEvaluator) else None

    def measured_form(self, schedule: Schedule) -> Schedule:
        """Return what is measured in a schedule's place.

        Args:
            schedule: A schedule for any depth.

        Returns:
            A schedule with layers of the measured model's depth.
        """
        if self._measured_form is not None:
            return self._measured_form(schedule)
        return as_measured(schedule, self.evaluator.shape)

    def scores(self, schedule: Schedule, split: str, indices: Sequence[int]) -> NDArray[np.float64]:
        """Score samples, measuring only those not yet known.

        Args:
            schedule: A schedule as `measured_form` gives it.
            split: Name of the split.
            indices: Indices into `samples(split)`; measured together, so give one block.

        Returns:
            Scores in the order asked, `(len(indices),)`.

        Raises:
            PrunetuneError: The evaluator cannot score the schedule.
        """
        names, used = self._asked(split, indices)
        known = self._cache.get(schedule.content_hash, split, names)
        missing = {
            name: index for name, index in zip(names, used, strict=True) if name not in known
        }
        if missing:
            self._check()
            measured = self.evaluator.score(schedule, split, list(missing.values()))
            new = dict(zip(missing, map(float, measured), strict=True))
            self._cache.put(schedule.content_hash, split, new)
            known |= new
        return np.array([known[name] for name in names])

    def probe(self, schedule: Schedule, split: str, indices: Sequence[int]) -> Probe:
        """Probe samples, measuring only those not yet probed; `scores` then knows them too.

        Args:
            schedule: A schedule as `measured_form` gives it.
            split: Name of the split.
            indices: Indices into `samples(split)`; measured together, so give one block.

        Returns:
            The probe, in the order asked.

        Raises:
            SettingsError: The evaluator does not probe.
            PrunetuneError: The evaluator cannot score the schedule.
        """
        if self.probing is None:
            raise SettingsError(
                f"{self.evaluator.measured_on} gives scores only; choose a strategy that compares "
                "schedules by accuracy"
            )
        names, used = self._asked(split, indices)
        known = self._cache.get_probes(schedule.content_hash, split, names)
        missing = {
            name: index for name, index in zip(names, used, strict=True) if name not in known
        }
        if missing:
            self._check()
            measured = self.probing.probe(schedule, split, list(missing.values()))
            rows = zip(*(values.tolist() for values in measured), strict=True)
            new = dict(zip(missing, map(SampleProbe._make, rows), strict=True))
            self._cache.put_probes(schedule.content_hash, split, new)
            known |= new
        columns = np.array([known[name] for name in names]).reshape(-1, len(Probe._fields))
        return Probe(*columns.T)

    def _asked(self, split: str, indices: Sequence[int]) -> tuple[list[str], list[int]]:
        """Return the identifiers of samples, and their indices into all of the split's."""
        samples = self.evaluator.samples(split)
        chosen = self._indices(split)
        used = [chosen[index] for index in indices]
        return [samples[index].identifier for index in used], used

    def _indices(self, split: str) -> list[int]:
        """Indices of the used samples into all samples of a split, rising."""
        if split not in self._chosen:
            samples = self.evaluator.samples(split)
            limit = self._limits.get(split, len(samples))
            tasks = [sample.task for sample in samples]
            self._chosen[split] = equal_shares(tasks, limit, self._seed)
        return self._chosen[split]


def equal_shares(tasks: Sequence[str], limit: int, seed: int) -> list[int]:
    """Draw samples at random, as many of each task as of any other where there are enough.

    Args:
        tasks: Task of each sample.
        limit: Most samples to draw.
        seed: Seed of the draw.

    Returns:
        Indices of the drawn samples, rising; all of them when they are within the limit.
    """
    if limit >= len(tasks):
        return list(range(len(tasks)))
    labels = np.asarray(tasks)
    names = np.unique(labels)
    generator = np.random.default_rng(seed)
    drawn: list[int] = []
    for number, name in enumerate(names):
        share = limit // len(names) + (number < limit % len(names))
        drawn += generator.permutation(np.flatnonzero(labels == name))[:share].tolist()
    return sorted(drawn)
