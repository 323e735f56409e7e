"""The table of the ground truth stands in for the model whose results it holds."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from pruners import Schedule, published
from pruners.errors import DataError
from search.analytic import ANALYTIC_SHAPE
from search.attention_mass import AttentionEvaluator, AttentionMass, shares
from search.evaluators import ProbingEvaluator
from search.measured_form import as_measured
from space.budgets import Budget
from space.coding import SearchSpace
from studies.statistics import relative_accuracy

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from lattice import LatticePoint, lattice
from tabular import TabularEvaluator, halves
from tabular_data import About, GroundTruth, SplitSamples, read_ground_truth

LAYERS, TOKENS = ANALYTIC_SHAPE.decoder_layers, ANALYTIC_SHAPE.visual_tokens
TASKS = ("a", "b", "c")
IMAGES = 10


def _split(name, samples):
    return SplitSamples(
        identifiers=tuple(f"{name}-{number}" for number in range(samples)),
        tasks=tuple(TASKS[number % len(TASKS)] for number in range(samples)),
        images=tuple(f"{name}-image-{number % IMAGES}" for number in range(samples)),
    )


@pytest.fixture(scope="module")
def truth():
    """Random results of two small budgets' lattices, on 60 and 45 samples."""
    points = [LatticePoint((TOKENS,) * LAYERS, 0.0, 0.0)]
    points += [point for tokens in (8, 16) for point in list(lattice(ANALYTIC_SHAPE, tokens))[::5]]
    budgets = [0, *(8 if sum(point.tokens) <= 8 * LAYERS else 16 for point in points[1:])]
    generator = np.random.default_rng(0)
    rows = len(points)
    right = {"search": generator.random((rows, 60)) < 0.6}
    right["report"] = generator.random((rows, 45)) < 0.6
    for values in right.values():
        values[0] = True
    return GroundTruth(
        about=About(
            model="imagined",
            measured_on="imagined results",
            fingerprint="0" * 64,
            shape=ANALYTIC_SHAPE,
            split_fingerprints={"search": "1", "report": "2"},
            splits={"search": _split("search", 60), "report": _split("report", 45)},
            versions={},
        ),
        points=tuple(points),
        budgets=np.array(budgets),
        hashes=tuple(point.schedule(ANALYTIC_SHAPE).content_hash for point in points),
        right=right,
        answer_probabilities=generator.random((rows, 60)).astype(np.float32),
        hidden_agreements=generator.uniform(-1, 1, (rows, 60)).astype(np.float32),
        attention=AttentionMass(
            *(shares(generator.random((60, LAYERS, TOKENS))) for _ in ("cross", "own"))
        ),
    )


@pytest.fixture(scope="module")
def table(truth):
    return TabularEvaluator(truth)


def test_a_file_gives_back_what_was_written(truth, tmp_path):
    truth.write(tmp_path / "truth.parquet")
    read = read_ground_truth(tmp_path / "truth.parquet")
    assert (read.about, read.points, read.hashes) == (truth.about, truth.points, truth.hashes)
    np.testing.assert_array_equal(read.budgets, truth.budgets)
    for split in truth.right:
        np.testing.assert_array_equal(read.right[split], truth.right[split])
    step = 1 / 255
    assert abs(read.answer_probabilities - truth.answer_probabilities).max() <= 0.51 * step
    assert abs(read.hidden_agreements - truth.hidden_agreements).max() <= 1.01 * step
    np.testing.assert_allclose(read.attention.cross, truth.attention.cross, rtol=1e-2, atol=1e-6)
    np.testing.assert_allclose(read.attention.own, truth.attention.own, rtol=1e-2, atol=1e-6)


def test_what_is_no_ground_truth_is_refused(tmp_path):
    (tmp_path / "text.parquet").write_text("no parquet")
    with pytest.raises(DataError, match=r"ground_truth\.py"):
        read_ground_truth(tmp_path / "text.parquet")
    with pytest.raises(DataError, match=r"missing\.parquet"):
        read_ground_truth(tmp_path / "missing.parquet")


def test_scores_and_probes_are_those_of_the_row(truth, table):
    assert isinstance(table, ProbingEvaluator)
    assert isinstance(table, AttentionEvaluator)
    indices = [7, 3, 59]
    for row in (0, 1, len(truth.points) - 1):
        schedule = truth.points[row].schedule(ANALYTIC_SHAPE)
        scores = table.score(schedule, "search", indices)
        np.testing.assert_array_equal(scores, truth.right["search"][row, indices])
        np.testing.assert_array_equal(
            table.score(schedule, "report", indices[:2]), truth.right["report"][row, indices[:2]]
        )
        probe = table.probe(schedule, "search", indices)
        np.testing.assert_array_equal(probe.scores, scores)
        np.testing.assert_allclose(
            probe.answer_probabilities, truth.answer_probabilities[row, indices]
        )
        np.testing.assert_allclose(probe.hidden_agreements, truth.hidden_agreements[row, indices])
    np.testing.assert_array_equal(table.score(Schedule(), "search", indices), 1)


