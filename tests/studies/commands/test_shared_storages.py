"""Studies in a storage that several share."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import optuna
from running_study import contents

from search.command_line import run
from studies.optuna_storage import close_storage, open_storage
from studies.storage import StudyFolder
from studies.storage_address import parse_storage
from tests.studies.commands.program import says


def test_deleting_takes_the_trials_from_a_shared_storage(runs: Path, identity, capsys) -> None:
    url = f"sqlite:///{runs.parent / 'shared.db'}"
    for name in ("mine", "other"):
        with StudyFolder.open(runs / name, identity, parse_storage(url)) as folder:
            study = folder.study("2 TFLOPs")
            study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    assert "1 trial" in says(capsys, "show", "mine")
    says(capsys, "delete", "mine", "--yes")
    assert optuna.study.get_all_study_names(url) == ["other: 2 TFLOPs"]
    assert not (runs / "mine").exists()


def test_studies_in_a_storage_without_a_folder_are_said(runs: Path, identity, capsys) -> None:
    url = f"sqlite:///{runs.parent / 'shared.db'}"
    for name in ("mine", "one", "gone"):  # another `one` than that in runs
        with StudyFolder.open(runs.parent / "elsewhere" / name, identity, parse_storage(url)) as it:
            it.study("2 TFLOPs").optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=3)
    storage = open_storage(url)
    optuna.create_study(study_name="foreign", storage=storage)
    close_storage(storage)
    shutil.copytree(runs.parent / "elsewhere" / "mine", runs / "mine")
    before = contents(runs.parent)
    for out, said in (
        ("runs", "gone: 2 TFLOPs (3 trials), one: 2 TFLOPs (3 trials)"),
        ("elsewhere", ""),
    ):
        assert run(["studies", "list", "--json", "--out", out, "--storage", url]) == 0
        output = capsys.readouterr()
        names = {study["name"] for study in json.loads(output.out)}
        assert names == ({"mine", "one", "two"} if said else {"mine", "one", "gone"})
        assert output.err == (
            f"Also in the storage, of studies without a folder in {out}: {said}\n" if said else ""
        )
    assert run(["studies", "list", "--out", "nowhere", "--storage", url]) == 2
    assert "mine: 2 TFLOPs (3 trials), one" in capsys.readouterr().err
    other = f"sqlite:///{runs.parent / 'other.db'}"  # not where these studies have their trials
    listed = json.loads(says(capsys, "list", "--json", "--out", "elsewhere", "--storage", other))
    assert [study["budgets"][0]["complete"] for study in listed] == [3, 3, 3]
    assert contents(runs.parent) == before
