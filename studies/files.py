"""Writing a study's files so that no reader ever sees half of one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pruners import atomic
from pruners.errors import StudyError


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Do as `pruners.atomic.atomic_path`, with an error that says which file of a study it is.

    Args:
        path: The file to write or replace.

    Yields:
        The temporary path, with `path`'s suffix.

    Raises:
        StudyError: The file cannot be written.
    """
    try:
        with atomic.atomic_path(path) as temporary:
            yield temporary
    except OSError as error:
        raise StudyError(f"{path} cannot be written ({error.strerror or error})") from error


def make_folder(folder: Path) -> None:
    """Create a folder, with its parents, where it is missing.

    Args:
        folder: The folder.

    Raises:
        StudyError: It cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StudyError(
            f"the folder {folder} cannot be created ({error.strerror or error}); choose another"
        ) from error


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
