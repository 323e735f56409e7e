"""What all figures have in common: fonts, colours, markers, legends and files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from studies.figure_data import label
from studies.files import atomic_path
from studies.records import NEAR
from studies.results import DENSE, SEARCHED

PNG_DPI = 200

_MOST_TOLD_APART = 6
"""Schedules that colours tell apart; of more, those with a marker of their own stand out."""

_OTHERS = "other published"
_GREY = "0.62"

_MARKERS = {SEARCHED: "o", DENSE: "*", "visiondrop": "s", "desap": "^"}
_OTHER_MARKERS = ("D", "v", "P", "X")


@contextmanager
def style() -> Iterator[None]:
    """Draw in the common style while the block runs.

    Returns:
        A context manager; matplotlib's settings are what they were after it.
    """
    settings = {
        **sns.axes_style("ticks"),
        **sns.plotting_context("paper", font_scale=0.8, rc={"lines.linewidth": 1.2}),
        "axes.linewidth": 0.8,
        "xtick.major.width": 0.8,
        "ytick.major.width": 0.8,
        "xtick.major.size": 3,
        "ytick.major.size": 3,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.grid.axis": "y",
        "grid.color": "0.92",
        "pdf.fonttype": 42,  # TrueType: publishers refuse type 3, and text stays text
    }
    with mpl.rc_context(settings):
        yield


def is_crowd(names: Sequence[str]) -> bool:
    """Say whether schedules are too many for colours to tell them apart.

    Args:
        names: All schedules of the figure, by their names in results.

    Returns:
        Whether there are more than six.
    """
    return len(names) > _MOST_TOLD_APART


def in_crowd(name: str, names: Sequence[str]) -> bool:
    """Say whether a schedule is one of too many, and not one that stands out.

    Args:
        name: The schedule.
        names: All schedules of the figure.

    Returns:
        Whether it is drawn like the others of the crowd.
    """
    return is_crowd(names) and name not in _MARKERS


def legend_label(name: str, names: Sequence[str]) -> str:
    """Return a schedule's name in the legend; those of a crowd share one.

    Args:
        name: The schedule.
        names: All schedules of the figure.

    Returns:
        The label.
    """
    return _OTHERS if in_crowd(name, names) else label(name)


def origin_label(origin: str, names: Sequence[str]) -> str:
    """Return the name in the legend of a trial that a search began with.

    Args:
        origin: The schedule that the trial is, or after ``"near "`` the one that it is near to.
        names: All schedules of the figure.

    Returns:
        The label, such as ``"near VisionDrop"``.
    """
    method = origin.removeprefix(NEAR)
    return ("" if method == origin else NEAR) + legend_label(method, names)


def unique_legend(axis: Axes, **options: Any) -> None:
    """Draw a legend in which each label is named once.

    Args:
        axis: Where to draw it.
        options: Options of matplotlib's legend.
    """
    handles, labels = axis.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    axis.legend(unique.values(), unique.keys(), frameon=False, **options)


def color_of(name: str, names: Sequence[str]) -> str:
    """Return a schedule's colour beside some others.

    Args:
        name: The schedule.
        names: All schedules of the figure.

    Returns:
        A colour as matplotlib reads it.
    """
    if name == DENSE:
        return "0.25"
    if in_crowd(name, names):
        return _GREY
    palette = sns.color_palette("colorblind").as_hex()
    others = [other for other in names if other not in (SEARCHED, DENSE)]
    # Blue for the searched schedule; the rest skips to orange, green, ...
    return str(palette[0] if name == SEARCHED else palette[1 + others.index(name) % 8])


def marker_of(name: str, names: Sequence[str]) -> str:
    """Return a schedule's marker beside some others.

    Args:
        name: The schedule.
        names: All schedules of the figure.

    Returns:
        A marker as matplotlib reads it.
    """
    if in_crowd(name, names):
        return "o"
    others = [other for other in names if other not in _MARKERS]
    return _MARKERS.get(name) or _OTHER_MARKERS[others.index(name) % len(_OTHER_MARKERS)]


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write a figure as PDF and PNG.

    Args:
        figure: The figure.
        stem: Path of the files without their suffix.

    Returns:
        The files written.

    Raises:
        StudyError: A file cannot be written.
    """
    paths = [stem.with_name(f"{stem.name}.{suffix}") for suffix in ("pdf", "png")]
    for path in paths:
        # Without the date, the same results give the same bytes.
        metadata = {"CreationDate": None} if path.suffix == ".pdf" else {}
        with atomic_path(path) as temporary:
            figure.savefig(temporary, dpi=PNG_DPI, metadata=metadata)
    return paths
