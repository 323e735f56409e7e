"""Schedules are carried over as the product scales them, and compared by known statistics."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pruners.errors import DataError
from search.embedded_evaluator import EmbeddedEvaluator

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import transfer
from ground_truth import DATA, MEAN_TOKENS, sampled_points
from lattice import SAMPLE, lattice, lattice_sample, scaled
from search_quality_page import replace_between
from tabular_data import GroundTruth, read_ground_truth
from transfer_summary import Values, measures, other_model, rank_correlation

PAGE = Path(__file__).parents[2] / "docs" / "search-quality.md"


@pytest.fixture(scope="module")
def embedded():
    return read_ground_truth(DATA / "ground-truth-embedded.parquet")


@pytest.fixture(scope="module")
def deep(embedded):
    """The shape of a model twice as deep."""
    shape = embedded.about.shape
    return shape.model_copy(update={"decoder_layers": 2 * shape.decoder_layers})


@pytest.fixture(scope="module")
def carried(embedded, deep):
    """What a model twice as deep has if it does with schedules what the embedded one does."""
    points = sampled_points(deep)
    there = [replace(point, tokens=point.tokens[::2]) for _, point in points]
    here = [0, *(embedded.points.index(point) for point in there[1:])]
    return GroundTruth(
        about=embedded.about.model_copy(update={"shape": deep}),
        points=tuple(point for _, point in points),
        budgets=np.array([budget for budget, _ in points]),
        hashes=tuple(point.schedule(deep).content_hash for _, point in points),
        right={split: right[here] for split, right in embedded.right.items()},
        answer_probabilities=embedded.answer_probabilities[here],
        hidden_agreements=embedded.hidden_agreements[here],
    )


def test_samples_are_distinct_points_of_the_lattice_and_always_the_same():
    shape = EmbeddedEvaluator().shape
    for tokens in (72, 8):
        drawn = lattice_sample(shape, tokens)
        assert len(set(drawn)) == len(drawn) == SAMPLE
        assert set(drawn) < set(lattice(shape, tokens))
        assert drawn == lattice_sample(shape, tokens)


def test_twice_the_layers_see_the_same_tokens_twice(embedded, deep):
    for point in lattice_sample(embedded.about.shape, 32)[::8]:
        found = scaled(point, embedded.about.shape, deep)
        assert found.tokens == tuple(np.repeat(point.tokens, 2).tolist())
        assert found.schedule(deep).stages[0] == point.schedule(embedded.about.shape).stages[0]


def test_a_model_that_does_the_same_has_nothing_to_regret(embedded, carried):
    rows = transfer.carried_rows(embedded, carried)
    assert [embedded.budgets[row] for row in rows] == carried.budgets[1:].tolist()
    found = other_model(embedded, rows, carried)
    assert [each.mean_tokens for each in found.budgets] == list(MEAN_TOKENS)
    for each in found.budgets:
        assert each.regret.value == 0
        assert each.correlation == each.own_correlation
        assert each.correlation.interval_95[0] <= each.correlation.value
        assert each.mean_tokens - 1 < each.tokens_there <= each.mean_tokens
    dense = found.dense_accuracy
    tasks = pd.Series(carried.about.splits["report"].tasks)
    assert np.isclose(dense, pd.Series(carried.right["report"][0]).groupby(tasks).mean().mean())


def test_a_table_of_other_schedules_is_refused(embedded, carried):
    swapped = replace(carried, points=(carried.points[0], *carried.points[:0:-1]))
    with pytest.raises(DataError, match="--parts sampled"):
        transfer.carried_rows(embedded, swapped)


def test_measures_of_a_case_worked_out_by_hand():
    values = Values(
        proxy=np.array([0.9, 0.5, 0.7, 0.1]),
        search=np.array([0.2, 0.8, 0.6, 0.4]),
        report=np.array([0.3, 0.7, 0.8, 0.4]),
    )
    correlation, own, regret, chance = measures(values)
    ranks = pd.DataFrame({"p": values.proxy, "s": values.search, "r": values.report})
    expected = ranks.corr("spearman")
    assert np.isclose(correlation, expected.loc["p", "r"])
    assert np.isclose(own, expected.loc["s", "r"])
    assert np.isclose(regret, 0.7 - 0.3)
    assert np.isclose(chance, 0.7 - 0.55)
    assert np.isnan(rank_correlation(np.ones(4), values.report))


def test_only_what_stands_between_the_marks_is_replaced(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<b>\nold\n<e>\nafter\n")
    replace_between(page, "<b>", "<e>", "new\n")
    assert page.read_text() == "before\n<b>\n\nnew\n\n<e>\nafter\n"
    with pytest.raises(DataError, match="no place"):
        replace_between(page, "<none>", "<e>", "new\n")


def test_the_page_has_the_table_of_the_results():
    results = transfer.Results.model_validate_json(transfer.RESULTS.read_text(encoding="utf-8"))
    assert results.models
    assert transfer.markdown(results.models) in PAGE.read_text(encoding="utf-8")
