"""What the benchmark of searches adds up, and that it runs as its docstring says."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from pruners.errors import DataError
from search.embedded_evaluator import EmbeddedEvaluator

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from lattice import LatticePoint, lattice
from search_quality import searched
from search_quality_estimates import estimate
from search_quality_page import BEGIN, END, write_page
from search_quality_records import Curve, ValuedCell, ValuedRun, read_summary
from search_quality_summary import FIRST_CHECKPOINT, mean_curve, next_checkpoint, summarise
from search_quality_tuning import best_choices, choices_at, read_settings, write_settings
from search_quality_verdicts import share_needed
from tabular import TabularEvaluator
from tabular_data import About, GroundTruth, SplitSamples

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
TOKENS = 8
SHAPE = EmbeddedEvaluator().shape
DENSE = LatticePoint((SHAPE.visual_tokens,) * SHAPE.decoder_layers, 0.0, 0.0)
DENSE_HASH = DENSE.schedule(SHAPE).content_hash


@pytest.fixture(scope="module")
def truth():
    """Imagined results on the embedded model's shape: more tokens at the end are better."""
    points = [DENSE, *list(lattice(SHAPE, TOKENS))[::3]]
    generator = np.random.default_rng(0)
    chances = np.array([point.tokens[-1] for point in points]) / (2 * TOKENS) + 0.3

    def split(name, samples):
        return SplitSamples(
            identifiers=tuple(f"{name}-{number}" for number in range(samples)),
            tasks=tuple("ab"[number % 2] for number in range(samples)),
            images=tuple(f"{name}-image-{number // 4}" for number in range(samples)),
        )

    right = {
        name: generator.random(200)[None] < np.minimum(chances, 0.95)[:, None]
        for name in ("search", "report")
    }
    probabilities = np.broadcast_to(chances[:, None], (len(points), 200)).astype(np.float32)
    return GroundTruth(
        about=About(
            model="imagined",
            measured_on="imagined results",
            fingerprint="0" * 64,
            shape=SHAPE,
            split_fingerprints={},
            splits={name: split(name, 200) for name in right},
            versions={},
        ),
        points=tuple(points),
        budgets=np.array([0, *[TOKENS] * (len(points) - 1)]),
        hashes=tuple(point.schedule(SHAPE).content_hash for point in points),
        right=right,
        answer_probabilities=np.minimum(probabilities, 1),
        hidden_agreements=np.minimum(probabilities, 1),
    )


def _with_split(truth, name, places):
    """The same results on some of a split's samples."""
    split = truth.about.splits[name]
    fewer = split.model_copy(
        update={field: getattr(split, field)[places] for field in type(split).model_fields}
    )
    about = truth.about.model_copy(update={"splits": {**truth.about.splits, name: fewer}})
    right = {**truth.right, name: truth.right[name][:, places]}
    if name == "report":
        return replace(truth, about=about, right=right)
    return replace(
        truth,
        about=about,
        right=right,
        answer_probabilities=truth.answer_probabilities[:, places],
        hidden_agreements=truth.hidden_agreements[:, places],
    )


def _cell(
    strategy,
    seed,
    value,
    cost=100,
    curve=None,
    samples_per_trial=None,
    content_hash=DENSE_HASH,
):
    run = ValuedRun(
        mean_tokens=TOKENS,
        samples=cost,
        content_hash=content_hash,
        curve=curve or ((25, value / 2), (50, value)),
    )
    return ValuedCell(
        strategy=strategy,
        cost=cost,
        seed=seed,
        samples_per_trial=samples_per_trial,
        table="0",
        seconds=1,
        budgets=(run,),
    )


def test_intervals_are_those_of_the_t_test():
    values = [0.7, 0.74, 0.69, 0.8]
    found = estimate(values)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert np.allclose(found.interval_95, expected)
    assert np.isclose(found.mean, np.mean(values))


def test_checkpoints_rise_four_to_a_doubling():
    found = [FIRST_CHECKPOINT]
    while found[-1] < 16_000:
        found.append(next_checkpoint(found[-1], 100))
    assert found[:5] == [25, 30, 36, 43, 50]
    assert all(later > earlier for earlier, later in pairwise(found))
    assert {25 * 2**power for power in range(9)} <= set(found)
    assert next_checkpoint(0, 100) == FIRST_CHECKPOINT
    assert next_checkpoint(49, 100) == 50
    # A quarter of the cost is one more.
    assert [next_checkpoint(samples, 250) for samples in (60, 61, 62)] == [62, 62, 71]


def test_curves_are_means_of_what_seeds_hold_at_each_checkpoint():
    cells = [
        _cell("a", 0, 0.8, curve=((30, 0.5), (60, 0.8))),
        _cell("a", 1, 0.6, curve=((25, 0.4), (100, 0.6))),
    ]
    curve = mean_curve(cells, 0, 100)
    assert curve.samples[0] == 30  # before it, one of them has nothing
    assert curve.samples[-1] == 100
    values = dict(zip(curve.samples, curve.mean, strict=True))
    assert np.allclose([values[30], values[50], values[60], values[100]], [0.45, 0.45, 0.6, 0.7])


