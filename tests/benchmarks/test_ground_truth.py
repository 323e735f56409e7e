"""The tree of prefixes gives what the evaluator gives, and chunks of it become one table."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from pruners.published import dense
from search.embedded import DATA
from search.embedded_evaluator import EmbeddedEvaluator

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import ground_truth
from ground_truth_batches import run_batch
from lattice import lattice

HALF_PRECISION = 1e-3
SHIPPED = ground_truth.Source("embedded", DATA)


@pytest.fixture(scope="module")
def evaluator():
    return EmbeddedEvaluator()


def test_the_tree_of_prefixes_gives_what_the_evaluator_gives(evaluator):
    points = [point for tokens in (72, 16) for point in list(lattice(evaluator.shape, tokens))]
    chosen = np.random.default_rng(0).choice(len(points), size=12, replace=False)
    schedules = [points[index].schedule(evaluator.shape) for index in sorted(chosen)]
    indices = list(range(0, 120, 6))
    results = run_batch(evaluator, "search", indices, [dense(evaluator.shape), *schedules])
    for row, schedule in enumerate(schedules, start=1):
        probe = evaluator.probe(schedule, "search", indices)
        np.testing.assert_array_equal(results.right[row], probe.scores)
        for name in ("answer_probabilities", "hidden_agreements"):
            np.testing.assert_allclose(
                getattr(results, name)[row], getattr(probe, name), atol=HALF_PRECISION
            )
    np.testing.assert_array_equal(
        results.right[0], evaluator.score(dense(evaluator.shape), "search", indices)
    )
    np.testing.assert_allclose(results.hidden_agreements[0], 1, atol=HALF_PRECISION)


def test_chunks_are_made_once_and_put_together(evaluator, monkeypatch, tmp_path):
    dense_first = ground_truth.budget_points(evaluator.shape)[0]
    few = [dense_first, *(ground_truth.Point(8, p) for p in list(lattice(evaluator.shape, 8))[:3])]
    monkeypatch.setattr(
        ground_truth, "PARTS", {"one": lambda shape: few[:3], "two": lambda shape: [few[0], few[3]]}
    )
    parts = ("one", "two")
    monkeypatch.setattr(ground_truth, "CHUNK", 5)
    samples = {"search": 10, "report": 15}
    chunks = ground_truth.make_chunks(evaluator, samples, tmp_path, parts)
    assert len(chunks) == 2 * (2 + 3)  # parts, chunks of each split
    for chunk in chunks:
        ground_truth.run_chunk(SHIPPED, chunk)
    made = {chunk.path: chunk.path.stat().st_mtime_ns for chunk in chunks}
    assert all(
        chunk.path.exists()
        for chunk in ground_truth.make_chunks(evaluator, samples, tmp_path, parts)
    )
    truth = ground_truth.assemble(evaluator, chunks, parts)
    assert made == {chunk.path: chunk.path.stat().st_mtime_ns for chunk in chunks}
    assert truth.points == tuple(point for _, point in few)
    for split in ("search", "report"):
        assert len(truth.about.splits[split].identifiers) == samples[split]
        names = [sample.identifier for sample in evaluator.samples(split)]
        indices = [names.index(name) for name in truth.about.splits[split].identifiers]
        for row, schedule in enumerate(truth.schedules):
            expected = evaluator.score(schedule, split, indices)
            np.testing.assert_array_equal(truth.right[split][row], expected)

    others = [chunk._replace(indices=chunk.indices[::-1]) for chunk in chunks]
    with pytest.raises(ground_truth.DataError, match="remove it"):
        ground_truth.assemble(evaluator, others, parts)
    ground_truth.run_chunks(SHIPPED, [], 1, Console(quiet=True))  # nothing is left to run
