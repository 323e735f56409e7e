"""What all figures have in common: sizes, fonts, colours, markers, lines, hatches and legends."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, get_args

import matplotlib as mpl
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pruners.errors import StudyError
from studies.figure_data import label
from studies.records import NEAR
from studies.results import DENSE, SEARCHED

Width = Literal["column", "page"]
"""Whether a figure is as wide as a column of a two-column paper, or as both columns."""

COLUMN_INCHES = 3.25
"""Width of one column in the templates of CVPR (3 1/4 in) and ICML (6.75 in of text with 0.25 in
between its columns); AAAI's and IEEE's columns are a little wider."""

PAGE_INCHES = 6.75
"""Width of both columns in ICML's template; CVPR's, AAAI's and IEEE's are a little wider."""

FONT_POINTS = 7.5
SMALL_POINTS = 7.0
"""The least size of text; figures are to be included unscaled."""

_MOST_TOLD_APART = 6
"""Schedules that colours tell apart; of more, those with a marker of their own stand out."""

_OTHERS = "other published"
_GREY = "0.62"
_DENSE_GREY = "0.25"

PALETTE = ("#004488", "#DDAA33", "#BB5566", "#33BBEE", "#CC3311", "#4477AA", "#44BB99", "#EE8866")
"""Paul Tol's "high contrast" scheme, made for readers with colour vision deficiency and for prints
in grey, and after those three colours of his other schemes (https://sronpersonalpages.nl/~pault,
SRON/EPS/TN/09-002), chosen to be as far as can be from these and the dense model's grey."""

_MARKERS = {SEARCHED: "o", DENSE: "*", "visiondrop": "s", "desap": "^"}
_OTHER_MARKERS = ("D", "v", "P", "X")
_LINES = ("--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 2.5)))
_HATCHES = ("", "/////", "\\\\\\\\\\", "xxxx", "-----", "|||||", "++++", "//---")


@contextmanager
def style() -> Iterator[None]:
    """Draw in the common style while the block runs.

    Returns:
        A context manager; matplotlib's settings are what they were after it.
    """
    settings = {
        **sns.axes_style("ticks"),
        **sns.plotting_context("paper", rc={"lines.linewidth": 1.2}),
        "font.size": FONT_POINTS,
        "axes.labelsize": FONT_POINTS,
        "axes.titlesize": FONT_POINTS,
        "xtick.labelsize": SMALL_POINTS,
        "ytick.labelsize": SMALL_POINTS,
        "legend.fontsize": SMALL_POINTS,
        "legend.title_fontsize": SMALL_POINTS,
        "legend.handlelength": 2.2,
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
        "hatch.linewidth": 0.6,
        "pdf.fonttype": 42,  # TrueType: publishers refuse type 3, and text stays text
        "svg.fonttype": "path",  # looks the same where the font is missing
        "svg.hashsalt": "prunetune",  # the same figure has the same bytes
        "text.parse_math": False,  # questions may be about dollars
        "pgf.rcfonts": False,  # text in the fonts of the paper
        "pgf.texsystem": "pdflatex",
    }
    with mpl.rc_context(settings):
        yield


def inches(width: Width) -> float:
    """Tell how wide a figure is.

    Args:
        width: ``"column"`` or ``"page"``.

    Returns:
        The width in inches.

    Raises:
        StudyError: It is neither.
    """
    if width not in get_args(Width):
        raise StudyError(f"a figure's width is 'column' or 'page', not {width!r}")
    return COLUMN_INCHES if width == "column" else PAGE_INCHES


def wrapped(text: str, width: float) -> str:
    """Break a line of text so that it fits on a figure.

    Args:
        text: The text.
        width: Inches that it may take.

    Returns:
        The text in lines.
    """
    characters = int(width * 17)  # so many fit on an inch
    return "\n".join(textwrap.wrap(text, characters, break_long_words=False))


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


def unique_legend(where: Axes | Figure, **options: Any) -> None:
    """Draw a legend in which each label is named once.

    Args:
        where: The axes, or the figure whose axes have what is to be named.
        options: Options of matplotlib's legend.
    """
    axes = [where] if isinstance(where, Axes) else where.axes
    unique: dict[str, Any] = {}
    for axis in axes:
        for handle, text in zip(*axis.get_legend_handles_labels(), strict=True):
            unique.setdefault(text, handle)
    where.legend(list(unique.values()), list(unique), frameon=False, **options)


def samples_from_zero(axis: Axes, level: float) -> None:
    """Let an axis count samples from 0.

    Args:
        axis: Axes on which everything is drawn.
        level: A value that is drawn.
    """
    # Limits are to start at 0 before their margin is chosen: else it is too small for few trials.
    axis.update_datalim([(0, level)])
    axis.autoscale_view()
    axis.set_xlim(left=0)
    axis.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))


def color_of(name: str, names: Sequence[str]) -> str:
    """Return a schedule's colour beside some others.

    Args:
        name: The schedule.
        names: All schedules of the figure.

    Returns:
        A colour as matplotlib reads it.
    """
    if name == DENSE:
        return _DENSE_GREY
    if in_crowd(name, names):
        return _GREY
    # Blue for the searched schedule.
    return PALETTE[_place(name, names) % len(PALETTE)]


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


def line_of(name: str, names: Sequence[str]) -> Any:
    """Return a schedule's line style beside some others.

    Args:
        name: The schedule.
        names: All schedules of the figure.

    Returns:
        A line style as matplotlib reads it; a solid line for the searched schedule.
    """
    place = _place(name, names)
    return "-" if place == 0 else _LINES[(place - 1) % len(_LINES)]


def hatch_of(name: str, names: Sequence[str]) -> str:
    """Return what a schedule's bars are filled with beside some others, for readers in grey.

    Args:
        name: The schedule.
        names: All schedules of the figure.

    Returns:
        A hatch as matplotlib reads it; none for the searched schedule.
    """
    return _HATCHES[_place(name, names) % len(_HATCHES)]


def budget_styles(number: int) -> list[dict[str, Any]]:
    """Choose how the curves of some budgets look, from dark and cheap to light and dear.

    Args:
        number: How many budgets there are.

    Returns:
        Options of matplotlib's plot for each: colour, marker and line style.
    """
    colors = sns.color_palette("cividis", number + 1).as_hex()[:number]  # the last is too light
    lines = ("-", *_LINES)
    markers = ("o", "s", "^", *_OTHER_MARKERS)
    return [
        {
            "color": str(color),
            "marker": markers[place % len(markers)],
            "linestyle": lines[place % len(lines)],
        }
        for place, color in enumerate(colors)
    ]


def _place(name: str, names: Sequence[str]) -> int:
    """Place of a schedule in palettes: 0 for the searched one."""
    others = [other for other in names if other not in (SEARCHED, DENSE)]
    return 0 if name in (SEARCHED, DENSE) else 1 + others.index(name)
