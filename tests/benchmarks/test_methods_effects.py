"""The papers' effects on the embedded model: contrasts, their differences and trends."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pruners.shape import LLAVA_1_5_7B
from search.analytic import AnalyticEvaluator
from search.measuring import Measurements
from space.flops import price
from studies.statistics import Difference, Interval, relative_accuracy

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

from methods_contrasts import CONTRASTS  # noqa: E402
from methods_effects_summary import Comparisons, corrected, trend  # noqa: E402
from methods_orders import ORDERS  # noqa: E402
from methods_schedules import budget_points, entry_at  # noqa: E402

POINTS = budget_points(None, LLAVA_1_5_7B)
ONE_STAGE = "four stages against one"


@pytest.mark.parametrize("contrast", CONTRASTS, ids=lambda contrast: contrast.name)
def test_the_schedules_of_a_contrast_are_equal_but_for_one_thing(contrast):
    for point in POINTS:
        first, second = contrast.pair(point, LLAVA_1_5_7B)
        assert first.content_hash != second.content_hash
        if "positions" in contrast.name:
            assert first.stages == second.stages
            assert (first.positions, second.positions) == ("original", "compact")
            continue
        assert first.positions == second.positions
        if contrast.equal.startswith("cost"):
            costs = [price(schedule, LLAVA_1_5_7B).tflops for schedule in (first, second)]
            assert max(costs) <= point.budget.value
            assert costs[0] == pytest.approx(costs[1], rel=0.01)
            continue
        assert first.counts(576) == second.counts(576)
        for one, other in zip(first.stages, second.stages, strict=True):
            chosen_by = {"scorer": other.scorer, "selector": other.selector}
            assert one.model_copy(update=chosen_by) == other
        differing = [
            one.layer
            for one, other in zip(first.stages, second.stages, strict=True)
            if one.scorer != other.scorer
        ]
        if "visual" in contrast.name or "random" in contrast.name:
            assert 0 not in differing  # the encoder's stage, if there is one, is the same
        assert differing


def test_several_stages_are_held_against_one():
    (contrast,) = (contrast for contrast in CONTRASTS if contrast.name == ONE_STAGE)
    for point in POINTS:
        several, alone = contrast.pair(point, LLAVA_1_5_7B)
        assert [stage.layer for stage in several.stages] == [0, 8, 16, 24]
        assert [stage.layer for stage in alone.stages] == [0]
        encoder = {"retention": alone.stages[0].retention}
        assert several.stages[0].model_copy(update=encoder) == alone.stages[0]


def test_the_papers_orders_are_ranked_best_first():
    for order in ORDERS:
        percent = list(order.percent.values())
        assert percent == sorted(percent, reverse=True)


def test_a_trend_is_the_least_squares_slope_with_its_bootstrap_interval():
    generator = np.random.default_rng(0)
    tasks = ["a"] * 60 + ["b"] * 30
    dense = (generator.random(90) < 0.9).astype(float)
    halvings = [1.0, 2.0, 4.0]
    pairs = [
        tuple((generator.random(90) < chance).astype(float) for chance in chances)
        for chances in ((0.8, 0.75), (0.7, 0.6), (0.7, 0.3))
    ]

    def slope(rows):
        differences = [
            relative_accuracy(first[rows], dense[rows], tasks)
            - relative_accuracy(second[rows], dense[rows], tasks)
            for first, second in pairs
        ]
        return np.polyfit(halvings, differences, 1)[0]

    found = trend(pairs, halvings, dense, tasks)
    assert found.estimate == pytest.approx(slope(np.arange(90)))
    resampled = [
        slope(np.concatenate([generator.integers(0, 60, 60), generator.integers(60, 90, 30)]))
        for _ in range(1000)
    ]
    np.testing.assert_allclose(found.interval, np.quantile(resampled, [0.025, 0.975]), atol=0.02)
    assert found.significant == (min(resampled) > 0 or found.interval.low > 0)


def test_a_family_is_corrected_as_holm_says():
    alone = [Difference(0.1, Interval(0.01, 0.2), p_value, True) for p_value in (0.01, 0.04, 0.03)]
    after = corrected(alone)
    # Smallest times 3, next times 2, the last not below the one before it.
    assert [found.p_value for found in after] == pytest.approx([0.03, 0.06, 0.06])
    assert [found.significant for found in after] == [True, False, False]


def test_methods_are_held_against_controls_by_sign():
    """The synthetic problem rewards tokens only: few of them lose to a control with many."""
    evaluator = AnalyticEvaluator()
    small, large = budget_points([32, 288], LLAVA_1_5_7B)
    comparisons = Comparisons(LLAVA_1_5_7B, Measurements(evaluator))
    few, many = (
        {name: entry_at(name, point, LLAVA_1_5_7B) for name in ("visionzip", "random")}
        for point in (small, large)
    )
    (better,) = comparisons.controls(
        large, {"visionzip": many["visionzip"], "random": few["random"]}
    )
    assert (better.method, better.control, better.verdict) == ("visionzip", "random", "agrees")
    assert 0 < better.interval_95[0] < better.difference < better.interval_95[1]
    (worse,) = comparisons.controls(
        large, {"visionzip": few["visionzip"], "random": many["random"]}
    )
    assert worse.verdict == "disagrees"
    assert worse.interval_95[0] < worse.difference < worse.interval_95[1] < 0


def test_the_script_reports_what_the_scores_say(tmp_path):
    arguments = ["--model", "analytic", "--contrast", ONE_STAGE, "--tokens", 192, "--tokens", 32]
    for name in ("visiondrop", "visionzip", "random"):
        arguments += ["--method", name]
    arguments += ["--work", tmp_path / "work", "--out", tmp_path / "out.json"]
    command = [sys.executable, BENCHMARKS / "methods_effects.py", *arguments]
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    effects = json.loads((tmp_path / "out.json").read_text())
    (contrast,) = effects["contrasts"]
    assert [here["tokens"] for here in contrast["budgets"]] == [192, 32]
    assert [here["paper_points"] for here in contrast["budgets"]] == [None, 1.54]
    differences = []
    for here in contrast["budgets"]:
        difference = here["first_accuracy"] - here["second_accuracy"]
        assert here["difference"] == pytest.approx(difference)
        differences.append(difference)
    halvings = np.log2(192 / 32)
    slope = (differences[1] - differences[0]) / halvings
    assert contrast["trend"]["difference"] == pytest.approx(slope)
    (order,) = [order for order in effects["orders"] if order["tokens"] == 32]
    assert order["methods"] == ["visiondrop", "visionzip"]
    assert abs(order["kendall_tau"]) == 1
    assert order["kendall_tau"] == np.sign(order["percent"][0] - order["percent"][1])
    assert len(effects["controls"]) == 4  # two methods at two budgets
