"""The page on search quality says what the results hold."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from ground_truth import DATA, MEAN_TOKENS
from search_quality_page import tables
from search_quality_records import read_summary
from search_quality_tuning import DECIDES_ITSELF, read_settings
from tabular import TabularEvaluator
from tabular_data import read_ground_truth

from search.strategies import STRATEGIES

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "search-quality.md").read_text(encoding="utf-8")
COSTS = (250, 1000, 4000, 16_000)


@pytest.fixture(scope="module")
def summary():
    return read_summary(ROOT / "benchmarks" / "results" / "search-quality.json")


@pytest.fixture(scope="module")
def evaluator():
    return TabularEvaluator(read_ground_truth(DATA / "ground-truth-embedded.parquet"))


def test_the_tables_are_those_of_the_json(summary):
    assert tables(summary) in PAGE


HELD_BACK = ("held-back", "second-held-back", "third-held-back")


@pytest.mark.parametrize(
    "name", ["search-quality", *(f"search-quality-{each}" for each in HELD_BACK)]
)
def test_every_strategy_was_run_at_every_budget_and_cost(name):
    summary = read_summary(ROOT / "benchmarks" / "results" / f"{name}.json")
    expected = set(itertools.product(STRATEGIES, MEAN_TOKENS, COSTS))
    assert {(each.strategy, each.mean_tokens, each.cost) for each in summary.results} == expected
    assert summary.seeds >= 10


def test_fixed_samples_per_trial_are_those_that_tuning_found(summary):
    tuned = read_settings(DATA / "search-quality-settings.json")
    for result in summary.results:
        if result.strategy not in DECIDES_ITSELF:
            # What was not tuned is run with what serves random search best.
            found = tuned.get(result.strategy, tuned["random"])
            assert result.samples_per_trial == found[result.cost]


@pytest.mark.parametrize("name", HELD_BACK)
def test_the_page_of_a_held_back_model_says_what_its_results_hold(name):
    held_back = read_summary(ROOT / "benchmarks" / "results" / f"search-quality-{name}.json")
    page = (ROOT / "docs" / f"search-quality-{name}.md").read_text(encoding="utf-8")
    assert tables(held_back) in page
    tied = sum(verdict.first_or_tied for verdict in held_back.verdicts)
    assert f"first or tied in {tied} of {len(held_back.verdicts)} cases" in page
    words = " ".join(page.split())
    quarter = sum(verdict.quarter_is_enough for verdict in held_back.verdicts)
    assert f"at most a quarter of the best peer's samples in {quarter} of 20 cases" in words
    early = sum(verdict.tied_at_a_quarter for verdict in held_back.verdicts)
    assert f"with that quarter it is first or tied in {early}." in words
    truth = read_ground_truth(DATA / f"ground-truth-{name}.parquet")
    assert f"{len(truth.points) - 1:,} schedules" in page


def test_the_page_says_what_its_results_hold(summary):
    words = " ".join(PAGE.split())
    ahead = sum(verdict.ours_minus_best.mean > 0 for verdict in summary.verdicts)
    assert f"the highest mean in {ahead} of 20 cases" in words
    quarter = sum(verdict.quarter_is_enough for verdict in summary.verdicts)
    assert f"best peer's samples holds in {quarter} of 20 cases" in words
    early = sum(verdict.tied_at_a_quarter for verdict in summary.verdicts)
    assert f"first or tied in {early} cases" in words
    alone = sum(verdict.exhaustive_minus_best.not_below_zero for verdict in summary.verdicts)
    assert f"would be first or tied in {alone} of 20 cases" in words
    assert all(verdict.first_or_tied for verdict in summary.verdicts) == ("tied in all" in words)


def test_the_optima_are_those_of_the_table(summary, evaluator):
    values = evaluator.relative_accuracies("report")
    for optimum in summary.optima:
        for split, value in (("report", optimum.report_best), ("search", optimum.search_best)):
            assert values[evaluator.optimum(optimum.mean_tokens, split)] == value


def test_the_page_counts_the_schedules_of_the_table(evaluator):
    assert f"{len(evaluator.truth.points) - 1:,} schedules" in PAGE