def test_what_the_table_does_not_have_is_refused(table):
    schedule = as_measured(published("visiondrop", tokens=192), ANALYTIC_SHAPE)
    with pytest.raises(DataError, match="measured_form"):
        table.score(schedule, "search", [0])
    with pytest.raises(DataError, match="search and report"):
        table.samples("confirm")
    with pytest.raises(DataError, match="report"):
        table.probe(Schedule(), "report", [0])
    with pytest.raises(DataError, match="report"):
        table.attention_mass("report", [0])


def test_relative_accuracies_are_those_of_the_statistics(truth, table):
    for split in ("search", "report"):
        tasks = [sample.task for sample in table.samples(split)]
        values = table.relative_accuracies(split)
        for row in (0, 5, 40):
            right = truth.right[split]
            assert np.isclose(values[row], relative_accuracy(right[row], right[0], tasks))


def test_the_optimum_is_the_best_within_the_budget(truth, table):
    for split, tokens in (("search", 8), ("report", 16)):
        values = table.relative_accuracies(split)
        row = table.optimum(tokens, split)
        within = [sum(point.tokens) <= tokens * LAYERS for point in truth.points]
        assert within[row]
        assert values[row] == max(values[within])
    with pytest.raises(DataError, match="2 tokens"):
        table.optimum(2, "search")


def test_every_schedule_of_the_table_stands_for_itself(truth, table):
    for schedule in truth.schedules:
        assert table.measured_form(schedule) == schedule


@pytest.mark.parametrize("tokens", [8, 12, 16])
def test_the_stand_in_is_the_nearest_that_costs_no_more(truth, table, tokens):
    space = SearchSpace(ANALYTIC_SHAPE, Budget("tokens", tokens))
    generator = np.random.default_rng(tokens)
    limit = 8 if tokens == 12 else tokens  # the table has nothing between 8 and 16
    within = [
        index for index, point in enumerate(truth.points) if sum(point.tokens) <= limit * LAYERS
    ]
    for _ in range(20):
        point = {
            each.name: float(generator.uniform(each.low, each.high)) for each in space.parameters
        }
        measured = as_measured(space.decode(point), ANALYTIC_SHAPE)
        found = table.row(table.measured_form(measured))
        assert found in within

        def apart(index, measured=measured):
            mine = measured.visual_tokens_per_layer(LAYERS, TOKENS)
            ratios = np.log(np.array(truth.points[index].tokens) / np.maximum(mine, 0.5))
            weights = [each.stages[0].scorer.weight for each in (measured, truth.schedules[index])]
            shares = [
                sum(count.contextual for count in counts) / sum(count.alive for count in counts)
                for counts in (each.counts(TOKENS) for each in (measured, truth.schedules[index]))
            ]
            return (
                np.mean(ratios**2) + (weights[0] - weights[1]) ** 2 + (shares[0] - shares[1]) ** 2
            )

        assert np.isclose(apart(found), min(map(apart, within)))


def test_halves_share_no_image_and_leave_the_report_split_alone(truth):
    searched, held_out = halves(truth, seed=3)
    assert sorted([*searched, *held_out]) == list(range(60))
    table = TabularEvaluator(truth, searched, held_out)
    images = [{sample.image for sample in table.samples(split)} for split in ("search", "report")]
    assert len(images[0]) == len(images[1]) == IMAGES // 2
    assert not images[0] & images[1]
    schedule = truth.schedules[4]
    np.testing.assert_array_equal(
        table.score(schedule, "search", range(len(searched))), truth.right["search"][4, searched]
    )
    np.testing.assert_array_equal(
        table.score(schedule, "report", range(len(held_out))), truth.right["search"][4, held_out]
    )
    np.testing.assert_array_equal(
        table.attention_mass("search", [2, 0]).own, truth.attention.own[searched[[2, 0]]]
    )
    assert not np.array_equal(halves(truth, seed=4)[0], searched)


def test_measurements_look_the_table_up(truth, table):
    measurements = table.measurements()
    schedule = measurements.measured_form(truth.schedules[2])
    scores = measurements.scores(schedule, "search", [4, 1])
    np.testing.assert_array_equal(scores, truth.right["search"][2, [4, 1]])
    probe = measurements.probe(schedule, "search", [4, 1])
    np.testing.assert_allclose(probe.answer_probabilities, truth.answer_probabilities[2, [4, 1]])
