"""The pages on methods and benchmarks say what the registry and the results hold."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from pruners import published
from pruners.methods import METHODS

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

from methods_effects_records import Effects  # noqa: E402
from methods_effects_table import points  # noqa: E402
from methods_summary import read_summary  # noqa: E402
from methods_table import accuracy  # noqa: E402

PAGE = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
BENCHMARKS_PAGE = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
RESULTS = ROOT / "benchmarks" / "results"


def _rows(page, first):
    """The cells of the table whose first column is headed so."""
    lines = iter(page.splitlines())
    for line in lines:
        if line.startswith(f"| {first} |"):
            break
    next(lines)
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split(" | ")])
    return rows


def _kinds(parts):
    """Each kind once, as code, in the order of the stages."""
    return ", then ".join(f"`{kind}`" for kind in dict.fromkeys(part.kind for part in parts))


def test_the_table_of_methods_is_that_of_the_registry():
    rows = {row[0].strip("`"): row for row in _rows(PAGE, "name")}
    assert list(rows) == list(METHODS)
    for name, row in rows.items():
        schedule = published(name, tokens=192)
        stages = schedule.stages
        boundaries = ", ".join(
            "in the vision tower" if stage.in_tower else str(stage.layer) for stage in stages
        )
        assert row[1:7] == [
            f"{METHODS[name].label} ({METHODS[name].source})",
            boundaries,
            _kinds(stage.scorer for stage in stages),
            _kinds(stage.selector for stage in stages),
            _kinds(stage.merge for stage in stages),
            schedule.positions,
        ]
        assert row[7]  # what it reads


def test_the_table_of_results_is_that_of_the_json():
    summary = read_summary(RESULTS / "methods.json")
    # A method that was added since joins with the next run of the benchmark.
    assert {method.name for method in summary.budgets[0].methods} <= set(METHODS)
    rows = {row[0].strip("*"): row[1:] for row in _rows(PAGE, "method")}
    for column, budget in enumerate(summary.budgets):
        for method in budget.methods:
            assert rows[method.label][column].strip("*") == accuracy(method)


def test_the_table_of_effects_is_that_of_the_json():
    text = (RESULTS / "methods_effects.json").read_text(encoding="utf-8")
    effects = Effects.model_validate_json(text)
    shown = {row[0]: row for row in _rows(BENCHMARKS_PAGE, "effect")}
    assert len(shown) == len(effects.contrasts)
    for contrast in effects.contrasts:
        row = shown[contrast.name]
        for cell, here in zip(row[2:], contrast.budgets, strict=False):
            assert points(here) in cell
            assert (here.verdict == "not significant") == ("**" not in cell)
        assert points(contrast.trend) in row[-1]


@pytest.mark.parametrize("page", [PAGE, BENCHMARKS_PAGE], ids=["methods", "benchmarks"])
def test_budgets_named_on_the_page_are_those_measured(page):
    summary = read_summary(RESULTS / "methods.json")
    for budget in summary.budgets:
        assert re.search(rf"\b{re.escape(format(budget.tflops, 'g'))}\b", page)
