"""The shipped ground truth is of the model, the benchmark and the lattice that ship."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from search.embedded_evaluator import EmbeddedEvaluator

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import ground_truth
from tabular_data import read_ground_truth

SAMPLES = {"search": 500, "report": 2600}
PATH = ground_truth.DATA / "ground-truth-embedded.parquet"


@pytest.fixture(scope="module")
def evaluator():
    return EmbeddedEvaluator()


@pytest.fixture(scope="module")
def truth():
    return read_ground_truth(PATH)


def test_the_data_is_of_the_model_and_lattice_that_ship(evaluator, truth):
    about = truth.about
    assert (about.fingerprint, about.shape) == (evaluator.fingerprint, evaluator.shape)
    for split, fingerprint in about.split_fingerprints.items():
        assert fingerprint == evaluator.split_fingerprint(split)
        assert len(about.splits[split].identifiers) == SAMPLES[split]
    points = [
        point
        for part in ("budgets", "off-budget")
        for point in ground_truth.PARTS[part](evaluator.shape)
    ]
    assert {point for _, point in points} == set(truth.points)
    assert tuple(schedule.content_hash for schedule in truth.schedules) == truth.hashes


def test_rows_of_the_data_are_what_the_evaluator_gives(evaluator, truth):
    for split in ("search", "report"):
        names = {sample.identifier: at for at, sample in enumerate(evaluator.samples(split))}
        generator = np.random.default_rng(len(split))
        columns = generator.choice(SAMPLES[split], size=20, replace=False)
        indices = [names[truth.about.splits[split].identifiers[column]] for column in columns]
        for row in (0, *generator.choice(len(truth.points), size=4, replace=False)):
            probe = evaluator.probe(truth.schedules[row], split, indices)
            np.testing.assert_array_equal(truth.right[split][row, columns], probe.scores)
            if split == "search":
                np.testing.assert_allclose(
                    truth.answer_probabilities[row, columns],
                    probe.answer_probabilities,
                    atol=1 / 255,
                )
