"""Writing a figure in the formats of papers, and the points in it as CSV."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import pandas as pd
from matplotlib.figure import Figure

from pruners.atomic import TEMPORARY_PREFIX
from pruners.errors import StudyError
from studies.files import atomic_path
from studies.plots.pgf import write_pgf

Format = Literal["pdf", "png", "svg", "pgf"]
"""What a figure can be written as; `studies.plots.pgf` says what the last is."""

FORMATS: tuple[Format, ...] = get_args(Format)
PNG_DPI = 300

# Without the date, the same results give the same bytes.
_METADATA: dict[Format, dict[str, None]] = {
    "pdf": {"CreationDate": None},
    "png": {},
    "svg": {"Date": None},
}


def check_formats(formats: Sequence[str]) -> None:
    """Refuse formats that figures cannot be written in.

    Args:
        formats: The formats wanted.

    Raises:
        StudyError: One of them is unknown.
    """
    unknown = [each for each in formats if each not in FORMATS]
    if unknown:
        raise StudyError(
            f"figures are written as {', '.join(FORMATS)}, not as {', '.join(unknown)}"
        )


def save_figure(figure: Figure, stem: Path, formats: Sequence[Format]) -> list[Path]:
    """Write a figure; to be called within `studies.figure_style.style`.

    Args:
        figure: The figure.
        stem: Path of the files without their suffix.
        formats: What to write it as.

    Returns:
        The files written, as many as formats; images of PGF are beside it.

    Raises:
        StudyError: A format is unknown, or a file cannot be written.
    """
    check_formats(formats)
    paths = []
    for each in formats:
        path = stem.with_name(f"{stem.name}.{each}")
        if each == "pgf":
            _save_pgf(figure, path)
        else:
            with atomic_path(path) as temporary:
                figure.savefig(temporary, format=each, dpi=PNG_DPI, metadata=_METADATA[each])
        paths.append(path)
    return paths


def save_points(points: pd.DataFrame, stem: Path) -> Path:
    """Write the points of a figure.

    Args:
        points: A row per point, in the figure's units.
        stem: Path of the file without its suffix.

    Returns:
        The file, as precise as the figure's own numbers.

    Raises:
        StudyError: The file cannot be written.
    """
    path = stem.with_name(f"{stem.name}.csv")
    with atomic_path(path) as temporary:
        points.to_csv(temporary, index=False, lineterminator="\n")
    return path


def _save_pgf(figure: Figure, path: Path) -> None:
    """Write PGF and its images, which it calls by their names, in a folder of their own first."""
    try:
        with tempfile.TemporaryDirectory(prefix=TEMPORARY_PREFIX, dir=path.parent) as folder:
            written = Path(folder) / path.name
            write_pgf(figure, written)
            images = [other for other in sorted(Path(folder).iterdir()) if other != written]
            for file in (*images, written):
                file.replace(path.with_name(file.name))
    except OSError as error:
        raise StudyError(f"{path} cannot be written ({error.strerror or error})") from error
