"""Reading JSON that may come from anywhere: of any size, and of any content."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

MOST_BYTES = 64 * 1024**2
"""Size above which a file is not read: what this program writes has kilobytes."""


def read_json(
    path: Path, make_object: Callable[[Sequence[tuple[str, Any]]], dict[str, Any]] = dict
) -> Any:
    """Read a JSON file.

    Args:
        path: The file.
        make_object: Makes an object of its keys and values; by default, of keys that are there
            twice the last value counts.

    Returns:
        What it holds.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is no JSON, is nested too deeply, or is larger than `MOST_BYTES`.
    """
    with path.open("rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise ValueError(f"it is larger than {MOST_BYTES // 1024**2} MiB")
    try:
        return json.loads(content.decode("utf-8"), object_pairs_hook=make_object)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
