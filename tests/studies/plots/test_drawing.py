"""The CSV beside a figure holds the points that are drawn; nothing is cut off or too small."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from matplotlib import colors
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.legend import Legend
from matplotlib.text import Text

from studies.figure_style import (
    PALETTE,
    color_of,
    hatch_of,
    inches,
    line_of,
    marker_of,
    style,
)
from studies.plots import write_figures
from studies.plots.writing import plan_figures

ALL = ["pareto", "anytime", "hypervolume", "importance", "schedules", "tasks", "kept-2-tflops"]
WIDTHS = ["column", "page"]


@pytest.fixture(scope="module")
def drawn(study, gallery):
    """Draws every figure as matplotlib has it, by name."""
    planned = list(plan_figures(study, gallery))

    @cache
    def draw(width="column"):
        with style():
            figures = {each.name: each.draw(width) for each in planned}
            for figure in figures.values():
                FigureCanvasAgg(figure).draw()
        return figures

    return draw


@pytest.fixture(scope="module")
def points(study, gallery, tmp_path_factory):
    """The points of every figure as the files have them."""
    folder = tmp_path_factory.mktemp("points")
    write_figures(study, folder, formats=(), gallery=gallery)
    assert sorted(path.name for path in folder.iterdir()) == sorted(f"{n}.csv" for n in ALL)
    return {name: pd.read_csv(folder / f"{name}.csv") for name in ALL}


def _line(axis, label):
    (found,) = [line for line in axis.lines if line.get_label() == label]
    return found


def test_the_pareto_points_are_the_drawn_ones(drawn, points):
    (axis,) = drawn()["pareto"].axes
    table = points["pareto"]
    for name, text in (
        ("searched", "searched"),
        ("visiondrop", "VisionDrop"),
        ("desap", "DeSAP"),
        ("dense", "dense"),
    ):
        chosen = table[table.schedule == name]
        (bars,) = [each for each in axis.containers if each.get_label() == text]
        data = bars.lines[0].get_xydata()
        assert data[:, 0] == pytest.approx(chosen.tflops)
        assert data[:, 1] == pytest.approx(100 * chosen.relative_accuracy)
        if name != "dense":
            (segments,) = [each.get_segments() for each in bars.lines[2]]
            ends = np.array([segment[:, 1] for segment in segments])
            assert ends[:, 0] == pytest.approx(100 * chosen.interval_low)
            assert ends[:, 1] == pytest.approx(100 * chosen.interval_high)


def test_the_curves_are_the_drawn_ones(drawn, points):
    figures = drawn()
    (axis,) = figures["anytime"].axes
    table = points["anytime"]
    for budget in ("2 TFLOPs", "4 TFLOPs"):
        chosen = table[(table.budget == budget) & (table.split == "search")]
        data = _line(axis, budget).get_xydata()
        assert data[:, 0] == pytest.approx(chosen.samples)
        assert data[:, 1] == pytest.approx(chosen.relative_accuracy_percent)
    (axis,) = figures["hypervolume"].axes
    table = points["hypervolume"]
    chosen = table[table.split == "search"]
    data = _line(axis, "incumbents, search split").get_xydata()
    assert data[:, 0] == pytest.approx(chosen.samples)
    assert data[:, 1] == pytest.approx(chosen.hypervolume_percent)
    (desap,) = table[(table.schedule == "desap")].hypervolume_percent
    assert _line(axis, "DeSAP, reported").get_ydata() == pytest.approx([desap])


def test_the_bars_are_the_drawn_ones(drawn, points):
    figures = drawn()
    (axis,) = figures["importance"].axes
    assert [bar.get_width() for bar in axis.patches] == pytest.approx(
        points["importance"].error_rise_points
    )
    table = points["tasks"]
    for axis, budget in zip(figures["tasks"].axes, ("2 TFLOPs", "4 TFLOPs"), strict=True):
        assert axis.get_title() == budget
        for bars in axis.containers:
            if hasattr(bars, "patches"):
                name = {"VisionDrop": "visiondrop", "DeSAP": "desap"}.get(
                    bars.get_label(), bars.get_label()
                )
                chosen = table[(table.budget == budget) & (table.schedule == name)]
                heights = [bar.get_height() for bar in bars.patches]
                assert heights == pytest.approx(chosen.relative_accuracy_percent)


def test_the_stairs_and_patches_are_the_drawn_ones(drawn, points):
    figures = drawn()
    table = points["schedules"]
    for axis, budget in zip(figures["schedules"].axes, ("2 TFLOPs", "4 TFLOPs"), strict=True):
        own = table[table.budget == budget]
        for stairs, (_, chosen) in zip(
            axis.patches, own.groupby("schedule", sort=False), strict=True
        ):
            assert list(stairs.get_data().values) == list(chosen.visual_tokens)
    table = points["kept-2-tflops"]
    panels = [axis for axis in figures["kept-2-tflops"].axes if len(axis.images) == 2]
    groups = table.groupby(["sample", "layer"], sort=False)
    assert len(panels) == len(groups) == 4
    for axis, (_, chosen) in zip(panels, groups, strict=True):
        cover = np.asarray(axis.images[1].get_array())[..., 3].ravel()
        assert ((cover > 0) == (chosen.state == "dropped")).all()
        rings = chosen[chosen.state == "contextual"]
        assert axis.lines[0].get_xdata() == pytest.approx(rings.column + 0.5)
        assert axis.lines[0].get_ydata() == pytest.approx(rings.row + 0.5)


def _within(interval, value):
    return min(interval) <= value <= max(interval)


def _texts(figure):
    beyond = {
        id(label)
        for axis in figure.axes
        for side in (axis.xaxis, axis.yaxis)
        for tick in side.get_major_ticks()
        if not (axis.axison and _within(side.get_view_interval(), tick.get_loc()))
        for label in (tick.label1, tick.label2)
    }
    return [
        text
        for text in figure.findobj(Text)
        if text.get_visible() and text.get_text().strip() and id(text) not in beyond
    ]


@pytest.mark.parametrize("width", WIDTHS)
def test_no_text_is_cut_off_or_below_seven_points(drawn, width):
    for name, figure in drawn(width).items():
        assert figure.get_figwidth() == inches(width)
        frame = figure.bbox
        for text in _texts(figure):
            assert text.get_fontsize() >= 7, (name, text.get_text())
            box = text.get_window_extent()
            if box.width == 0 or (text.axes is not None and not text.axes.get_visible()):
                continue
            slack = 1.0  # pixel of a hundredth of an inch
            inside = (
                box.x0 >= frame.x0 - slack
                and box.x1 <= frame.x1 + slack
                and box.y0 >= frame.y0 - slack
                and box.y1 <= frame.y1 + slack
            )
            assert inside, (name, text.get_text())


@pytest.mark.parametrize("width", WIDTHS)
def test_no_legend_lies_over_data(drawn, width):
    for name, figure in drawn(width).items():
        for legend in figure.findobj(Legend):
            box = legend.get_window_extent()
            assert not any(box.overlaps(axis.get_window_extent()) for axis in figure.axes), name


@pytest.mark.parametrize("width", WIDTHS)
def test_what_was_reported_after_a_single_trial_is_inside_the_axes(study, width):
    budgets = tuple(replace(budget, trials=budget.trials[:1]) for budget in study.budgets)
    planned = {each.name: each for each in plan_figures(replace(study, budgets=budgets))}
    for name in ("anytime", "hypervolume"):
        with style():
            figure = planned[name].draw(width)
            FigureCanvasAgg(figure).draw()
        (axis,) = figure.axes
        edge = axis.get_window_extent().x1
        last = planned[name].points.samples.max()
        markers = [line for line in axis.lines if len(line.get_xdata()) == 1]
        reported = [line for line in markers if line.get_xdata()[0] > last]
        assert len(reported) >= 2, name  # of budgets, of schedules
        for line in reported:
            ((x, _),) = axis.transData.transform(line.get_xydata())
            half = line.get_markersize() / 2 * figure.dpi / 72
            assert x + half <= edge, name


@pytest.mark.parametrize("width", WIDTHS)
def test_names_along_an_axis_do_not_run_into_each_other(drawn, width):
    for name, figure in drawn(width).items():
        for axis in figure.axes:
            labels = [
                label
                for label in axis.get_xticklabels()
                if label.get_text() and label.get_visible() and label.get_rotation() == 0
            ]
            low, high = sorted(axis.get_xlim())
            shown = [label for label in labels if low <= label.get_position()[0] <= high]
            for one, other in pairwise(shown):
                first, second = one.get_window_extent(), other.get_window_extent()
                assert first.x1 <= second.x0, (name, one.get_text(), other.get_text())


MATRICES = {
    # Machado, Oliveira, Fernandes 2009, severity 1.0, for linear RGB.
    "normal": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
TO_XYZ = [
    [0.4124564, 0.3575761, 0.1804375],
    [0.2126729, 0.7151522, 0.0721750],
    [0.0193339, 0.1191920, 0.9503041],
]


def _lab(color, matrix):
    """CIELAB of a colour as such eyes see it (D65)."""
    rgb = np.array(colors.to_rgb(color))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    xyz = np.array(TO_XYZ) @ np.clip(np.array(matrix) @ linear, 0, 1)
    x, y, z = np.cbrt(np.maximum(xyz / [0.95047, 1.0, 1.08883], 0.008856))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("eyes", MATRICES)
def test_colours_that_are_told_apart_are_far_apart_for_all_eyes(eyes):
    shown = [_lab(color, MATRICES[eyes]) for color in (*PALETTE[:5], color_of("dense", ["dense"]))]
    for place, one in enumerate(shown):
        for other in shown[:place]:
            assert np.linalg.norm(one - other) > 15


def test_a_print_in_grey_can_be_read():
    lightness = [_lab(color, MATRICES["normal"])[0] for color in PALETTE]
    # The three schedules that are in every figure differ by lightness alone, all from the paper.
    assert min(abs(a - b) for a, b in pairwise(sorted(lightness[:3]))) > 15
    assert max(lightness) < 80
    names = ["searched", "visiondrop", "desap", "fastv", "vscan", "dart"]
    for look in (marker_of, line_of, hatch_of):
        assert len({str(look(name, names)) for name in names}) == len(names)
