"""The files of the embedded benchmark's tasks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from lmms_eval.tasks import TaskManager, get_task_dict

from pruners import published, save_schedule
from pruners.errors import DataError
from search.embedded import CHECKPOINT
from search.embedded.benchmark import TASKS, load_split
from search.lmms.embedded_tasks import group_name, main, task_name, write_tasks
from studies.identity import SPLITS


def test_tasks_hold_the_benchmarks_rows_wherever_the_folder_is(tmp_path: Path) -> None:
    write_tasks(tmp_path / "written", ["confirm"], samples=6)
    folder = (tmp_path / "written").rename(tmp_path / "moved")
    manager = TaskManager("ERROR", include_path=str(folder), include_defaults=False)
    assert set(manager.all_tasks) >= {
        group_name("confirm"),
        *(task_name(task, "confirm") for task in TASKS),
    }
    name = task_name("multiple_choice", "confirm")
    task = get_task_dict([name], manager, "chat")[name]
    samples = load_split("confirm", ["multiple_choice"])[:6]
    rows = list(task.test_docs())
    assert [row["id"] for row in rows] == [sample.id for sample in samples]
    for row, sample in zip(rows, samples, strict=True):
        ((message,),) = (task.doc_to_messages(row),)
        image, question = message["content"]
        np.testing.assert_array_equal(np.asarray(image["url"].convert("RGB")), sample.image)
        assert question["text"] == sample.question
        assert task.doc_to_target(row) == sample.answer
        assert task.process_results(row, [f" {sample.answer}\n"]) == {"accuracy": 1.0}
        assert task.process_results(row, [""]) == {"accuracy": 0.0}


def test_every_split_and_task_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["embedded_tasks", str(tmp_path / "all")])
    main()
    assert "18 files" in capsys.readouterr().out
    names = {path.stem for path in (tmp_path / "all").glob("*.parquet")}
    assert names == {task_name(task, split) for task in TASKS for split in SPLITS}
    group = yaml.safe_load((tmp_path / "all" / f"{group_name('search')}.yaml").read_text())
    assert group["task"] == [task_name(task, "search") for task in TASKS]


def test_what_cannot_be_written_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="unknown split 'train'"):
        write_tasks(tmp_path, ["train"])
    file = tmp_path / "file"
    file.touch()
    monkeypatch.setattr("sys.argv", ["embedded_tasks", str(file)])
    with pytest.raises(SystemExit, match="error: the tasks cannot be written to"):
        main()
    monkeypatch.setattr("sys.argv", ["embedded_tasks"])
    with pytest.raises(SystemExit, match="usage: "):
        main()


def test_what_is_not_installed_is_named_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    monkeypatch.setattr("sys.argv", ["embedded_tasks", str(tmp_path / "tasks")])
    expected = r"error: .*datasets.*; run pip install 'prunetune\[lmms-eval\]'"
    with pytest.raises(SystemExit, match=expected):
        main()


def run_lmms_eval(folder: Path, *start: str) -> dict[str, float]:
    """Accuracy of each task that lmms-eval's command line prints, under a schedule."""
    schedule = folder / "schedule.json"
    save_schedule(published("visiondrop", 32), schedule)
    command = [
        *(sys.executable, *start, "-m", "lmms_eval", "--model", "prunetune", "--batch_size", "4"),
        *("--model_args", f"pretrained={CHECKPOINT},schedule={schedule},device=cpu"),
        *("--include_path", str(folder), "--tasks", group_name("search")),
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=True)
    table = [line.split("|") for line in done.stdout.splitlines() if "|accuracy|" in line]
    rows = [[cell.strip(" -") for cell in row] for row in table]
    return {row[1]: float(row[row.index("↑") + 1]) for row in rows}


def test_the_command_line_of_lmms_eval_finds_the_model_and_the_tasks(tmp_path: Path) -> None:
    write_tasks(tmp_path, ["search"], samples=2)
    expected = {group_name("search"), *(task_name(task, "search") for task in TASKS)}
    assert set(run_lmms_eval(tmp_path)) == expected


@pytest.mark.slow
def test_two_processes_share_the_samples(tmp_path: Path) -> None:
    write_tasks(tmp_path, ["search"], samples=7)
    alone = run_lmms_eval(tmp_path)
    launch = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    assert len(set(alone.values())) > 1
    assert run_lmms_eval(tmp_path, *launch) == alone
