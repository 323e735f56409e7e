"""A synthetic problem with a known best schedule, for tests and for trying the program out."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from pruners.schedule import Schedule
from pruners.scorers import SimilarityFusion
from pruners.shape import LLAVA_1_5_7B, Shape
from search.attention_mass import AttentionMass, shares
from search.evaluators import Probe, SampleKey
from studies.identity import SPLITS, check_split

ANALYTIC_SHAPE = LLAVA_1_5_7B.model_copy(
    update={"name": "analytic", "decoder_layers": 8, "visual_tokens": 144}
)
"""As shallow as the embedded model, so that schedules are carried over the same way."""

TASK_ACCURACIES: Mapping[str, float] = MappingProxyType(
    {"easy": 0.95, "medium": 0.85, "hard": 0.75, "harder": 0.65, "hardest": 0.55}
)
"""Accuracy of the dense model by task."""

SAMPLES_PER_TASK: Mapping[str, int] = MappingProxyType(
    {"search": 100, "confirm": 60, "report": 100}
)

BEST_TOKENS = (72, 72, 36, 36, 24, 12, 12, 12)
"""Visual tokens that each decoder layer needs; fewer cost accuracy, more gain none."""

BEST_WEIGHT = 0.3
"""Similarity weight that costs no accuracy."""

BEST_CONTEXTUAL = 0.2
"""Contextual share that costs no accuracy."""

SPARE_ATTENTION = 0.05
"""Share of a layer's attention that goes to the tokens that it does not need."""

QUESTIONS_PER_IMAGE = 2
"""Samples of each task that have an image in common; ten of five tasks, as on real images."""

PROBE_TEMPERATURE = 0.2
"""How gradually a probe's answer probability goes from 0 to 1 as luck falls below accuracy."""

_OWN_NOISE = 0.3  # share of samples whose luck changes from schedule to schedule
_IMAGE_LUCK = 0.4  # share of samples whose luck is that of their image


