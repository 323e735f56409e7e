from __future__ import annotations

import io
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pytest
from rich.console import Console
from running_study import contents, kill_study, start_study

from pruners import Schedule, load_schedule, save_schedule
from pruners.scorers import Uniform
from pruners.selectors import Determinantal
from pruners.stages import Stage
from search.command_line import run
from space import preset
from studies.commands import tables, watching
from studies.optuna_storage import close_storage, open_storage
from studies.progress import StudyProgress, read_progress
from studies.reading import find_studies, read_study
from studies.runtime_exports import RUNTIMES, export_to
from studies.storage import StudyFolder
from studies.storage_address import parse_storage
from studies.study_comparison import compare_studies

optuna.logging.set_verbosity(optuna.logging.WARNING)
REPOSITORY = Path(__file__).parents[2]
SEARCH = "--model analytic --trials 4 --stages 1 --quiet"


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the studies ``one``, of one budget, and ``two``, of two."""
    folder = tmp_path_factory.mktemp("studies")
    for name, budgets in (("one", "2"), ("two", "2 4")):
        command = f"--budget-tflops {budgets} {SEARCH} --study {name} --seed {len(budgets)}"
        assert run([*command.split(), "--out", str(folder / "runs")]) == 0
    return folder


@pytest.fixture
def runs(searched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder ``runs`` in the working directory, with copies of both studies."""
    shutil.copytree(searched / "runs", tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PRUNETUNE_STORAGE", raising=False)
    return tmp_path / "runs"


@pytest.fixture
def running(runs: Path, identity):
    """A study ``live`` that a process is running, which ends when its input is closed."""
    process = start_study(runs / "live", identity)
    yield process
    kill_study(process)


def _said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert run(["studies", *arguments]) == 0
    return capsys.readouterr().out


def test_looking_at_studies_changes_nothing(runs: Path, capsys) -> None:
    before = contents(runs)
    for arguments in (
        ["list"],
        ["status", "one"],
        ["watch", "two"],
        ["show", "two"],
        ["export", "one"],
        ["compare", "one", "two"],
        ["plot", "one", "--to", "elsewhere", "--formats", "svg"],
        ["report", "one", "--to", "page.html"],
    ):
        assert _said(capsys, *arguments)
        assert contents(runs) == before, arguments


def test_what_is_listed_is_what_optuna_and_the_results_say(runs: Path, capsys) -> None:
    one, two = json.loads(_said(capsys, "list", "--json"))
    assert (one["name"], one["state"], two["name"]) == ("one", "finished", "two")
    assert [budget["budget"] for budget in two["budgets"]] == ["2 TFLOPs", "4 TFLOPs"]
    results = json.loads((runs / "two" / "results.json").read_text())
    for shown, result in zip(two["budgets"], results, strict=True):
        url = f"sqlite:///{runs / 'two' / 'study.db'}"
        study = optuna.load_study(study_name=shown["budget"], storage=url)
        assert shown["complete"] == len(study.trials) == 4
        (searched,) = [each for each in result["schedules"] if each["name"] == "searched"]
        assert shown["reported"] == searched["evidence"]["relative_accuracy"]
        most = max(len(trial.intermediate_values) for trial in study.trials)
        longest = [trial for trial in study.trials if len(trial.intermediate_values) == most]
        best = max(np.mean(trial.user_attrs["accuracies"]) for trial in longest)
        assert shown["best"] == pytest.approx(best)
    table = _said(capsys, "list")
    for word in ("one", "two", "finished", "analytic", "4 TFLOPs"):
        assert word in table


def test_tables_fit_a_terminal_and_lose_no_digit_in_a_narrow_one(runs: Path) -> None:
    studies = [read_progress(folder) for folder in find_studies(runs)]
    both = [read_study(folder) for folder in find_studies(runs)]
    shown = Console(file=io.StringIO(), width=80)
    shown.print(tables.studies_table(studies))
    lines = shown.file.getvalue().splitlines()
    assert [line.split()[0] for line in lines if "TFLOPs" in line] == ["one", "two", "4"]
    assert len([line for line in lines if line.strip()]) == 2 + 3  # no row takes a second line
    for drawn in (
        tables.studies_table(studies),
        tables.progress_panel(studies[1]),
        tables.comparison_panel(compare_studies(both), "one"),
        tables.schedule_table(both[0].budgets[0].schedule),
        tables.identity_table(both[0]),
    ):
        narrow = Console(file=io.StringIO(), width=30)
        narrow.print(drawn)
        assert "…" not in narrow.file.getvalue()


def test_show_has_the_identity_the_results_and_the_stages(runs: Path, capsys) -> None:
    shown = json.loads(_said(capsys, "show", "two", "--json"))
    assert shown["identity"] == json.loads((runs / "two" / "identity.json").read_text())
    results = json.loads((runs / "two" / "results.json").read_text())
    assert [budget["result"] for budget in shown["budgets"]] == results
    text = _said(capsys, "show", "two")
    schedule = load_schedule(runs / "two" / "schedule-4-tflops.json")
    for stage, count in zip(schedule.stages, schedule.counts(576), strict=True):
        row = rf"^\s+{stage.layer}\s+{count.alive}\s+{count.dominant}\s+{count.contextual}\s"
        assert re.search(row + f"+{stage.scorer.kind}", text, re.MULTILINE)
    for word in ("searched", "VisionDrop", "DeSAP", "500 report", "llava-1.5-7b"):
        assert word in text


def test_trials_are_exported_alike_in_every_format(runs: Path, capsys) -> None:
    text = _said(capsys, "export", "two")
    assert text == (runs / "two" / "trials.csv").read_text()
    _said(capsys, "export", "two", "--format", "csv", "--to", "trials.csv")
    assert Path("trials.csv").read_text() == text
    rows = pd.read_csv(io.StringIO(text))
    objects = pd.DataFrame(json.loads(_said(capsys, "export", "two", "--format", "json")))
    _said(capsys, "export", "two", "--format", "parquet", "--to", "trials.parquet")
    table = pd.read_parquet("trials.parquet")
    for column in ("budget", "number", "objective", "samples", "tflops", "content_hash"):
        pd.testing.assert_series_equal(objects[column], rows[column], check_dtype=False)
        pd.testing.assert_series_equal(table[column], rows[column], check_dtype=False)
    assert [list(layers) for layers in table["layers"]] == objects["layers"].tolist()
    for name in objects["parameters"][0]:
        assert table[name].tolist() == pytest.approx(rows[name].tolist())
    one_budget = json.loads(
        _said(capsys, "export", "two", "--format", "json", "--budget", "4 TFLOPs")
    )
    assert [row["budget"] for row in one_budget] == ["4 TFLOPs"] * 4


@pytest.mark.parametrize("suffix", ["csv", "json", "parquet", "tex", "md", "bib", "dat"])
def test_the_name_of_the_file_says_its_format(suffix: str, runs: Path, capsys) -> None:
    forms = {"tex": "latex", "md": "markdown", "bib": "bibtex", "dat": "csv"}
    _said(capsys, "export", "one", "--to", f"unnamed.{suffix}")
    _said(capsys, "export", "one", "--to", "named", "--format", forms.get(suffix, suffix))
    assert Path(f"unnamed.{suffix}").read_bytes() == Path("named").read_bytes()


def test_the_schedule_is_exported_as_it_is(runs: Path, capsys) -> None:
    stored = runs / "one" / "schedule.json"
    assert _said(capsys, "export", "one", "--format", "schedule") == stored.read_text()
    _said(capsys, "export", "one", "--format", "schedule", "--to", "mine.json")
    assert load_schedule("mine.json") == load_schedule(stored)
    low = _said(capsys, "export", "two", "--format", "schedule", "--budget", "2 TFLOPs")
    assert low == (runs / "two" / "schedule-2-tflops.json").read_text()


def test_the_schedule_is_exported_as_settings_of_another_runtime(runs: Path, capsys) -> None:
    stage = Stage(layer=0, retention=0.3, scorer=Uniform(), selector=Determinantal())
    schedule = Schedule(stages=(stage,), shape=preset("qwen2.5-vl-7b"))
    save_schedule(schedule, runs / "one" / "schedule.json")
    settings = json.loads(_said(capsys, "export", "one", "--format", "openvino-genai"))
    assert settings == export_to("openvino-genai", schedule).model_dump(mode="json")
    for runtime in RUNTIMES:  # what was searched is said by none
        arguments = ["--format", runtime, "--budget", "2 TFLOPs"]
        assert run(["studies", "export", "two", *arguments]) == 2
        assert "--format schedule is for that one" in capsys.readouterr().err


def _relative(scores: pd.DataFrame) -> float:
    means = scores.groupby("task")[["searched", "dense"]].mean()
    return float((means["searched"] / means["dense"]).mean())


def test_studies_are_compared_on_the_same_samples(runs: Path, capsys) -> None:
    comparison = json.loads(_said(capsys, "compare", "one", "two", "--json"))
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
    assert "one minus this" in _said(capsys, "compare", "one", "two")


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


def test_figures_and_page_are_written_into_the_study(runs: Path, capsys) -> None:
    written = _said(capsys, "plot", "two", "--formats", "png", "--width", "page").split()
    assert "runs/two/figures/pareto.png" in written
    assert all(Path(path).exists() for path in written)
    (runs / "two" / "report.html").unlink(missing_ok=True)
    assert _said(capsys, "report", "two").strip() == "runs/two/report.html"
    assert "VisionDrop" in (runs / "two" / "report.html").read_text()


WRONG = {
    "no such study": (["status", "three"], "no study 'three' in runs; there are one, two"),
    "no such folder": (["show", "one", "--out", "nowhere"], "no folder nowhere"),
    "no folder to list": (["list", "--out", "nowhere"], "no folder nowhere"),
    "which budget": (["export", "two", "--format", "schedule"], "'2 TFLOPs' and '4 TFLOPs'"),
    "no such budget": (
        ["export", "two", "--budget", "3"],
        "two is of '2 TFLOPs' and '4 TFLOPs', not '3'; say which with --budget",
    ),
    "parquet on a terminal": (["export", "one", "--format", "parquet"], "--to"),
    "no such format": (["export", "one", "--format", "xml"], "xml"),
    "no such figure format": (["plot", "one", "--formats", "gif"], "gif"),
    "a name that no folder can have": (["status", "x" * 5000], "no study 'xxx"),
    "a folder for a file": (["export", "one", "--to", "runs"], "name a file"),
    "nothing for a file": (["report", "one", "--to", ""], "name a file"),
    "no figure formats": (["plot", "one", "--formats", ","], "--formats is empty"),
    "nowhere to write": (["export", "one", "--to", "nowhere/a.csv"], "cannot be written"),
    "one study compared": (["compare", "one"], "two different studies"),
    "the same compared": (["compare", "one", "runs/one"], "two different studies"),
    "two kinds of status": (["status", "one", "--follow", "--json"], "--follow and --json"),
    "nobody to ask": (["delete", "one"], "--yes"),
    "no command": (["frobnicate"], "frobnicate"),
    "a password for all to see": (
        ["list", "--storage", "postgresql+psycopg://me:secret-word@127.0.0.1/trials"],
        "--storage holds a password",
    ),
}


def test_names_are_shown_as_they_are(runs: Path, capsys) -> None:
    name = "one [bold] 100%  \u00fc [z"
    (runs / "one").rename(runs / name)
    for arguments in (["list"], ["status", name], ["show", name]):
        assert name in _said(capsys, *arguments)
    assert f"{name} minus this" in _said(capsys, "compare", name, "two")


@pytest.mark.parametrize(("arguments", "message"), WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_is_said_with_status_2(
    arguments: list[str], message: str, runs: Path, capsys
) -> None:
    before = contents(runs)
    assert run(["studies", *arguments]) == 2
    output = capsys.readouterr()
    assert message in output.err
    assert "Traceback" not in output.err
    assert "secret-word" not in output.out + output.err
    assert contents(runs) == before


def test_a_study_that_has_only_begun_is_shown_as_that(runs: Path, identity, capsys) -> None:
    StudyFolder.open(runs / "begun", identity).close()
    (progress,) = [
        study for study in json.loads(_said(capsys, "list", "--json")) if study["name"] == "begun"
    ]
    assert progress["state"] == "new"
    assert "no schedule yet, 0 trials" in _said(capsys, "show", "begun")
    for arguments, message in (
        (["export", "begun", "--format", "schedule", "--budget", "2 TFLOPs"], "no schedule"),
        (["plot", "begun"], "no trials to draw"),
    ):
        assert run(["studies", *arguments]) == 2
        assert message in capsys.readouterr().err
    compared = json.loads(_said(capsys, "compare", "one", "begun", "--json"))
    (_, row) = compared["budgets"][0]["studies"]
    assert "reported nothing yet" in row["why_not"]


def test_a_damaged_study_is_named_beside_the_others(runs: Path, capsys) -> None:
    (runs / "two" / "study.db").write_bytes(b"prunetune" * 1000)
    assert run(["studies", "list"]) == 2
    output = capsys.readouterr()
    assert "one" in output.out
    assert "two/study.db is not a readable SQLite database" in output.err
    assert run(["studies", "delete", "two", "--yes"]) == 0  # the way to be rid of it
    assert not (runs / "two").exists()


def test_a_study_is_deleted_and_no_other(runs: Path, capsys) -> None:
    before = contents(runs / "two")
    assert "Removed" in _said(capsys, "delete", "one", "--yes")
    assert [path.name for path in runs.iterdir()] == ["two"]
    assert contents(runs / "two") == before


def test_deleting_asks_on_a_terminal(runs: Path) -> None:
    for answer, left in ((b"n\n", ["one", "two"]), (b"y\n", ["two"])):
        process, terminal = _on_a_terminal(runs.parent, "studies", "delete", "one")
        assert b"Remove runs/one with" in _read_until(terminal, b"[y/N]")
        os.write(terminal, answer)
        assert process.wait(timeout=300) == (0 if answer == b"y\n" else 1)
        os.close(terminal)
        assert sorted(path.name for path in runs.iterdir()) == left


def test_a_link_to_a_study_is_not_followed_in_deleting(runs: Path, capsys) -> None:
    (runs / "link").symlink_to(runs / "one")
    assert run(["studies", "delete", "link", "--yes"]) == 2
    assert "is a link" in capsys.readouterr().err
    assert (runs / "one" / "results.json").exists()


def test_deleting_takes_the_trials_from_a_shared_storage(runs: Path, identity, capsys) -> None:
    url = f"sqlite:///{runs.parent / 'shared.db'}"
    for name in ("mine", "other"):
        with StudyFolder.open(runs / name, identity, parse_storage(url)) as folder:
            study = folder.study("2 TFLOPs")
            study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    assert "1 trial" in _said(capsys, "show", "mine")
    _said(capsys, "delete", "mine", "--yes")
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
    listed = json.loads(_said(capsys, "list", "--json", "--out", "elsewhere", "--storage", other))
    assert [study["budgets"][0]["complete"] for study in listed] == [3, 3, 3]
    assert contents(runs.parent) == before


def test_a_running_study_is_shown_and_not_deleted(running, runs: Path, capsys) -> None:
    shown = json.loads(_said(capsys, "status", "live", "--json"))
    assert shown["state"] == "running"
    assert (shown["budgets"][0]["complete"], shown["budgets"][0]["under_way"]) == (1, 1)
    assert run(["studies", "delete", "live", "--yes"]) == 2
    assert "a process is running the study" in capsys.readouterr().err
    assert (runs / "live" / "study.db").exists()


def test_following_ends_with_the_run(running, runs: Path) -> None:
    command = [sys.executable, str(REPOSITORY / "search" / "run.py"), "studies", "status", "live"]
    follower = subprocess.Popen(
        [*command, "--follow", "--interval", "0.1"],
        cwd=runs.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert follower.stdout.readline().startswith("running; 2 TFLOPs: 1 trial")
    running.stdin.close()
    output, errors = follower.communicate(timeout=300)
    assert (follower.returncode, errors) == (0, "")
    assert output.splitlines()[-1].startswith("stopped;")


def test_ctrl_c_ends_watching_wherever_it_arrives(running, runs: Path, monkeypatch, capsys) -> None:
    class InterruptedInADestructor:
        """Python swallows what is raised where an object is thrown away."""

        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)

    def read(*arguments: object) -> StudyProgress:
        InterruptedInADestructor()
        return read_progress(*arguments)

    monkeypatch.setattr(watching, "read_progress", read)
    before = signal.getsignal(signal.SIGINT)
    _said(capsys, "watch", "live", "--interval", "inf")
    assert signal.getsignal(signal.SIGINT) is before
    assert running.poll() is None


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", [["list"], ["list", "--json"], ["export", "one"]])
def test_output_that_cannot_be_written_is_said(
    runs: Path, arguments: list[str], unbuffered: str
) -> None:
    command = [sys.executable, str(REPOSITORY / "search" / "run.py"), "studies", *arguments]
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command, cwd=runs.parent, stdout=full, stderr=subprocess.PIPE, env=environment
        )
    assert done.returncode == 2
    assert done.stderr == b"error: the output cannot be written (No space left on device)\n"
    # Nobody reads it: `prunetune studies list | true`.
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        command, cwd=runs.parent, stdout=writing, stderr=subprocess.PIPE, env=environment
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, b"")


