"""Studies compared on the same samples."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from studies.reading import read_study
from studies.study_comparison import compare_studies
from tests.studies.commands.program import says


def _relative(scores: pd.DataFrame) -> float:
    means = scores.groupby("task")[["searched", "dense"]].mean()
    return float((means["searched"] / means["dense"]).mean())


def test_studies_are_compared_on_the_same_samples(runs: Path, capsys) -> None:
    comparison = json.loads(says(capsys, "compare", "one", "two", "--json"))
    (budget,) = comparison["budgets"]  # the one that both have
    one, two = budget["studies"]
    tables = [pd.read_csv(runs / name) for name in ("one/scores.csv", "two/scores-2-tflops.csv")]
    assert tables[0]["sample"].tolist() == tables[1]["sample"].tolist()
    expected = _relative(tables[0]) - _relative(tables[1])
    assert (one["comparison"], one["why_not"], two["why_not"]) == (None, "", "")
    assert two["comparison"]["difference"] == pytest.approx(expected)
    # Against a plain bootstrap over images, written here.
    generator = np.random.default_rng(1)
    merged = tables[0].assign(other=tables[1]["searched"])
    images = [rows for _, rows in merged.groupby("image")]
    drawn = []
    for _ in range(200):
        rows = pd.concat(
            [images[each] for each in generator.integers(len(images), size=len(images))]
        )
        drawn.append(_relative(rows) - _relative(rows.assign(searched=rows["other"])))
    low, high = two["comparison"]["interval_95"]
    assert [low, high] == pytest.approx(np.percentile(drawn, [2.5, 97.5]), abs=0.02)
    assert "differs from one in" in comparison["notes"][0]
    assert "seed" in comparison["notes"][0]
    assert "one minus this" in says(capsys, "compare", "one", "two")


def test_a_budget_that_the_first_study_lacks_is_compared_with_another(runs: Path, capsys) -> None:
    shutil.copytree(runs / "two", runs / "three")
    comparison = json.loads(says(capsys, "compare", "one", "two", "three", "--json"))
    shown = {
        budget["budget"]: [
            (each["study"], each["comparison"] is None) for each in budget["studies"]
        ]
        for budget in comparison["budgets"]
    }
    assert shown["2 TFLOPs"] == [("one", True), ("two", False), ("three", False)]
    assert shown["4 TFLOPs"] == [("two", True), ("three", False)]
    # At 4 TFLOPs no difference is one to study one, so that no column may say so.
    table = says(capsys, "compare", "one", "two", "three")
    assert "one minus this" not in table
    assert "The budget's first minus" in table


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"model_fingerprint": "0" * 64}, "another model"),
        ({"splits": {}}, "other samples"),
    ],
)
def test_what_was_not_measured_alike_is_not_paired(runs: Path, change, reason: str) -> None:
    one, two = read_study(runs / "one"), read_study(runs / "two")
    if "splits" in change:
        report = two.identity.splits["report"].model_copy(update={"fingerprint": "0" * 64})
        change = {"splits": {**two.identity.splits, "report": report}}
    two = replace(two, identity=two.identity.model_copy(update=change))
    (budget,) = compare_studies([one, two]).budgets
    assert budget.studies[1].comparison is None
    assert reason in budget.studies[1].why_not
    assert budget.studies[1].relative_accuracy is not None
