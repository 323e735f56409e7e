"""What a search needs of whatever measures schedules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from pruners.schedule import Schedule
from pruners.shape import Shape

SPLITS = ("search", "confirm", "report")
"""Disjoint sets of samples: for the search, for choosing among its best, for the result."""


class SampleKey(NamedTuple):
    """Which sample was scored.

    Attributes:
        identifier: Unique within its split, and the same in every run.
        task: Task that the sample belongs to.
    """

    identifier: str
    task: str


class Evaluator(Protocol):
    """Scores schedules on samples, always the same score for the same schedule and sample."""

    @property
    def name(self) -> str:
        """Name of the measured model as users give it, for example ``"embedded"``."""

    @property
    def measured_on(self) -> str:
        """The model and benchmark that scores come from, in words."""

    @property
    def shape(self) -> Shape:
        """Shape of the measured model; schedules come with layers of this depth."""

    @property
    def fingerprint(self) -> str:
        """Hash of what decides scores beside schedule and sample: weights and configuration."""

    def samples(self, split: str) -> Sequence[SampleKey]:
        """List a split's samples, in an order that never changes.

        Args:
            split: One of `SPLITS`.

        Returns:
            One key per sample.

        Raises:
            DataError: The split is missing.
        """

    def split_fingerprint(self, split: str) -> str:
        """Hash of a split's samples and their content.

        Args:
            split: One of `SPLITS`.

        Returns:
            The hash, hexadecimal.
        """

    def score(self, schedule: Schedule, split: str, indices: Sequence[int]) -> NDArray[np.float64]:
        """Score samples under a schedule.

        Args:
            schedule: The schedule, with layers of `shape`'s depth.
            split: One of `SPLITS`.
            indices: Indices into `samples(split)`.

        Returns:
            Scores in [0, 1] in the order asked, `(len(indices),)`.

        Raises:
            PrunetuneError: The schedule does not fit the model, or the model cannot be loaded.
        """
