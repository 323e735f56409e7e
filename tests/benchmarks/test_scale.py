from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import scale
from scale_simulation import SimulatedPool

from pruners.published import dense, published
from search.analytic import ANALYTIC_SHAPE, AnalyticEvaluator
from search.measured_form import as_measured
from search.workers.assignments import Assignment

PRUNED = as_measured(published("visiondrop", tokens=64), ANALYTIC_SHAPE)


def test_the_clock_counts_what_workers_take_and_no_worker_is_used_twice_at_once() -> None:
    pool = SimulatedPool(AnalyticEvaluator(), workers=3, seconds=1000.0)
    pool.start()
    tasks = [Assignment(PRUNED, "search", (index,)) for index in range(3)]
    futures = {pool.submit(task) for task in tasks}
    with pytest.raises(AssertionError):
        pool.submit(tasks[0])
    done = []
    while futures:
        found = pool.wait(futures, 1)
        assert found
        futures -= found
        done += [(pool.now, future.result()[0]) for future in found]
    assert sorted(score for _, score in done) == sorted(
        task.measure(AnalyticEvaluator())[0] for task in tasks
    )
    times = [now for now, _ in done]
    assert times == sorted(times)
    assert 200 < times[0] < times[-1] < 5000
    later = Assignment(PRUNED, "search", (9,))
    future = pool.submit(later)
    assert pool.wait([future], 1) == {future}
    result = pool.result(4)
    assert result.seconds == pytest.approx(times[-1], abs=60)
    assert 0 < result.efficiency < 1
    assert result.driver_seconds < 60
    assert result.measured_twice == 0


def test_dense_is_not_counted() -> None:
    pool = SimulatedPool(AnalyticEvaluator(), workers=1, seconds=1000.0)
    pool.wait([pool.submit(Assignment(dense(ANALYTIC_SHAPE), "search", (0,)))], 1)
    pool.start()
    pool.wait([pool.submit(Assignment(PRUNED, "search", (0,)))], 1)
    pool.submit(Assignment(PRUNED, "search", (1,)))
    assert pool.result(2).efficiency == pytest.approx(1, abs=0.1)


def test_the_script_prints_both_tables_and_writes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(scale, "COST_TRIALS", 3)
    out = tmp_path / "scale.json"
    scale.main(
        storage=[f"sqlite:///{tmp_path / 'trials.db'}"],
        seconds=1e5,
        rounds=2,
        workers=[1, 3],
        strategy="random",
        out=out,
    )
    shown = capsys.readouterr().out
    assert "What a storage costs per trial" in shown
    written = json.loads(out.read_text())
    rows = [(row["storage"], row["workers"], row["trials"]) for row in written["scaling"]]
    assert rows == [
        ("SQLite", 1, 2),
        ("SQLite", 3, 6),
        ("shared SQLite", 1, 2),
        ("shared SQLite", 3, 6),
    ]
    for row in written["scaling"]:
        assert 0.5 < row["efficiency"] <= 1
        assert row["measured_twice"] == 0
    memory, *others = written["storage_cost"]
    assert (memory["storage"], memory["statements"]) == ("memory", 0)
    assert [cost["storage"] for cost in others] == ["SQLite", "shared SQLite"]
    assert all(cost["statements"] > 10 for cost in others)


def test_the_page_has_the_table_of_the_results() -> None:
    root = Path(scale.__file__).parents[1]
    page = (root / "docs" / "cluster.md").read_text(encoding="utf-8")
    by_workers: dict[int, list[str]] = {}
    for row in json.loads(scale.RESULTS.read_text())["scaling"]:
        cells = by_workers.setdefault(row["workers"], [str(row["workers"])])
        cells += [f"{100 * row['efficiency']:.1f} %", f"{row['driver_milliseconds']:.0f}"]
        assert row["measured_twice"] == 0
    assert list(by_workers) == list(scale.WORKERS)
    for cells in by_workers.values():
        assert f"| {' | '.join(cells)} |" in page
