"""Samples of a benchmark: which rows they are made of, under identifiers that never change."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pruners.errors import DataError
from search.tasks.catalogue import KnownTask

_ROTATIONS = 1_000_000
"""MMBench numbers the rotations of a question's choices in the millions of its index."""

_QUESTION = "question"
_IMAGE = "image"
"""Columns that every task reads, by lmms-eval's definitions."""

_BATCH = 64
"""Rows whose images are in memory at once while they are hashed."""


@dataclass(frozen=True)
class BenchmarkSample:
    """What gets one score.

    Attributes:
        identifier: The same in every copy of the data set, and unique in it.
        stratum: Group whose share subsets keep.
        rows: Indices of its rows in the data set.
        image: Names its image: the same for samples of the same image.
    """

    identifier: str
    stratum: str
    rows: tuple[int, ...]
    image: str


def benchmark_samples(
    task: KnownTask, rows: Any, *, images_apart: bool = False
) -> list[BenchmarkSample]:
    """Find the samples of a data set without decoding images.

    Args:
        task: The benchmark.
        rows: The rows, a `datasets.Dataset`.
        images_apart: Whether the data set keeps images in a table of their own.

    Returns:
        The samples, in the order of their first row.

    Raises:
        DataError: A column is missing, a row lacks its answer, question or image, or no row is
            left.
    """
    names = set(rows.column_names)
    needed = [*task.id_columns, *([task.only[0]] if task.only else [])]
    read = [_QUESTION, *([] if images_apart else [_IMAGE])]
    missing = [name for name in (*needed, task.answer_column, *read) if name not in names]
    if missing:
        raise DataError(
            f"the rows of {task.name} have no column {', '.join(missing)}; they have "
            f"{', '.join(sorted(names))}"
        )
    strata = [column for column in task.strata if column.partition(".")[0] in names]
    wanted = {*needed, *(column.partition(".")[0] for column in strata)}
    raw = rows.with_format("arrow")
    unanswered = raw.select_columns([task.answer_column])[:][task.answer_column].null_count
    if unanswered:
        raise DataError(
            f"{unanswered} rows of {task.name} have no {task.answer_column}; use a split with "
            "public answers"
        )
    for column in read:
        if column == _IMAGE and task.images_optional:
            continue
        if empty := rows.data.column(column).null_count:  # without reading images
            raise DataError(f"{empty} rows of {task.name} have no {column}; leave them out")
    records = raw.select_columns(sorted(wanted))[:].to_pylist() if wanted else [{}] * len(rows)
    used = [
        number
        for number, record in enumerate(records)
        if task.only is None or record[task.only[0]] == task.only[1]
    ]
    if not used:
        raise DataError(f"no row of {task.name} can be used; check its data")
    if task.id_columns:
        identifiers = [_identifier(task, records[number]) for number in used]
    else:
        identifiers = [content_hash(raw[number].to_pylist())[:16] for number in used]
    if not task.groups:
        identifiers = _made_unique(identifiers)
    members: dict[str, list[int]] = {}
    for identifier, number in zip(identifiers, used, strict=True):
        members.setdefault(identifier, []).append(number)
    images = _image_names(task, raw)
    return [
        BenchmarkSample(
            identifier,
            "/".join(str(_field(records[numbers[0]], column)) for column in strata),
            tuple(numbers),
            (images[numbers[0]] if images is not None else None) or identifier,
        )
        for identifier, numbers in members.items()
    ]


def content_hash(rows: Iterable[Any]) -> str:
    """Hash rows as they are stored, images by their bytes and not by where they lie.

    Args:
        rows: Rows of Python values.

    Returns:
        The hash, hexadecimal.
    """
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(_plain(row), sort_keys=True).encode())
    return digest.hexdigest()


def _identifier(task: KnownTask, record: Mapping[str, Any]) -> str:
    values = [record[column] for column in task.id_columns]
    if task.rule == "mmbench":
        values = [int(values[0]) % _ROTATIONS]
    return "/".join(str(value) for value in values)


def _image_names(task: KnownTask, raw: Any) -> list[str | None] | None:
    """Name each row's image, by its bytes where no column does; None where there is none."""
    column = task.image_column if task.image_column in raw.column_names else _IMAGE
    if column not in raw.column_names:
        return None
    stored = raw.select_columns([column])
    return [
        content_hash([value]) if value is not None else None
        for batch in stored.iter(batch_size=_BATCH)
        for value in batch[column].to_pylist()
    ]


def _made_unique(identifiers: Sequence[str]) -> list[str]:
    """Number what occurs more than once, by the order of rows."""
    counts = Counter(identifiers)
    seen: Counter[str] = Counter()
    unique = []
    for identifier in identifiers:
        seen[identifier] += 1
        repeated = counts[identifier] > 1
        unique.append(f"{identifier}#{seen[identifier]}" if repeated else identifier)
    return unique


def _field(record: Mapping[str, Any], column: str) -> Any:
    name, _, field = column.partition(".")
    value = record[name]
    return value.get(field) if field and isinstance(value, dict) else value


def _plain(value: Any) -> Any:
    """Bring a stored value into a form that JSON knows."""
    if isinstance(value, dict):
        stored = value.get("bytes")
        if stored is not None and set(value) <= {"bytes", "path"}:
            return hashlib.sha256(stored).hexdigest()
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if isinstance(value, bytes):
        return hashlib.sha256(value).hexdigest()
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)