@pytest.mark.parametrize(
    ("wanted", "share"), [(0.5, 0.25), (0.55, 0.75), (0.7, 1.0), (0.71, None), (0.1, 0.1)]
)
def test_the_share_needed_is_from_where_on_the_curve_stays_above(wanted, share):
    values = (0.3, 0.5, 0.6, 0.5, 0.6, 0.7)
    curve = Curve(samples=(10, 25, 40, 60, 75, 100), mean=values, low=values, high=values)
    assert share_needed(curve, wanted, 100) == share


def test_results_are_compared_pair_by_pair(truth):
    ours, peer, worse = [0.7, 0.8, 0.75], [0.68, 0.79, 0.71], [0.5, 0.9, 0.4]
    cells = [
        _cell(name, seed, value)
        for name, values in (("ours", ours), ("peer", peer), ("worse", worse))
        for seed, value in enumerate(values)
    ]
    evaluator = TabularEvaluator(truth)
    summary = summarise(cells, evaluator, "ours")
    (verdict,) = summary.verdicts
    assert verdict.best_peer == "peer"
    differences = np.subtract(ours, peer)
    interval = stats.ttest_rel(ours, peer).confidence_interval(0.95)
    assert np.isclose(verdict.ours_minus_best.mean, differences.mean())
    assert np.allclose(verdict.ours_minus_best.interval_95, interval)
    assert verdict.first_or_tied
    assert verdict.share_of_samples == 0.5
    found = summary.optima[0].search_best
    alone = stats.ttest_1samp(np.subtract(found, peer), 0).confidence_interval(0.95)
    assert np.allclose(verdict.exhaustive_minus_best.interval_95, alone)
    early = stats.ttest_rel(np.divide(ours, 2), peer).confidence_interval(0.95)
    assert np.allclose(verdict.quarter_minus_best.interval_95, early)
    assert not verdict.tied_at_a_quarter
    best = evaluator.relative_accuracies("report")[1:].max()
    results = {result.strategy: result for result in summary.results}
    assert np.isclose(results["ours"].regret_to_report_best.mean, best - np.mean(ours))
    assert results["ours"].ours_minus_this is None

    (lost,) = summarise(cells, evaluator, "worse").verdicts
    assert lost.best_peer == "ours"
    assert lost.first_or_tied  # its interval is so wide that it holds 0
    clear = [_cell("clear", seed, value - 0.3 + 0.001 * seed) for seed, value in enumerate(ours)]
    (behind,) = summarise([*cells, *clear], evaluator, "clear").verdicts
    assert not behind.first_or_tied
    assert behind.share_of_samples is None

    late = [_cell("late", seed, 0.9, curve=((26, 0.9),)) for seed in range(3)]
    (without,) = summarise([*cells, *late], evaluator, "late").verdicts
    assert without.first_or_tied
    assert without.quarter_minus_best is None
    assert not without.tied_at_a_quarter
    quick = [_cell("quick", seed, 0.9, curve=((25, 0.9),)) for seed in range(3)]
    (soon,) = summarise([*cells, *quick], evaluator, "quick").verdicts
    assert soon.tied_at_a_quarter
    assert soon.share_of_samples == 0.25


def test_the_interval_over_images_is_that_of_simulated_splits(truth):
    """Two strategies with fixed incumbents, and new images many times over."""
    hashes = {"ours": truth.hashes[1], "peer": truth.hashes[-1]}
    cells = [
        _cell(name, seed, 0.5, content_hash=content_hash)
        for name, content_hash in hashes.items()
        for seed in range(2)
    ]
    (verdict,) = summarise(cells, TabularEvaluator(truth), "ours").verdicts
    right, split = truth.right["report"], truth.about.splits["report"]
    tasks, images = np.array(split.tasks), np.array(split.images)
    names = np.unique(images)
    generator = np.random.default_rng(0)
    found = []
    for _ in range(1000):
        drawn = generator.choice(names, len(names))
        places = np.concatenate([np.flatnonzero(images == name) for name in drawn])
        means = np.stack([right[:, places[tasks[places] == task]].mean(axis=1) for task in "ab"])
        relative = (means / means[:, [0]]).mean(axis=0)
        found.append(relative[1] - relative[-1])
    # Percentiles of 1,000 resamples, and the product's intervals for few images are a bit wider.
    expected = np.percentile(found, [2.5, 97.5])
    assert np.allclose(verdict.interval_over_images, expected, atol=0.15 * np.ptp(expected))


