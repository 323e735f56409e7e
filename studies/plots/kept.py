"""The gallery figure: which patches of sample images a schedule keeps, stage by stage."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from PIL import Image

from studies.figure_style import SMALL_POINTS, Width, inches, wrapped
from studies.kept_tokens import Gallery, KeptSample, KeptStage, KeptTokens

MOST_SAMPLES = 3
"""Samples in one figure."""

_FADED = 0.85  # how white dropped patches are
_COLUMNS = ["sample", "budget", "schedule", "layer", "row", "column", "state"]


@dataclass(frozen=True)
class KeptRow:
    """One sample and what one schedule keeps of it.

    Attributes:
        sample: The sample.
        kept: What is kept.
    """

    sample: KeptSample
    kept: KeptTokens

    def caption(self, width: float) -> str:
        """Write the question and, on a line of its own, the answers to it.

        Args:
            width: Inches that they may take.

        Returns:
            The text in lines.
        """
        answers = (
            f"right: {self.sample.expected}; dense: {self.sample.dense_answer}; "
            f"pruned: {self.kept.answer}"
        )
        return f"{wrapped(self.sample.question, width)}\n{wrapped(answers, width)}"


def kept_rows(gallery: Gallery, budget: str, schedule: str) -> list[KeptRow]:
    """Collect what one schedule keeps.

    Args:
        gallery: The gallery.
        budget: The budget.
        schedule: The schedule's name.

    Returns:
        A row for each of three samples at most, of different tasks if there are so many.
    """
    rows = [
        KeptRow(sample, kept)
        for sample in gallery.samples
        for kept in sample.kept
        if kept.budget == budget and kept.schedule == schedule and kept.stages
    ]
    tasks = [row.sample.task for row in rows]
    order = sorted(range(len(rows)), key=lambda place: tasks[:place].count(tasks[place]))
    return [rows[place] for place in order[:MOST_SAMPLES]]


def kept_points(rows: Sequence[KeptRow]) -> pd.DataFrame:
    """List the patches.

    Args:
        rows: The rows.

    Returns:
        A row per sample, stage and patch: whether it is dominant, contextual or dropped.
    """
    points = []
    for row in rows:
        for stage in row.kept.stages:
            for patch, state in enumerate(_states(row.sample, stage)):
                place = divmod(patch, row.sample.columns)
                about = (row.sample.identifier, row.kept.budget, row.kept.schedule, stage.layer)
                points.append((*about, *place, state))
    return pd.DataFrame(points, columns=_COLUMNS)


def draw_kept(rows: Sequence[KeptRow], width: Width) -> Figure:
    """Draw each sample's image, and beside it what is left after each stage.

    Patches of dominant tokens are shown as they are, dropped ones fade, and where a contextual
    token stands there is a ring.

    Args:
        rows: The rows.
        width: How wide.

    Returns:
        The figure.
    """
    columns = 1 + max(len(row.kept.stages) for row in rows)
    side = inches(width) / columns
    captions = [row.caption(inches(width)) for row in rows]
    heights = [
        (side - 0.08) * row.sample.rows / row.sample.columns + 0.2 + 0.14 * len(text.splitlines())
        for row, text in zip(rows, captions, strict=True)
    ]
    figure = Figure(figsize=(inches(width), sum(heights) + 0.1), layout="constrained")
    parts = figure.subfigures(len(rows), 1, squeeze=False, height_ratios=heights).ravel()
    for part, row, text in zip(parts, rows, captions, strict=True):
        _draw_row(part, row, text, columns, ring=0.5 * 72 * side / row.sample.columns)
    return figure


def _draw_row(part: SubFigure, row: KeptRow, caption: str, columns: int, ring: float) -> None:
    part.suptitle(caption, fontsize=SMALL_POINTS, x=0.01, ha="left")
    axes = part.subplots(1, columns, squeeze=False).ravel()
    with Image.open(io.BytesIO(row.sample.image)) as opened:
        image = np.asarray(opened.convert("RGB"))
    for axis in axes:
        axis.set_axis_off()
    _show(axes[0], row.sample, image, f"{row.sample.patches} tokens")
    for axis, stage in zip(axes[1:], row.kept.stages, strict=False):
        _show(axis, row.sample, image, f"layer {stage.layer}: {stage.alive}")
        _show_stage(axis, row.sample, stage, ring)


def _show(axis: Axes, sample: KeptSample, image: np.ndarray, title: str) -> None:
    axis.imshow(image, extent=(0, sample.columns, sample.rows, 0), interpolation="nearest")
    axis.set_title(title, fontsize=SMALL_POINTS, pad=2)


def _show_stage(axis: Axes, sample: KeptSample, stage: KeptStage, ring: float) -> None:
    """Fade what is dropped, and mark contextual tokens by rings so many points wide."""
    cover = np.ones((sample.patches, 4))
    cover[:, 3] = 0.0
    cover[list(sample.dropped(stage)), 3] = _FADED
    axis.imshow(
        cover.reshape(sample.rows, sample.columns, 4),
        extent=(0, sample.columns, sample.rows, 0),
        interpolation="nearest",
    )
    if stage.contextual:
        rows, columns = np.divmod(np.array(stage.contextual), sample.columns)
        for size, color in ((1.5, "white"), (0.7, "black")):  # seen on any ground
            axis.plot(
                columns + 0.5,
                rows + 0.5,
                linestyle="none",
                marker="o",
                markersize=min(ring, 4.0),
                markerfacecolor="none",
                markeredgecolor=color,
                markeredgewidth=size,
            )


def _states(sample: KeptSample, stage: KeptStage) -> list[str]:
    states = ["dropped"] * sample.patches
    for patch in stage.dominant:
        states[patch] = "dominant"
    for patch in stage.contextual:
        states[patch] = "contextual"
    return states
