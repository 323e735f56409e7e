"""Error bars of intervals that rounding puts beside their estimates."""

from __future__ import annotations

from dataclasses import replace

import pytest
from matplotlib.container import ErrorbarContainer

from studies.comparing import split_evidence
from studies.plots.writing import plan_figures


@pytest.mark.parametrize(
    ("pruned", "reference", "images"),
    [
        ([1] * 17 + [0] * 33, [1] * 17 + [0] * 33, None),  # 100 * 0.34 / 0.34 is not 100
        ([0, 1, 1, 0, 1], [0, 1, 1, 1, 1], ["x"] * 5),  # (3 / 5) / (4 / 5) is not 3 / 4
    ],
    ids=["as the dense model", "one image"],
)
def test_intervals_without_width_are_drawn(study, pruned, reference, images):
    tasks = ["counting"] * len(pruned)
    measured = {
        name: split_evidence(scores, reference, tasks, images)
        for name, scores in (("searched", pruned), ("dense", reference))
    }
    (stored, *_) = study.budgets
    assert stored.result is not None
    schedules = tuple(
        schedule.model_copy(
            update={
                "evidence": measured[schedule.name],
                "task_intervals": {"counting": measured[schedule.name].interval_95},
            }
        )
        for schedule in stored.result.schedules
        if schedule.name in measured
    )
    result = stored.result.model_copy(update={"schedules": schedules})
    budgets = (replace(stored, trials=(), result=result),)
    planned = {each.name: each for each in plan_figures(replace(study, budgets=budgets))}
    for name in ("pareto", "tasks"):
        (axis,) = planned[name].draw("column").axes
        (segments,) = [
            line.get_segments()
            for bars in axis.containers
            if isinstance(bars, ErrorbarContainer)
            for line in bars.lines[2]
        ]
        ((start, end),) = segments
        assert start == pytest.approx(end)
