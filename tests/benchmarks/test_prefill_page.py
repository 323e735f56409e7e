"""The page on speed shows what the results hold."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

from prefill_host import READS  # noqa: E402
from prefill_summary import read_summary  # noqa: E402
from prefill_table import markdown, part_cells, time_cells  # noqa: E402

PAGE = (ROOT / "docs" / "speed.md").read_text(encoding="utf-8")
RESULTS = ROOT / "benchmarks" / "results"
SUMMARY = read_summary(RESULTS / "prefill-small-cpu.json")
SUMMARIES = [SUMMARY, read_summary(RESULTS / "prefill-small-next-cpu.json")]

of_every_shape = pytest.mark.parametrize("summary", SUMMARIES, ids=lambda one: one.shape.name)


def _counts(accesses):
    """How often the host waits, and how often it sends values."""
    waits = sum(access.count for access in accesses if access.operation in READS)
    return waits, sum(access.count for access in accesses) - waits


@of_every_shape
def test_tables_are_those_of_the_results(summary):
    assert markdown(time_cells(summary)) in PAGE
    for result in summary.batches:
        assert markdown(part_cells(result)) in PAGE


@of_every_shape
def test_the_page_says_what_was_measured_on(summary):
    machine = summary.machine
    assert machine.processor in PAGE
    assert f"{machine.threads} thread" in PAGE
    assert f"torch {machine.torch.partition('+')[0]}" in PAGE
    assert f"{summary.repeats} rounds" in PAGE
    for result in summary.batches:
        before, after = result.load
        assert f"{before:.1f} and {after:.1f} at batch {result.batch}" in PAGE


@of_every_shape
def test_caches_hold_the_bytes_that_are_predicted(summary):
    for result in summary.batches:
        for row in result.rows:
            assert row.kv_bytes == row.predicted_kv_bytes


@of_every_shape
def test_the_claims_of_the_page_hold(summary):
    for result in summary.batches:
        shares = [100 * row.prefill_speedup.of_predicted for row in result.rows[1:]]
        assert f"{min(shares):.0f} to {max(shares):.0f} % at batch {result.batch}" in PAGE
    overheads = [
        100 * profile.scoring_and_merging_of_dense
        for result in summary.batches
        for profile in result.profiles[1:]
    ]
    assert f"at most {max(overheads):.1f} % of the dense prefill" in PAGE


def test_where_the_host_waits_is_counted():
    for profile in SUMMARY.batches[0].profiles[1:]:
        waits, sends = _counts(profile.host_accesses)
        decoding, sent_decoding = _counts(profile.host_accesses_decoding)
        assert f"| {profile.name} | {waits} | {sends} | {decoding} |" in PAGE
        assert sent_decoding == 0
