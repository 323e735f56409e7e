from __future__ import annotations

import csv
from dataclasses import replace
from datetime import datetime, timedelta

import optuna
import pandas as pd
import pytest

from pruners import published
from pruners.errors import StudyError
from pruners.shape import LLAVA_1_5_7B
from space.flops import price
from studies.records import (
    ACCURACIES_ATTRIBUTE,
    ORIGIN_ATTRIBUTE,
    note_samples,
    note_schedule,
    seconds_of_search,
    trial_records,
    write_trials,
)
from studies.trial_tables import write_table

optuna.logging.set_verbosity(optuna.logging.WARNING)


@pytest.fixture
def schedule():
    schedule = published("visiondrop", tokens=64)
    return schedule.model_copy(update={"cost": price(schedule, LLAVA_1_5_7B)})


@pytest.fixture
def study(schedule):
    study = optuna.create_study(study_name="2 TFLOPs", direction="maximize")
    point = {"weight": 0.25, "merge": "none"}
    study.enqueue_trial(point, user_attrs={ORIGIN_ATTRIBUTE: "visiondrop"})
    for value in (0.75, 0.5):
        trial = study.ask()
        trial.suggest_float("weight", 0, 1)
        trial.suggest_categorical("merge", ("cluster-average", "none"))
        note_schedule(trial, schedule)
        note_samples(trial, 40)
        study.tell(trial, value)
    failed = study.ask()
    study.tell(failed, state=optuna.trial.TrialState.FAIL)
    study.ask()
    return study


def test_records_say_what_was_tried_and_scored(study, schedule):
    first, second, failed, running = trial_records(study)
    assert (first.origin, second.origin) == ("visiondrop", "sampler")
    assert first.parameters == {"weight": 0.25, "merge": "none"}
    assert (first.objective, first.samples, first.state) == (0.75, 40, "complete")
    assert first.tflops == schedule.cost.tflops
    assert first.layers == (0, 8, 16, 24)
    assert first.visual_tokens == (96, 70, 52, 38)  # as VisionDrop's scripts have it
    assert first.content_hash == schedule.content_hash
    assert first.seconds >= 0
    assert (failed.state, failed.objective, failed.samples) == ("fail", None, 0)
    assert (running.state, running.seconds) == ("running", None)


def test_a_trial_compared_by_another_signal_has_both(study, schedule, tmp_path):
    trial = study.ask()
    note_schedule(trial, schedule)
    note_samples(trial, 50)
    trial.set_user_attr(ACCURACIES_ATTRIBUTE, [0.5, 1.0])
    study.tell(trial, 0.875)
    records = trial_records(study)
    assert (records[-1].objective, records[-1].accuracy) == (0.875, 0.75)
    assert (records[0].objective, records[0].accuracy) == (0.75, 0.75)
    assert records[2].accuracy is None
    write_trials(records, tmp_path / "trials.csv")
    with (tmp_path / "trials.csv").open() as file:
        last = list(csv.DictReader(file))[-1]
    assert (last["objective"], last["accuracy"]) == ("0.875", "0.75")


def test_trials_are_written_as_a_table(study, tmp_path):
    write_trials(trial_records(study), tmp_path / "trials.csv")
    with (tmp_path / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["number"] for row in rows] == ["0", "1", "2", "3"]
    assert {row["budget"] for row in rows} == {"2 TFLOPs"}
    assert (rows[0]["layers"], rows[0]["weight"]) == ("0 8 16 24", "0.25")
    assert rows[0]["merge"] == "none"
    assert (rows[2]["objective"], rows[2]["weight"]) == ("", "")


def test_a_trial_says_when_its_schedule_is_above_the_budget(study, schedule, tmp_path):
    note_schedule(study.ask(), schedule, within_budget=False)
    records = trial_records(study)
    assert [record.within_budget for record in records] == [True] * 4 + [False]
    # The best row of a table is not to be one that no budget allows.
    write_trials(records, tmp_path / "trials.csv")
    write_table(records, "parquet", tmp_path / "trials.parquet")
    for table in (
        pd.read_csv(tmp_path / "trials.csv"),
        pd.read_parquet(tmp_path / "trials.parquet"),
    ):
        assert table["within_budget"].tolist() == [True] * 4 + [False]


def test_the_time_of_a_search_counts_once_what_workers_do_at_once_and_no_pause(study):
    complete = next(record for record in trial_records(study) if record.state == "complete")
    start = datetime(2026, 1, 1)

    def record(begin, end, state="complete"):
        finished = start + timedelta(seconds=end)
        return replace(complete, seconds=float(end - begin), finished=finished, state=state)

    at_once = [record(0, 10), record(2, 8), record(5, 15), record(20, 30)]
    assert seconds_of_search(at_once) == 25
    # Left by a killed process, and failed when the study was continued on the next day.
    assert seconds_of_search([*at_once, record(29, 86_400, "fail")]) == 25
    assert seconds_of_search([record(0, 10), record(10, 15)]) == 15
    assert seconds_of_search([]) == 0


def test_an_unpriced_schedule_cannot_be_noted(study):
    with pytest.raises(StudyError, match="must be priced"):
        note_schedule(study.ask(), published("visiondrop", tokens=64))
