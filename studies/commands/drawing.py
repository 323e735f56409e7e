"""What `prunetune studies plot` and `report` write."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, cast

from pruners.errors import StudyError
from studies.kept_tokens import find_gallery
from studies.reading import StoredStudy

Width = Literal["column", "page"]


def draw_figures(study: StoredStudy, folder: Path, formats: str, width: Width) -> list[Path]:
    """Draw every figure that a study has something for.

    Args:
        study: The study.
        folder: Where to write; created when missing.
        formats: Names of formats, separated by commas.
        width: Width of the figures.

    Returns:
        The files written.

    Raises:
        StudyError: A format is unknown, there is nothing to draw, or a file cannot be written.
    """
    # Imported late: seaborn takes a second to load.
    from studies.plots import write_figures
    from studies.plots.files import Format, check_formats

    names = [name.strip() for name in formats.split(",") if name.strip()]
    if not names:
        raise StudyError("--formats is empty; expected some of pdf, png, svg and pgf")
    check_formats(names)
    gallery = find_gallery(study.path)
    written = write_figures(study, folder, cast(list[Format], names), width, gallery)
    if not written:
        raise StudyError(f"{study.name} has no trials to draw yet; let its run go on")
    return written


def write_page(study: StoredStudy, path: Path) -> Path:
    """Write a study as one page.

    Args:
        study: The study.
        path: The file to write or replace.

    Returns:
        The file.

    Raises:
        StudyError: The gallery is damaged, or the file cannot be written.
    """
    from studies.report_page import write_report_page

    return write_report_page(study, path, find_gallery(study.path))
