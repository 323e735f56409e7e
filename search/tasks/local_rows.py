"""Rows that the user has in files of their own."""

from __future__ import annotations

from pathlib import Path

from pruners.errors import DataError


def parquet_files(task: str, folder: Path) -> list[Path]:
    """List a folder's parquet files, in milliseconds.

    Args:
        task: Name of the task whose rows they hold, for messages.
        folder: The folder.

    Returns:
        The files, by name.

    Raises:
        DataError: There is none, one is damaged, or a file was given.
    """
    import pyarrow
    from pyarrow import parquet

    if folder.is_file():
        raise DataError(
            f"--task-data {task}={folder}: this is a file; pass the folder that it is in, whose "
            "parquet files are all read"
        )
    files = sorted(folder.glob("*.parquet")) if folder.is_dir() else []
    if not files:
        raise DataError(
            f"--task-data {task}={folder}: there is no parquet file; pass a folder with rows in "
            "parquet files"
        )
    for file in files:
        try:
            parquet.read_schema(file)
        except (OSError, pyarrow.ArrowInvalid) as error:
            raise DataError(
                f"--task-data {task}: {file} is no parquet file ({error}); write it again"
            ) from error
    return files
