"""Accuracy on the benchmark's search split while the decoder is being trained."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import numpy as np
import torch
from torch import Tensor
from transformers import CLIPModel, LlavaForConditionalGeneration

from search.embedded.benchmark import Sample
from search.embedded.questions import TASKS
from search.embedded.training.decoder import cache_features, run_packed
from search.embedded.training.packing import IGNORED, Packed, Segment, empty_packed, encode, pack
from search.embedded.vocabulary import TURNS, VOCABULARY

_BATCH = 50


class SearchSplitProbe:
    """Measures accuracy per task, all questions of an image in one packed sequence."""

    def __init__(self, clip: CLIPModel, samples: Sequence[Sample], device: torch.device) -> None:
        """Compute the images' features once.

        Args:
            clip: The trained towers.
            samples: Questions; those of one image stand together.
            device: Where to compute.
        """
        groups = [list(group) for _, group in groupby(samples, key=lambda item: item.image_id)]
        pixels = np.stack([group[0].image for group in groups])
        batches = np.array_split(pixels, max(1, len(pixels) // _BATCH))
        self._features: Tensor = cache_features(clip, batches, device)
        self._packed: Packed = empty_packed(len(groups))
        self._tasks = np.full(self._packed.tokens.shape, -1)
        self._device = device
        for row, group in enumerate(groups):
            segments = [_segment(sample) for sample in group]
            pack(self._packed, row, segments, ())
            for column in np.flatnonzero(self._packed.labels[row] != IGNORED):
                sample = group[self._packed.segments[row, column]]
                self._tasks[row, column] = TASKS.index(sample.task)

    @torch.no_grad()
    def measure(self, llava: LlavaForConditionalGeneration) -> dict[str, float]:
        """Return the accuracy of every task, and their mean as ``mean``."""
        right = np.zeros(self._tasks.shape, dtype=bool)
        training = llava.training
        llava.eval()
        for rows in np.array_split(np.arange(len(right)), max(1, len(right) // _BATCH)):
            features = self._features[torch.from_numpy(rows)].to(self._device).float()
            logits, _ = run_packed(
                llava, features, self._packed, rows, np.zeros(len(rows), dtype=bool)
            )
            right[rows] = logits.argmax(-1).cpu().numpy() == self._packed.labels[rows]
        llava.train(training)
        scores = {
            task: float(right[self._tasks == index].mean()) for index, task in enumerate(TASKS)
        }
        return {**scores, "mean": float(np.mean(list(scores.values())))}


def _segment(sample: Sample) -> Segment:
    words = [*encode(sample.question), VOCABULARY.index(TURNS[1]), VOCABULARY.index(sample.answer)]
    return Segment(tuple(words), len(words) - 1)
