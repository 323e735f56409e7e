"""Resampling of scores, all questions of an image at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Resampled:
    """What images drawn with replacement add up to.

    Attributes:
        totals: Sums of the scores, `(resamples, tasks, columns)`, tasks in alphabetical order; in
            one resample, all columns are sums of the same samples.
        groups: Numbers of the tasks that are drawn together, group by group.
        images: Images of each group, as many in each resample as were scored.
    """

    totals: Scores
    groups: tuple[tuple[int, ...], ...]
    images: tuple[int, ...]


def resample(
    table: Scores,
    tasks: Sequence[str],
    images: Sequence[str] | None,
    resamples: int,
    seed: int,
) -> Resampled:
    """Draw images with replacement, each with all its questions.

    Tasks that share images are drawn together. Those that share none were sampled independently of
    each other, and keep their number of images each.

    Args:
        table: Scores, `(samples, columns)`; a row is drawn as a whole, which keeps columns paired.
        tasks: Task of each sample.
        images: Image of each sample, the same name in every task; None where each has its own.
        resamples: Number of resamples.
        seed: Seed of the draws.

    Returns:
        The resamples.

    Raises:
        DataError: There is not one image per sample.
    """
    totals, counts = _image_totals(table, tasks, images)
    generator = np.random.default_rng(seed)
    drawn = np.empty((resamples, *totals.shape[1:]))
    groups = sharing_tasks(counts > 0)
    images_of = []
    for group in groups:
        here = totals[(counts[:, group] > 0).any(axis=1)][:, group]
        sums = _resampled_sums(generator, here.reshape(len(here), -1), resamples)
        drawn[:, group] = sums.reshape(resamples, len(group), -1)
        images_of.append(len(here))
    return Resampled(drawn, tuple(map(tuple, groups)), tuple(images_of))


def sharing_tasks(has: NDArray[np.bool_]) -> list[list[int]]:
    """Group tasks that share images, directly or through others.

    Args:
        has: Whether an image has samples of a task, `(images, tasks)`.

    Returns:
        Numbers of the tasks of each group, rising.
    """
    sharing = has.astype(np.int64).T @ has > 0
    groups: list[list[int]] = []
    left = set(range(len(sharing)))
    while left:
        group = [min(left)]
        while (wider := np.flatnonzero(sharing[group].any(axis=0)).tolist()) != group:
            group = wider
        groups.append(group)
        left -= set(group)
    return groups


def _image_totals(
    table: Scores, tasks: Sequence[str], images: Sequence[str] | None
) -> tuple[Scores, NDArray[np.intp]]:
    """Add up each image's scores, `(images, tasks, columns)`, and samples, `(images, tasks)`."""
    if images is not None and len(images) != len(tasks):
        raise DataError(f"{len(images)} images were given for {len(tasks)} samples; give one each")
    names, task_of = np.unique(np.asarray(tasks), return_inverse=True)
    image_of = np.arange(len(tasks))
    if images is not None:
        image_of = np.unique(np.asarray(images), return_inverse=True)[1]
    totals = np.zeros((image_of.max() + 1, len(names), table.shape[1]))
    counts = np.zeros(totals.shape[:2], dtype=np.intp)
    np.add.at(totals, (image_of, task_of), table)
    np.add.at(counts, (image_of, task_of), 1)
    return totals, counts


def _resampled_sums(generator: np.random.Generator, rows: Scores, resamples: int) -> Scores:
    """Sums of as many rows as there are, drawn with replacement, `(resamples, columns)`.

    Drawing rows is drawing how often each distinct one occurs. Images of one question and scores of
    0 and 1 have few distinct rows, whose numbers are drawn at once.
    """
    distinct, occurrences = np.unique(rows, axis=0, return_counts=True)
    block = max(1, _BLOCK_ELEMENTS // len(distinct))
    sums = np.empty((resamples, rows.shape[1]))
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        sums[start : start + size] = _times(generator, occurrences, size) @ distinct
    return sums


def _times(
    generator: np.random.Generator, occurrences: NDArray[np.intp], size: int
) -> NDArray[np.int64]:
    """Draw how often each distinct row occurs, `(size, distinct)`: multinomial."""
    rows, distinct = int(occurrences.sum()), len(occurrences)
    if 10 * distinct < rows:
        return generator.multinomial(rows, occurrences / rows, size=size)
    # Row by row: of many distinct rows, numpy's multinomial is several times slower.
    drawn = np.repeat(np.arange(distinct), occurrences)[generator.integers(rows, size=(size, rows))]
    drawn += distinct * np.arange(size)[:, None]
    return np.bincount(drawn.ravel(), minlength=size * distinct).reshape(size, distinct)
