"""The scores of every schedule on every reported sample, as a table."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from studies.files import atomic_path


def write_sample_scores(
    identifiers: Sequence[str],
    tasks: Sequence[str],
    images: Sequence[str],
    scores: Mapping[str, NDArray[np.float64]],
    path: Path,
) -> None:
    """Write a row per sample and a column per schedule.

    Args:
        identifiers: Identifier of each sample.
        tasks: Task of each sample.
        images: Image of each sample.
        scores: Score of each sample by the name of the schedule, each `(samples,)`.
        path: The file to write or replace, usually ``scores.csv``.

    Raises:
        StudyError: The file cannot be written.
    """
    with (
        atomic_path(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["sample", "task", "image", *scores])
        columns = [values.tolist() for values in scores.values()]
        writer.writerows(zip(identifiers, tasks, images, *columns, strict=True))
