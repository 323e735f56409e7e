"""Files that earlier versions wrote."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import pytest

from pruners import TopScores, load_schedule
from search.command_line import run
from studies.identity import read_identity
from studies.records import trial_records
from studies.storage import StudyFolder
from tests.compat.facts import facts

FOLDER = Path(__file__).parent
VERSIONS = sorted(path.parent for path in FOLDER.glob("*/facts.json"))


def test_a_schedule_without_selectors_and_features_means_what_it_did() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        schedule = load_schedule(FOLDER / "schedule-without-selectors.json")
    assert {stage.selector for stage in schedule.stages} == {TopScores()}
    assert {stage.features for stage in schedule.stages} == {"vision"}
    # The hash that the version that wrote the file gave it: scores are kept under it.
    expected = "cdcda6b9d47ccc0536bf78f0c3b2817f0b2b39b6ce6499cdd4a8c009325911cf"
    assert schedule.content_hash == expected
    assert schedule.counts(576)[0] == (0, 105, 63, 42)


@pytest.mark.parametrize("version", VERSIONS, ids=lambda path: path.name)
def test_files_mean_what_they_meant_to_the_version_that_wrote_them(
    version: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(version, tmp_path / version.name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = facts(copy)
    assert json.loads(json.dumps(found)) == json.loads((version / "facts.json").read_text())


@pytest.mark.parametrize("version", VERSIONS, ids=lambda path: path.name)
def test_studies_are_continued(version: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(version / "study", tmp_path / "study")
    expected = json.loads((version / "facts.json").read_text())["study"]["budgets"]
    identity = read_identity(copy / "identity.json")
    with StudyFolder.open(copy, identity) as folder:
        assert folder.continued
        for budget, known in expected.items():
            study = folder.study(budget)
            records = trial_records(study)
            assert [record.number for record in records] == [row[0] for row in known["trials"]]
            study.tell(study.ask(), 0.5)
            assert len(trial_records(study)) == len(records) + 1


def test_another_version_of_a_library_is_named_and_nothing_is_lost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = shutil.copytree(FOLDER / "0.1.0" / "study", tmp_path / "small")
    identity = json.loads((copy / "identity.json").read_text())
    identity["versions"]["optuna"] = "4.0.0"
    (copy / "identity.json").write_text(json.dumps(identity))
    before = (copy / "study.db").read_bytes()
    command = "--budget-tflops 2 4 --model analytic --trials 8 --seed 7 --quiet --study small"
    assert run([*command.split(), "--out", str(tmp_path)]) == 2
    assert 'versions.optuna: "4.0.0" in the study' in capsys.readouterr().err
    assert (copy / "study.db").read_bytes() == before


def test_the_first_version_in_numbers() -> None:
    """Read by a person off the files, not by the code that reads them now."""
    folder = FOLDER / "0.1.0"
    visiondrop = load_schedule(folder / "schedules" / "llava-1.5-7b-visiondrop.json")
    assert [stage.layer for stage in visiondrop.stages] == [0, 8, 16, 24]
    assert visiondrop.cost is not None
    assert visiondrop.cost.mean_visual_tokens <= 144
    assert visiondrop.stages[0].merge.kind == "nearest-reference"
    searched = load_schedule(folder / "study" / "schedule-2-tflops.json")
    assert searched.cost is not None
    assert 1.99 < searched.cost.tflops <= 2
    assert searched.evidence is not None
    assert set(searched.evidence.splits) == {"search", "confirm", "report"}
    assert (folder / "study" / "trials.csv").read_text().count("2 TFLOPs,") == 8
