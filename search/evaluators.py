"""What a search needs of whatever measures schedules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from pruners.errors import SettingsError
from pruners.schedule import Schedule
from pruners.shape import Shape


@dataclass(frozen=True)
class SampleKey:
    """Which sample was scored.

    Attributes:
        identifier: Unique within its split, and the same in every run.
        task: Task that the sample belongs to.
        image: Name of its image, also in other tasks; its identifier where it is given none.
            Samples of one image are not independent, so intervals are over images.
    """

    identifier: str
    task: str
    image: str = ""

    def __post_init__(self) -> None:
        if not self.image:
            object.__setattr__(self, "image", self.identifier)


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
            split: One of `studies.identity.SPLITS`.

        Returns:
            One key per sample.

        Raises:
            DataError: The split is missing.
        """

    def split_fingerprint(self, split: str) -> str:
        """Hash of a split's samples and their content.

        Args:
            split: One of `studies.identity.SPLITS`.

        Returns:
            The hash, hexadecimal.
        """

    def score(self, schedule: Schedule, split: str, indices: Sequence[int]) -> NDArray[np.float64]:
        """Score samples under a schedule.

        Args:
            schedule: The schedule, with layers of `shape`'s depth.
            split: One of `studies.identity.SPLITS`.
            indices: Indices into `samples(split)`.

        Returns:
            Scores in [0, 1] in the order asked, `(len(indices),)`.

        Raises:
            PrunetuneError: The schedule does not fit the model, or the model cannot be loaded.
        """


class Probe(NamedTuple):
    """What several samples under one schedule say about it.

    Attributes:
        scores: Their scores, as `Evaluator.score` gives them, `(samples,)`.
        answer_probabilities: Probability that the pruned model gives to the dense model's answer,
            `(samples,)`. It varies less from sample to sample than the score.
        hidden_agreements: Cosine between the hidden states behind the decoder's last norm at the
            prompt's last token, pruned and dense, `(samples,)`.
    """

    scores: NDArray[np.float64]
    answer_probabilities: NDArray[np.float64]
    hidden_agreements: NDArray[np.float64]


@runtime_checkable
class ProbingEvaluator(Evaluator, Protocol):
    """An evaluator that can say how near the pruned model is to the dense one on each sample."""

    def probe(self, schedule: Schedule, split: str, indices: Sequence[int]) -> Probe:
        """Score samples under a schedule and compare them with the dense model.

        Args:
            schedule: The schedule, with layers of `shape`'s depth.
            split: One of `studies.identity.SPLITS`.
            indices: Indices into `samples(split)`.

        Returns:
            The probe, in the order asked.

        Raises:
            PrunetuneError: The schedule does not fit the model, or the model cannot be loaded.
        """


def require_probing(evaluator: Evaluator) -> ProbingEvaluator:
    """Return an evaluator as one that probes.

    Args:
        evaluator: The evaluator.

    Returns:
        The same.

    Raises:
        SettingsError: It does not probe.
    """
    if not isinstance(evaluator, ProbingEvaluator):
        raise SettingsError(
            f"{evaluator.measured_on} gives scores only; choose a strategy that compares schedules "
            "by accuracy"
        )
    return evaluator