class AnalyticEvaluator:
    """Scores schedules by a formula, with the noise of a benchmark.

    A schedule that leaves every layer the tokens of `BEST_TOKENS`, with similarity weight
    `BEST_WEIGHT` and contextual share `BEST_CONTEXTUAL`, is as good as dense. Every other loses
    accuracy with its distance. Whether one sample is answered right is a draw of that probability;
    most draws are the same for all schedules, as questions are easy or hard for all of them, and
    some are the same for an image's questions, so that these are not independent.

    Args:
        seed: Seed of the draws.
        shape: Shape of the imagined model, 8 decoder layers deep.
    """

    name = "analytic"
    measured_on = "a synthetic problem with a known best schedule, not a model"

    def __init__(self, seed: int = 0, shape: Shape = ANALYTIC_SHAPE) -> None:
        self.seed = seed
        self.shape = shape
        self.scored = 0
        """Samples scored so far."""

    @property
    def fingerprint(self) -> str:
        """Hash of what decides scores beside schedule and sample."""
        return hashlib.sha256(f"analytic 2, seed {self.seed}".encode()).hexdigest()

    def samples(self, split: str) -> Sequence[SampleKey]:
        """List a split's samples, task by task."""
        check_split(split)
        return _samples(split)

    def split_fingerprint(self, split: str) -> str:
        """Hash of a split's samples."""
        return hashlib.sha256(repr(self.samples(split)).encode()).hexdigest()

    def score(self, schedule: Schedule, split: str, indices: Sequence[int]) -> NDArray[np.float64]:
        """Draw whether samples are answered right under a schedule."""
        self.scored += len(indices)
        right: NDArray[np.float64] = (self._margins(schedule, split) > 0).astype(np.float64)
        return right[list(indices)]

    def probe(self, schedule: Schedule, split: str, indices: Sequence[int]) -> Probe:
        """Say how clearly samples are answered right or wrong under a schedule.

        A sample is right when its accuracy exceeds its luck. The answer's probability is the
        logistic function of that margin over `PROBE_TEMPERATURE`: above 1/2 where the sample is
        right, rising with the schedule's relative accuracy r, and less noisy than the score, as a
        real model's is. The agreement is r^(1/2 + luck): 1 for dense. No schedule is better in one
        of them and worse in relative accuracy but for the draws.

        Args:
            schedule: A schedule with layers of `shape`'s depth.
            split: One of `SPLITS`.
            indices: Indices into `samples(split)`.

        Returns:
            The probe, in the order asked.
        """
        relative = self.relative_accuracy(schedule)
        margins = self._margins(schedule, split)[list(indices)]
        accuracies = self._accuracies(schedule, split)[list(indices)]
        return Probe(
            scores=self.score(schedule, split, indices),
            answer_probabilities=1 / (1 + np.exp(-margins / PROBE_TEMPERATURE)),
            hidden_agreements=relative ** (0.5 + accuracies - margins),
        )

    def attention_mass(self, split: str, indices: Sequence[int]) -> AttentionMass:
        """Give each layer's attention to as many tokens as it needs, most to the first ones.

        Args:
            split: One of `SPLITS`.
            indices: Indices into `samples(split)`.

        Returns:
            The attention: of each layer all but `SPARE_ATTENTION` to as many tokens as
            `BEST_TOKENS` says, the rest to the others, falling from token to token; the same from
            text and image.
        """
        tokens = np.arange(self.shape.visual_tokens)
        needed = tokens < np.array(BEST_TOKENS)[:, None]
        falling = np.linspace(2, 1, len(tokens))
        layers = (1 - SPARE_ATTENTION) * shares(needed * falling)
        layers += SPARE_ATTENTION * shares(~needed * falling)
        received = np.repeat(layers[None], len(indices), axis=0)
        return AttentionMass(cross=received, own=received)

    def _accuracies(self, schedule: Schedule, split: str) -> NDArray[np.float64]:
        """Probability that each sample is answered right, `(samples,)`."""
        relative = self.relative_accuracy(schedule)
        return np.array([TASK_ACCURACIES[sample.task] * relative for sample in self.samples(split)])

    def _margins(self, schedule: Schedule, split: str) -> NDArray[np.float64]:
        """By how much the accuracy of each sample exceeds its luck, `(samples,)`."""
        samples = self.samples(split)
        stream = SPLITS.index(split)
        own = np.random.default_rng([self.seed, stream, int(schedule.content_hash[:15], 16)])
        shared = np.random.default_rng([self.seed, stream])
        images = np.unique([sample.image for sample in samples], return_inverse=True)[1]
        changes = shared.random(len(samples)) < _OWN_NOISE
        draws = np.where(changes, _luck(own, images), _luck(shared, images))
        margins: NDArray[np.float64] = self._accuracies(schedule, split) - draws
        return margins

    def relative_accuracy(self, schedule: Schedule) -> float:
        """Relative accuracy of a schedule without noise; 1 for dense and for the best ones.

        Every task's accuracy is this share of the dense one, so that it is what `score` gives on
        average over seeds, and on infinitely many images.

        Args:
            schedule: A schedule with layers of `shape`'s depth.

        Returns:
            exp(-loss), where the loss adds up the missing share of tokens, meaned over layers, and
            the distances of similarity weight and contextual share.
        """
        if not schedule.stages:
            return 1.0
        tokens = schedule.visual_tokens_per_layer(
            self.shape.decoder_layers, self.shape.visual_tokens
        )
        missing = [
            max(0.0, 1 - alive / best) for alive, best in zip(tokens, BEST_TOKENS, strict=True)
        ]
        scorer = schedule.stages[0].scorer
        weight = scorer.weight if isinstance(scorer, SimilarityFusion) else 0.0
        contextual = float(np.mean([stage.contextual for stage in schedule.stages]))
        loss = (
            float(np.mean(missing))
            + 0.2 * abs(weight - BEST_WEIGHT)
            + 0.5 * abs(contextual - BEST_CONTEXTUAL)
        )
        return float(np.exp(-loss))


@cache
def _samples(split: str) -> tuple[SampleKey, ...]:
    return tuple(
        SampleKey(f"{split}-{task}-{number}", task, f"{split}-{number // QUESTIONS_PER_IMAGE}")
        for task in TASK_ACCURACIES
        for number in range(SAMPLES_PER_TASK[split])
    )


def _luck(generator: np.random.Generator, images: NDArray[np.intp]) -> NDArray[np.float64]:
    """Draw each sample's luck: uniform in [0, 1), some samples having that of their image.

    Args:
        generator: Source of the draws.
        images: Number of each sample's image, `(samples,)`.

    Returns:
        The luck, `(samples,)`; a sample is right where it is below the sample's accuracy.
    """
    of_image = generator.random(images.max() + 1)[images]
    of_sample = generator.random(len(images))
    by_image = generator.random(len(images)) < _IMAGE_LUCK
    return np.where(by_image, of_image, of_sample)