def test_ctrl_c_ends_watching_but_not_the_study(running, runs: Path) -> None:
    watcher, terminal = _on_a_terminal(runs.parent, "studies", "watch", "live")
    assert b"running" in _read_until(terminal, b"Samples measured")
    watcher.send_signal(signal.SIGINT)
    assert watcher.wait(timeout=300) == 0
    rest = _read_until(terminal, b"")
    os.close(terminal)
    assert b"Traceback" not in rest
    assert b"\x1b[?25h" in rest  # the cursor is shown again
    assert running.poll() is None


def _on_a_terminal(folder: Path, *arguments: str) -> tuple[subprocess.Popen[bytes], int]:
    """Start the program with a terminal; returns it and the terminal's other end."""
    mine, its = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, str(REPOSITORY / "search" / "run.py"), *arguments],
        cwd=folder,
        stdin=its,
        stdout=its,
        stderr=its,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
        # A shell that runs in the background hides SIGINT from what it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    os.close(its)
    return process, mine


def _read_until(terminal: int, text: bytes) -> bytes:
    """Read a terminal until a text appears, or to its end where none is given."""
    found = b""
    while not text or text not in found:
        try:
            more = os.read(terminal, 65536)
        except OSError:  # Linux's way to say that the program has ended
            break
        if not more:
            break
        found += more
    return found


def test_help_names_the_commands(capsys) -> None:
    assert run(["--help"]) == 0
    output = capsys.readouterr().out
    assert "prunetune studies" in output
    assert "prunetune dashboard" in output
    assert run(["studies", "--help"]) == 0
    output = capsys.readouterr().out
    for command in (
        *("list", "status", "watch", "show", "export", "plot", "report", "compare", "delete"),
    ):
        assert re.search(rf"^  {command} ", output, re.MULTILINE)
