"""The benchmark of all methods: its script, its summary and its figure's data."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pruners import published
from pruners.methods import METHODS
from pruners.shape import LLAVA_1_5_7B
from search.analytic import AnalyticEvaluator
from search.embedded_evaluator import EmbeddedEvaluator
from search.evaluators import SampleKey
from search.measured_form import as_measured
from search.measuring import Measurements
from space.flops import price
from studies.statistics import relative_accuracy

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

from methods_figure import methods_figure, spread_labels  # noqa: E402
from methods_schedules import Entry, budget_points, entry_at, schedule_at  # noqa: E402
from methods_summary import summarise  # noqa: E402
from methods_table import markdown  # noqa: E402


def _run(*arguments):
    command = [sys.executable, str(BENCHMARKS / "methods.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_all_methods_are_measured_once_and_drawn(tmp_path):
    arguments = ["--model", "analytic", "--tokens", 64, "--tokens", 288]
    arguments += ["--work", tmp_path / "work", "--figure", tmp_path / "figure.png", "--out"]
    first = _run(*arguments, tmp_path / "first.json", "--workers", 2)
    assert first.returncode == 0, first.stdout + first.stderr
    assert "schedules:" in first.stdout
    again = _run(*arguments, tmp_path / "again.json")
    assert "schedules:" not in again.stdout  # nothing is left to measure
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "first.json").read_bytes()

    summary = json.loads((tmp_path / "first.json").read_text())
    large, small = summary["budgets"]
    assert (large["tokens"], small["tokens"]) == (288, 64)
    for budget in summary["budgets"]:
        measured = [method["name"] for method in budget["methods"]]
        assert sorted([*measured, *budget["not_met"]]) == sorted(METHODS)
        accuracies = [method["relative_accuracy"] for method in budget["methods"]]
        assert accuracies == sorted(accuracies, reverse=True)
        assert all(method["tflops"] <= budget["tflops"] for method in budget["methods"])

    figure = (tmp_path / "figure.png").read_bytes()
    (tmp_path / "figure.png").unlink()
    drawn = _run(*arguments, tmp_path / "first.json", "--figure-only")
    assert drawn.returncode == 0, drawn.stderr
    assert (tmp_path / "figure.png").read_bytes() == figure


def test_the_embedded_model_is_measured(tmp_path):
    arguments = ["--limit", 52, "--tokens", 192, "--method", "visiondrop", "--method", "desap"]
    arguments += ["--work", tmp_path / "work", "--figure", tmp_path / "figure.png"]
    result = _run(*arguments, "--out", tmp_path / "out.json")
    assert result.returncode == 0, result.stdout + result.stderr
    (budget,) = json.loads((tmp_path / "out.json").read_text())["budgets"]

    evaluator = EmbeddedEvaluator()
    kept = Measurements(evaluator, limits={"report": 52})  # chooses the same samples, no cache
    (point,) = budget_points([192], LLAVA_1_5_7B)
    everything = range(52)
    dense = kept.scores(as_measured(published("dense"), evaluator.shape), "report", everything)
    for method in budget["methods"]:
        schedule = schedule_at(method["name"], point, LLAVA_1_5_7B)
        scores = kept.scores(as_measured(schedule, evaluator.shape), "report", everything)
        expected = relative_accuracy(scores, dense, kept.tasks("report"))
        assert method["relative_accuracy"] == pytest.approx(expected)
        assert method["tflops"] == price(schedule, LLAVA_1_5_7B).tflops


def test_wrong_arguments_are_refused_before_work(tmp_path):
    for arguments, message in (
        (["--method", "visondrop"], "there is no method visondrop"),
        (["--tokens", 600], "tokens is 600"),
        (["--figure-only", "--out", tmp_path / "none.json"], "does not hold"),
    ):
        result = _run("--work", tmp_path / "work", *arguments)
        assert result.returncode == 2
        assert message in result.stdout
    assert not (tmp_path / "work").exists()


def test_budgets_are_those_of_the_papers():
    points = budget_points(None, LLAVA_1_5_7B)
    assert [point.tokens for point in points] == [288, 192, 128, 64, 32]
    assert points[-1].budget.value == pytest.approx(1.67, abs=0.02)  # 32 tokens, with scoring
    for point in points:
        schedule = schedule_at("visiondrop", point, LLAVA_1_5_7B)
        own = published("visiondrop", point.tokens)
        assert schedule.counts(576) == own.counts(576)  # its own budget gives back its counts


def test_random_is_drawn_with_several_seeds_and_impossible_budgets_say_why():
    (point,) = budget_points([64], LLAVA_1_5_7B)
    draws = entry_at("random", point, LLAVA_1_5_7B).schedules
    assert [schedule.stages[0].scorer.seed for schedule in draws] == [0, 1, 2, 3, 4]
    assert len({schedule.content_hash for schedule in draws}) == 5
    (tiny,) = budget_points([8], AnalyticEvaluator().shape)
    impossible = entry_at("fastv", tiny, AnalyticEvaluator().shape)
    assert not impossible.schedules
    assert "at its fewest tokens" in impossible.refusal


class _Table:
    """Knows the scores of four samples of two tasks under three schedules."""

    name, fingerprint, measured_on = "table", "none", "a table"
    shape = AnalyticEvaluator().shape

    def __init__(self, scores):
        self._scores = scores

    def samples(self, split):
        return [SampleKey(str(number), "aabb"[number]) for number in range(4)]

    def score(self, schedule, split, indices):
        return np.array([self._scores[schedule.content_hash][index] for index in indices])


@pytest.fixture
def summary():
    """Two budgets; the random control has two draws."""
    shape = _Table.shape
    large, small = budget_points([48, 16], shape)

    def schedules(name, point):
        return entry_at(name, point, shape).schedules[:2]

    scores = {as_measured(published("dense"), shape).content_hash: [1, 1, 1, 0]}
    entries = {small: [], large: []}
    for point, name, rows in (
        (large, "visionzip", [[1, 1, 1, 0]]),
        (large, "random", [[1, 0, 1, 0], [0, 0, 1, 0]]),
        (small, "visionzip", [[1, 0, 0, 0]]),
        (small, "random", [[1, 1, 0, 0], [1, 1, 1, 0]]),
    ):
        drawn = schedules(name, point)
        entries[point].append(Entry(METHODS[name], drawn))
        for schedule, row in zip(drawn, rows, strict=True):
            scores[as_measured(schedule, shape).content_hash] = row
    entries[small].append(Entry(METHODS["fastv"], (), "too small"))
    return summarise(entries, shape, Measurements(_Table(scores)))


def test_scores_add_up_to_values_worked_out_by_hand(summary):
    large, small = summary.budgets  # the largest first, whatever the order given
    assert summary.dense_tasks == {"a": 1.0, "b": 0.5}
    assert [method.name for method in large.methods] == ["visionzip", "random"]
    assert [method.name for method in small.methods] == ["random", "visionzip"]
    exact, random = large.methods
    # a: 2/2 over 2/2, b: 1/2 over 1/2.
    assert exact.relative_accuracy == 1
    assert exact.interval_95 == (1, 1)
    assert exact.spread is None
    # a: 1/2 and 0/2 over 2/2, b: 1/2 over 1/2 in both draws; mean of tasks, then of draws.
    assert random.per_seed == (0.75, 0.5)
    assert random.relative_accuracy == 0.625
    assert random.spread == pytest.approx(np.std([0.75, 0.5], ddof=1))
    assert random.tasks == {"a": 0.25, "b": 0.5}
    assert small.not_met == {"fastv": "too small"}
    shape = _Table.shape
    for method in (*large.methods, *small.methods):
        # One stage in the encoder: all layers have its count, on either model.
        assert method.layers == (0,)
        assert method.visual_tokens == (method.mean_visual_tokens,)
        assert method.share_of_tokens == method.mean_visual_tokens / shape.visual_tokens
        assert method.measured_share_of_tokens == method.share_of_tokens


def test_the_figure_shows_methods_where_their_tokens_leave_and_controls_everywhere(summary):
    encoder, decoder = methods_figure(summary).panels
    assert [line.label for line in encoder.lines] == ["VisionZip", "random tokens"]
    assert [line.label for line in decoder.lines] == ["random tokens"]
    visionzip = encoder.lines[0]
    assert list(visionzip.tflops) == sorted(visionzip.tflops)
    assert visionzip.percent == (25, 100)  # by rising cost
    assert visionzip.high[1] == visionzip.low[1] == 100


def test_the_markdown_table_has_a_row_per_method_best_mean_first(summary):
    rows = [line.split(" | ") for line in markdown(summary).splitlines()]
    assert [row[0] for row in rows[2:]] == ["| *random tokens*", "| VisionZip"]
    assert rows[3][1] == "100.0 [100.0, 100.0]"


@given(st.lists(st.floats(0, 100), min_size=1, max_size=8), st.floats(0.1, 20))
def test_labels_stay_in_order_apart_and_in_place_on_average(heights, gap):
    placed = spread_labels(heights, gap)
    assert np.mean(placed) == pytest.approx(np.mean(heights), abs=1e-6)
    order = np.argsort(heights, kind="stable")
    steps = np.diff(np.array(placed)[order])
    assert (steps >= gap - 1e-6).all()
    if (np.diff(np.array(heights)[order]) >= gap).all():
        assert placed == heights