def test_settings_keep_what_was_best_and_what_was_not_tried_again(tmp_path):
    path = tmp_path / "settings.json"
    assert read_settings(path) == {}
    cells = [
        _cell(name, seed, value, samples_per_trial=samples)
        for name, samples, value in (("a", 25, 0.5), ("a", 50, 0.6), ("b", 25, 0.7), ("b", 50, 0.6))
        for seed in range(2)
    ]
    write_settings(best_choices(cells), path)
    assert read_settings(path) == {"a": {100: 50}, "b": {100: 25}}
    other = [_cell("b", seed, 0.9, samples_per_trial=100) for seed in range(2)]
    write_settings(best_choices(other), path)
    assert read_settings(path) == {"a": {100: 50}, "b": {100: 100}}
    path.write_text("{}")
    with pytest.raises(DataError, match="settings"):
        read_settings(path)


def test_choices_allow_a_few_trials_and_not_too_many():
    assert choices_at("random", 250) == (25, 50, 100)
    assert choices_at("random", 16_000) == (200, 400)
    assert choices_at("adaptive", 250) == (None,)


def _run(tmp_path, *arguments):
    command = [sys.executable, str(BENCHMARKS / "search_quality.py"), *map(str, arguments)]
    command += ["--table", tmp_path / "truth.parquet", "--work", tmp_path / "work"]
    command += ["--settings", tmp_path / "settings.json", "--out", tmp_path / "out.json"]
    command += ["--figure", tmp_path / "figure.png", "--page", tmp_path / "page.md"]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)


def test_searches_are_run_once_and_valued_on_the_report_split(truth, tmp_path):
    truth.write(tmp_path / "truth.parquet")
    (tmp_path / "page.md").write_text(f"# Page\n\n{BEGIN}\n{END}\n\nMore.\n")
    arguments = ["--strategies", "random,grid", "--ours", "grid", "--costs", "100,200"]
    arguments += ["--budgets", TOKENS, "--seeds", 2]
    tuned = _run(tmp_path, *arguments, "--tune")
    assert tuned.returncode == 0, tuned.stderr
    assert set(read_settings(tmp_path / "settings.json")) == {"random", "grid"}
    first = _run(tmp_path, *arguments)
    assert first.returncode == 0, first.stderr
    assert "8/8 cells" in first.stdout
    written = (tmp_path / "out.json").read_bytes()
    page = (tmp_path / "page.md").read_text()
    assert page.startswith("# Page")
    assert page.endswith("More.\n")
    assert "### 200 samples per budget" in page
    assert (tmp_path / "figure.png").stat().st_size > 0
    again = _run(tmp_path, *arguments)
    assert "cells" not in again.stdout  # nothing is left to measure
    assert (tmp_path / "out.json").read_bytes() == written

    # Another report split: the same searches, valued anew.
    for table in (truth, _with_split(truth, "report", slice(0, 100))):
        table.write(tmp_path / "truth.parquet")
        valued = _run(tmp_path, *arguments)
        assert valued.returncode == 0, valued.stderr
        assert "cells" not in valued.stdout
        values = TabularEvaluator(table).relative_accuracies("report")
        found = {}
        for path in (tmp_path / "work").rglob("report/*/*.json"):
            cell = json.loads(path.read_text())
            (run,) = cell["budgets"]
            assert run["samples"] <= cell["cost"]
            samples, hashes = zip(*run["incumbents"], strict=True)
            assert all(earlier < later for earlier, later in pairwise(samples))
            assert all(earlier != later for earlier, later in pairwise(hashes))
            place = found.setdefault((cell["strategy"], cell["cost"]), {})
            place[cell["seed"]] = values[table.rows[hashes[-1]]]
        summary = read_summary(tmp_path / "out.json")
        assert summary.report_samples == len(table.about.splits["report"].identifiers)
        assert len(summary.results) == len(found) == 4
        for result in summary.results:
            seeds = found[result.strategy, result.cost]
            assert result.per_seed == tuple(seeds[seed] for seed in sorted(seeds))
    assert {result.samples_per_trial for result in summary.results} <= {25, 50, 100}
    # Tuning has other seeds and never sees the report split.
    tuning = [json.loads(path.read_text()) for path in (tmp_path / "work").rglob("tuning/*/*.json")]
    assert {cell["seed"] for cell in tuning} == {1000, 1001}

    refused = _run(tmp_path, "--strategies", "unheard-of")
    assert refused.returncode == 2
    assert "unheard-of" in refused.stdout


def test_cells_are_those_of_what_searches_see_of_a_table(truth, tmp_path):
    tables = {
        "whole": truth,
        "again": truth,
        "other-report": _with_split(truth, "report", slice(0, 100)),
        "other-search": _with_split(truth, "search", slice(0, 100)),
    }
    names = {}
    for folder, table in tables.items():
        path = tmp_path / folder / "truth.parquet"
        path.parent.mkdir()
        table.write(path)
        names[folder] = searched(path)
    assert names["whole"] == names["again"] == names["other-report"] != names["other-search"]


def test_a_page_without_a_place_for_tables_is_refused(truth, tmp_path):
    (tmp_path / "page.md").write_text("# Page\n")
    summary = summarise([_cell("a", seed, 0.5) for seed in range(2)], TabularEvaluator(truth), "a")
    for name in ("page.md", "missing.md"):
        with pytest.raises(DataError, match="no place"):
            write_page(summary, tmp_path / name)
