"""Fronts, staircases and their axes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from studies.pareto import pareto_points
from studies.reading import StoredStudy
from studies.report_page.axes import linear_ticks, logarithmic_ticks
from studies.report_page.charts import front_chart, stair_chart, style_of, tokens_in_words
from studies.report_page.page import render
from tests.studies.report_page.html import parsed
from tests.studies.report_page.made import budget_result


def test_every_point_of_the_front_is_there_in_words(study: StoredStudy) -> None:
    results = [budget.result for budget in study.budgets if budget.result]
    points = pareto_points(results)
    (panel,) = parsed(render(study)).all(id="front-panel-0")
    shown = [element.attributes for element in panel.all("g") if "data-of" in element.attributes]
    assert len(shown) == len(points)
    for attributes, point in zip(shown, points, strict=True):
        assert f"{100 * point.relative_accuracy:.1f} % of dense" in attributes["aria-label"]
        assert f"{point.tflops:.3f} TFLOPs" in attributes["aria-label"]
        assert (attributes["data-front"] == "yes") == point.on_front


def test_points_stand_in_order_and_inside(study: StoredStudy) -> None:
    results = [budget.result for budget in study.budgets if budget.result]
    for by_tokens in (False, True):
        chart = front_chart(results, by_tokens=by_tokens)
        points = pareto_points(results)
        costs = [point.mean_visual_tokens if by_tokens else point.tflops for point in points]
        assert np.array_equal(np.argsort(costs), np.argsort([point.x for point in chart.points]))
        accuracies = [-point.relative_accuracy for point in points]
        assert np.array_equal(
            np.argsort(accuracies, kind="stable"),
            np.argsort([point.y for point in chart.points], kind="stable"),
        )
        for point in chart.points:
            assert 0 <= point.high <= point.y <= point.low <= 100
            assert 0 <= point.x <= 100
        assert 3 <= len(chart.up) <= 9
        assert 2 <= len(chart.across) <= 8


def test_the_staircase_is_that_of_the_tokens(study: StoredStudy) -> None:
    result = study.budgets[0].result
    assert result is not None
    chart = stair_chart(result, ["searched", "dense", "visiondrop", "desap"])
    top = float(chart.up[-1].text) if chart.up[-1].at == 0 else float(chart.up[0].text)
    corners = [tuple(map(float, corner.split(","))) for corner in chart.series[0].line.split()]
    tokens = result.schedule("searched").visual_tokens_per_layer
    for layer, count in enumerate(tokens):
        middle = 100 * (layer + 0.5) / len(tokens)
        level = max(corner for corner in corners if corner[0] <= middle)
        before = [y for x, y in corners if x == level[0]]
        assert before[-1] == pytest.approx(100 * (top - count) / top, abs=0.01)


@given(st.floats(0, 1000), st.floats(0, 1000))
def test_ticks_are_round_numbers_around_any_bounds(one: float, other: float) -> None:
    low, high = min(one, other), max(one, other)
    ticks = linear_ticks(low, high)
    numbers = [float(tick.text) for tick in ticks]
    assert 2 <= len(ticks) <= 10
    assert numbers == sorted(set(numbers))
    assert (ticks[0].at, ticks[-1].at) == (100, 0)
    steps = np.diff(numbers)
    assert steps == pytest.approx(steps[0], rel=1e-3)
    assert numbers[0] - 1e-3 * steps[0] <= low
    assert high <= numbers[-1] + 1e-3 * steps[0]


@given(st.floats(0.01, 100), st.floats(1.05, 1000))
def test_logarithmic_ticks_lie_between_their_bounds(low: float, factor: float) -> None:
    ticks = logarithmic_ticks(low, low * factor)
    assert 2 <= len(ticks) <= 8
    assert ticks == sorted(set(ticks))
    assert low <= ticks[0] < ticks[-1] <= low * factor


def test_schedules_that_are_all_alike_have_a_chart() -> None:
    result, _ = budget_result(64, "2 TFLOPs")
    dense_evidence = result.schedule("dense").evidence
    alike = [one.model_copy(update={"evidence": dense_evidence}) for one in result.schedules]
    chart = front_chart([result.model_copy(update={"schedules": tuple(alike)})], by_tokens=False)
    assert len({point.y for point in chart.points}) == 1
    assert all(0 <= point.y <= 100 for point in chart.points)


def test_a_staircase_in_words() -> None:
    result, _ = budget_result(64, "2 TFLOPs")
    own = result.schedule("searched").model_copy(
        update={"visual_tokens_per_layer": (9, 9, 4, 1, 1)}
    )
    assert tokens_in_words(own) == "9 tokens in layers 0 to 1, 4 in layer 2, 1 in layers 3 to 4"


def test_many_schedules_share_a_grey() -> None:
    few: list[Any] = ["searched", "dense", "visiondrop", "desap", "a", "b"]
    assert [style_of(name, few) for name in few] == [0, 1, 2, 3, 4, 5]
    assert [style_of(name, [*few, "c"]) for name in [*few, "c"]] == [0, 1, 2, 3, None, None, None]
