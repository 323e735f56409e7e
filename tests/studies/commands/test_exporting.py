"""Trials and schedules as files."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pandas as pd
import pytest

from pruners import Schedule, load_schedule, save_schedule
from pruners.scorers import Uniform
from pruners.selectors import Determinantal
from pruners.stages import Stage
from search.command_line import run
from space import preset
from studies.runtime_exports import RUNTIMES, export_to
from tests.studies.commands.program import says


def test_trials_are_exported_alike_in_every_format(runs: Path, capsys) -> None:
    text = says(capsys, "export", "two")
    assert text == (runs / "two" / "trials.csv").read_text()
    says(capsys, "export", "two", "--format", "csv", "--to", "trials.csv")
    assert Path("trials.csv").read_text() == text
    rows = pd.read_csv(io.StringIO(text))
    objects = pd.DataFrame(json.loads(says(capsys, "export", "two", "--format", "json")))
    says(capsys, "export", "two", "--format", "parquet", "--to", "trials.parquet")
    table = pd.read_parquet("trials.parquet")
    for column in ("budget", "number", "objective", "samples", "tflops", "content_hash"):
        pd.testing.assert_series_equal(objects[column], rows[column], check_dtype=False)
        pd.testing.assert_series_equal(table[column], rows[column], check_dtype=False)
    assert [list(layers) for layers in table["layers"]] == objects["layers"].tolist()
    for name in objects["parameters"][0]:
        assert table[name].tolist() == pytest.approx(rows[name].tolist())
    one_budget = json.loads(
        says(capsys, "export", "two", "--format", "json", "--budget", "4 TFLOPs")
    )
    assert [row["budget"] for row in one_budget] == ["4 TFLOPs"] * 4


@pytest.mark.parametrize("suffix", ["csv", "json", "parquet", "tex", "md", "bib", "dat"])
def test_the_name_of_the_file_says_its_format(suffix: str, runs: Path, capsys) -> None:
    forms = {"tex": "latex", "md": "markdown", "bib": "bibtex", "dat": "csv"}
    says(capsys, "export", "one", "--to", f"unnamed.{suffix}")
    says(capsys, "export", "one", "--to", "named", "--format", forms.get(suffix, suffix))
    assert Path(f"unnamed.{suffix}").read_bytes() == Path("named").read_bytes()


def test_the_schedule_is_exported_as_it_is(runs: Path, capsys) -> None:
    stored = runs / "one" / "schedule.json"
    assert says(capsys, "export", "one", "--format", "schedule") == stored.read_text()
    says(capsys, "export", "one", "--format", "schedule", "--to", "mine.json")
    assert load_schedule("mine.json") == load_schedule(stored)
    low = says(capsys, "export", "two", "--format", "schedule", "--budget", "2 TFLOPs")
    assert low == (runs / "two" / "schedule-2-tflops.json").read_text()


def test_the_schedule_is_exported_as_settings_of_another_runtime(runs: Path, capsys) -> None:
    stage = Stage(layer=0, retention=0.3, scorer=Uniform(), selector=Determinantal())
    schedule = Schedule(stages=(stage,), shape=preset("qwen2.5-vl-7b"))
    save_schedule(schedule, runs / "one" / "schedule.json")
    settings = json.loads(says(capsys, "export", "one", "--format", "openvino-genai"))
    assert settings == export_to("openvino-genai", schedule).model_dump(mode="json")
    for runtime in RUNTIMES:  # what was searched is said by none
        arguments = ["--format", runtime, "--budget", "2 TFLOPs"]
        assert run(["studies", "export", "two", *arguments]) == 2
        assert "--format schedule is for that one" in capsys.readouterr().err
