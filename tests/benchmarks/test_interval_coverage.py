"""How often intervals cover: the script, its counting, and what the page says of its results."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

from interval_coverage_summary import (  # noqa: E402
    HEADERS,
    RESAMPLED,
    Finding,
    read_coverage,
    summarise,
)

from search.settings import SearchSettings  # noqa: E402

SCRIPT = ROOT / "benchmarks" / "interval_coverage.py"
RESULTS = ROOT / "benchmarks" / "results" / "interval_coverage.json"
PAGE = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")


def test_the_script_counts_every_study_and_gives_the_same_again(tmp_path: Path) -> None:
    outs = [tmp_path / "first.json", tmp_path / "again.json"]
    for out in outs:
        command = [sys.executable, str(SCRIPT), "--studies", "3", "--trials", "3"]
        command += ["--budget", "50%", "--out", str(out)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert outs[0].read_bytes() == outs[1].read_bytes()
    coverage = read_coverage(outs[0])
    assert {row.over for row in coverage.rows} == set(RESAMPLED)
    assert len(coverage.rows) == 8
    for row in coverage.rows:
        assert row.studies == row.covered + row.above + row.below == 3
    # The estimate does not depend on what is resampled.
    half = len(coverage.rows) // 2
    for one, other in zip(coverage.rows[:half], coverage.rows[half:], strict=True):
        assert (one.interval, one.bias) == (other.interval, other.bias)


def test_intervals_are_counted_by_where_the_truth_lies() -> None:
    ends = [(0.5, 0.7), (0.5, 0.7), (0.6, 0.9), (0.2, 0.4)]
    truths = [0.7, 0.71, 0.5, 0.3]  # on the edge, above, below, within
    findings = [
        Finding("report split", "images", 0.6, pair, truth)
        for pair, truth in zip(ends, truths, strict=True)
    ]
    (row,) = summarise(findings, 4, ["50%"], SearchSettings()).rows
    assert (row.covered, row.above, row.below) == (2, 1, 1)
    assert row.bias == pytest.approx((-0.1 - 0.11 + 0.1 + 0.3) / 4)
    assert row.width == pytest.approx((0.2 + 0.2 + 0.3 + 0.2) / 4)
    # R: binom.test(2, 4)
    assert row.coverage_interval_95 == pytest.approx((0.06758599, 0.93241401))


def test_the_page_has_the_measured_table() -> None:
    coverage = read_coverage(RESULTS)
    assert "| " + " | ".join(HEADERS) + " |" in PAGE
    for row in coverage.rows:
        assert "| " + " | ".join(row.cells()) + " |" in PAGE


def test_what_is_exported_covers_as_promised_over_200_studies() -> None:
    coverage = read_coverage(RESULTS)
    assert coverage.studies >= 200
    (exported,) = [
        row for row in coverage.rows if (row.interval, row.over) == ("report split", "images")
    ]
    assert 0.92 <= exported.coverage <= 0.98
