"""A whole search on local rows of the papers' benchmarks, through the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import huggingface_hub
import pytest

from pruners import load_schedule
from search.command_line import run

NAMES = "gqa,pope,mmbench_en_dev_static,scienceqa_img,vqav2_val,textvqa_val"


@pytest.fixture
def command(checkpoint: Path, rows: dict[str, Path], tmp_path: Path) -> list[str]:
    data = [f"{name}={rows[name]}" for name in NAMES.split(",")]
    return [
        *("--model", str(checkpoint / "model"), "--text-tower", str(checkpoint / "clip")),
        *("--tasks", NAMES, "--task-data", *data),
        *("--search-samples", "24", "--confirm-samples", "12", "--report-samples", "16"),
        *("--budget", "85%", "--trials", "2", "--max-new-tokens", "1"),
        *("--cache", str(tmp_path / "cache"), "--out", str(tmp_path), "--study", "study"),
    ]


def test_a_search_on_six_benchmarks_gives_a_schedule_with_evidence(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(command) == 0
    schedule = load_schedule(tmp_path / "study" / "schedule.json")
    assert schedule.evidence is not None
    tower = command[command.index("--text-tower") + 1]
    assert tower in schedule.evidence.note
    assert any(hasattr(stage.scorer, "text_tower") for stage in schedule.stages)
    assert f'schedule.json"), text_tower="{tower}")' in capsys.readouterr().out
    report = schedule.evidence.splits["report"]
    assert set(report.tasks) == set(NAMES.split(","))
    figures = json.loads((tmp_path / "study" / "benchmarks.json").read_text())
    assert figures["metrics"]["pope"].startswith("F1")
    for name, accuracy in report.tasks.items():
        if name != "pope":  # whose samples score accuracy
            assert figures["schedules"]["searched"][name] == pytest.approx(100 * accuracy)
    saved = json.loads((tmp_path / "study" / "samples.json").read_text())
    drawn = [name for split in saved.values() for names in split.values() for name in names]
    assert len(drawn) == len(set(drawn)) == sum(len(n) for s in saved.values() for n in s.values())
    assert set(saved["search"]) == set(NAMES.split(","))
    capsys.readouterr()
    # The same command continues the study, and other samples would be another one.
    assert run(command) == 0
    assert "Continuing" in capsys.readouterr().out
    assert run([*command, "--report-samples", "12"]) == 2
    assert "report" in capsys.readouterr().err


def test_a_run_that_fails_before_it_measures_leaves_no_study_in_the_way(
    command: list[str], checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "model"
    shutil.copytree(checkpoint / "model", model)
    weights = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes(weights[:1000])  # as of a download that broke off
    mine = [str(model) if part == str(checkpoint / "model") else part for part in command]
    assert run(mine) == 2
    assert f"--model {model} cannot be loaded" in capsys.readouterr().err
    assert not (tmp_path / "study").exists()
    (model / "model.safetensors").write_bytes(weights)
    assert run(mine) == 0


def test_without_the_extra_the_message_has_the_command_that_installs_it(
    command: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search.tasks.extra._MODULES", ("lmms_eval", "not_installed_here"))
    assert run(command) == 2
    error = capsys.readouterr().err
    assert "not_installed_here" in error
    assert "pip install --no-deps lmms-eval==0.7.3" in error


def test_without_network_the_model_is_asked_for_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)

    def retried(*args: object, **options: object) -> None:
        raise AssertionError("transformers was asked, which tries for half a minute")

    monkeypatch.setattr("search.tasks.evaluator.shape_from_pretrained", retried)
    assert run(["--model", "llava-hf/llava-1.5-7b-hf", "--budget", "2", "--tasks", "gqa"]) == 2
    assert "cannot be reached" in capsys.readouterr().err


def test_a_dry_run_works_on_few_samples_and_keeps_no_study(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*command, "--dry-run", "--search-samples", "4"]) == 0
    assert "Expected time" in capsys.readouterr().out
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--tasks", "gqb"], "did you mean gqa"),
        (["--tasks", "GQA"], "did you mean gqa"),
        (["--tasks", "mmbench_en_dev"], "use mmbench_en_dev_static"),
        (["--tasks", "msvd_qa"], "rated by a language model"),
        (["--tasks", "gqa", "--task-data", "gqa"], "gqa=rows/gqa"),
        (["--tasks", "gqa", "--task-data", "pope=rows"], "is not among --tasks"),
        (["--tasks", "gqa", "--task-data", "gqa=missing"], "no parquet file"),
        (["--tasks", "gqa", "--task-data", f"gqa={__file__}"], "this is a file; pass the folder"),
        (["--tasks", "gqa", "gqa"], "given twice"),
        (["--tasks", "gqa", "--cache", __file__], "this is a file, or in one; name a folder"),
        (["--tasks", "gqa", "--cache", f"{__file__}/cache"], "in one; name a folder"),
        (["--tasks", "gqa", "--cache", "x" * 300], "no folder can be there (File name too long)"),
        (["--tasks", ""], "needs benchmarks"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_is_loaded(
    arguments: list[str],
    expected: str,
    checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*args: object, **options: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("search.tasks.evaluator.load_live_model", fail)
    model = ["--model", str(checkpoint / "model"), "--text-tower", str(checkpoint / "clip")]
    assert run([*model, "--budget", "85%", "--out", str(tmp_path), *arguments]) == 2
    assert expected in capsys.readouterr().err
