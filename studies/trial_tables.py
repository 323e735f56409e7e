"""The trials of a study for other programs: CSV, JSON or parquet."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Literal

import pyarrow as pa
from pyarrow import parquet

from studies.files import atomic_path, write_text
from studies.records import TrialRecord, write_rows

TableFormat = Literal["csv", "json", "parquet"]

_TYPES = {
    "number": pa.int64(),
    "budget": pa.string(),
    "state": pa.string(),
    "objective": pa.float64(),
    "accuracy": pa.float64(),
    "samples": pa.int64(),
    "tflops": pa.float64(),
    "mean_visual_tokens": pa.float64(),
    "within_budget": pa.bool_(),
    "layers": pa.list_(pa.int64()),
    "visual_tokens": pa.list_(pa.int64()),
    "content_hash": pa.string(),
    "seconds": pa.float64(),
    "origin": pa.string(),
    "measured_hash": pa.string(),
}
"""Types of the columns that every study has; its parameters are numbers or names of options."""


def trials_text(records: Sequence[TrialRecord], form: Literal["csv", "json"]) -> str:
    """Write trials as text.

    Args:
        records: Trials of any number of budgets.
        form: ``"csv"``, as in ``trials.csv``, or ``"json"``, a list of objects.

    Returns:
        The text, with a line break at its end.
    """
    if form == "json":
        rows = [asdict(record) for record in records]
        return json.dumps(rows, indent=1, default=datetime.isoformat) + "\n"
    text = io.StringIO()
    write_rows(records, text)
    return text.getvalue()


def write_table(records: Sequence[TrialRecord], form: TableFormat, path: Path) -> None:
    """Write trials to a file.

    Args:
        records: Trials of any number of budgets.
        form: The format. Parquet has a column per parameter, empty where a trial lacks it.
        path: The file to write or replace.

    Raises:
        StudyError: The file cannot be written.
    """
    if form != "parquet":
        write_text(path, trials_text(records, form))
        return
    with atomic_path(path) as temporary:
        parquet.write_table(_arrow_table(records), temporary)


def _arrow_table(records: Sequence[TrialRecord]) -> pa.Table:
    names = sorted({name for record in records for name in record.parameters})
    columns = {
        name: pa.array([getattr(record, name) for record in records], kind)
        for name, kind in _TYPES.items()
    }
    columns |= {name: pa.array([each.parameters.get(name) for each in records]) for name in names}
    return pa.table(columns)
