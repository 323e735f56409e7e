"""Resampling of scores within tasks, whole rows at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pruners.errors import DataError

_BLOCK_ELEMENTS = 4_000_000  # largest table of resampled counts held in memory at once: 32 MB

Scores = NDArray[np.float64]


def paired_table(columns: Sequence[ArrayLike], tasks: Sequence[str]) -> Scores:
    """Put score columns side by side.

    Args:
        columns: One score per sample each, `(samples,)`.
        tasks: Task of each sample.

    Returns:
        The scores, `(samples, columns)`.

    Raises:
        DataError: Lengths differ, nothing was scored, or a score is not finite.
    """
    arrays = [np.asarray(column, dtype=np.float64) for column in columns]
    shapes = [array.shape for array in arrays]
    if any(shape != (len(tasks),) for shape in shapes):
        raise DataError(
            f"paired statistics need one score per sample: got {shapes} for {len(tasks)} samples"
        )
    if not len(tasks):
        raise DataError("statistics of no samples were asked for; score at least one")
    table = np.stack(arrays, axis=1)
    if not np.isfinite(table).all():
        raise DataError("a score is not a finite number; score every sample before comparing")
    return table


def strata(table: Scores, tasks: Sequence[str]) -> Iterator[tuple[str, Scores]]:
    """Split a table by task.

    Args:
        table: Scores, `(samples, columns)`.
        tasks: Task of each sample.

    Yields:
        Each task with its rows, tasks in alphabetical order.
    """
    labels = np.asarray(tasks)
    for task in np.unique(labels):
        yield str(task), table[labels == task]


def resampled_means(table: Scores, tasks: Sequence[str], resamples: int, seed: int) -> Scores:
    """Mean of each column within each task, samples drawn with replacement.

    Drawing samples is drawing how often each distinct row occurs, which is multinomial; scores of
    0 and 1 have few distinct rows, so this is fast and exact.

    Args:
        table: Scores, `(samples, columns)`; a row is drawn as a whole, which keeps columns paired.
        tasks: Task of each sample; each keeps its number of samples.
        resamples: Number of resamples.
        seed: Seed of the draws.

    Returns:
        The means, `(resamples, tasks, columns)`, tasks in alphabetical order.
    """
    generator = np.random.default_rng(seed)
    means = []
    for _, rows in strata(table, tasks):
        distinct, occurrences = np.unique(rows, axis=0, return_counts=True)
        block = max(1, _BLOCK_ELEMENTS // len(distinct))
        draws = [
            generator.multinomial(
                len(rows), occurrences / len(rows), size=min(block, resamples - start)
            )
            @ distinct
            for start in range(0, resamples, block)
        ]
        means.append(np.concatenate(draws) / len(rows))
    return np.stack(means, axis=1)
