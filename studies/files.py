"""Writing files so that no reader ever sees half of one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pruners.errors import StudyError

TEMPORARY_PREFIX = ".writing-"
"""Start of the names of files that a killed process may leave behind; they hold nothing of use."""


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path in the same folder that becomes `path` when the block ends well.

    Args:
        path: The file to write or replace.

    Yields:
        The temporary path, with `path`'s suffix.

    Raises:
        StudyError: The file cannot be written.
    """
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{os.getpid()}-{path.name}")
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise StudyError(f"{path} cannot be written ({error.strerror or error})") from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically.

    Args:
        path: The file to write or replace.
        text: Its new content, stored as UTF-8.

    Raises:
        StudyError: The file cannot be written.
    """
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
