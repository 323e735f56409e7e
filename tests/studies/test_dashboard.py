from __future__ import annotations

import io
import json
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from urllib.request import Request, urlopen

import optuna
import pytest

from search.command_line import run
from studies.storage import StudyFolder

optuna_dashboard = pytest.importorskip("optuna_dashboard", reason="extra: dashboard")
optuna.logging.set_verbosity(optuna.logging.WARNING)
REPOSITORY = Path(__file__).parents[2]


def _get(application, path):
    status = []
    environment = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": path,
        "QUERY_STRING": "",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": io.StringIO(),
        "wsgi.url_scheme": "http",
    }
    body = b"".join(application(environment, lambda line, *_: status.append(line)))
    assert status == ["200 OK"]
    return json.loads(body)


@pytest.mark.slow  # runs where the extra is installed
def test_the_dashboard_shows_a_study_while_it_runs(tmp_path, identity):
    with StudyFolder.open(tmp_path, identity) as folder:
        study = folder.study("2 TFLOPs")
        study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=3)
        application = optuna_dashboard.wsgi(f"sqlite:///{tmp_path / 'study.db'}")
        (summary,) = _get(application, "/api/studies")["study_summaries"]
        assert summary["study_name"] == "2 TFLOPs"
        study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
        shown = _get(application, f"/api/studies/{summary['study_id']}")["trials"]
        assert [trial["values"] for trial in shown] == [trial.values for trial in study.trials]


@contextmanager
def _served(folder, study, host="127.0.0.1"):
    """Start ``prunetune dashboard``; gives its address, and ends it as Ctrl-C does."""
    program = REPOSITORY / "search" / "run.py"
    process = subprocess.Popen(
        [sys.executable, str(program), "dashboard", study, "--host", host, "--port", "0"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell that runs in the background hides SIGINT from what it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        line = process.stdout.readline()
        shown = f"[{host}]" if ":" in host else host
        assert line.startswith(f"http://{shown}:"), process.stderr.read()
        yield line.partition("/dashboard")[0]
    finally:
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=300)
    assert (process.returncode, errors) == (0, "")


def _ask(address):
    with urlopen(address, timeout=300) as answer:
        return answer.read()


@pytest.mark.slow  # draws figures twice, and runs where the extra is installed
def test_the_server_has_figures_scores_and_notes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = "--budget-tflops 2 4 --model analytic --trials 4 --stages 1 --quiet --study two"
    assert run(arguments.split()) == 0
    folder = tmp_path / "runs" / "two"
    with _served(tmp_path, "two") as address:
        summaries = json.loads(_ask(f"{address}/api/studies"))["study_summaries"]
        assert [each["study_name"] for each in summaries] == ["2 TFLOPs", "4 TFLOPs"]
        low = summaries[0]["study_id"]
        shown = json.loads(_ask(f"{address}/api/studies/{low}"))
        attached = {each["filename"]: each["artifact_id"] for each in shown["artifacts"]}
        for name in ("schedule-2-tflops.json", "scores-2-tflops.csv"):
            content = _ask(f"{address}/artifacts/{low}/{attached[name]}")
            assert content == (folder / name).read_bytes()
        assert {"pareto.svg", "schedules.svg", "tasks.svg", "anytime.svg"} <= attached.keys()
        note = shown["note"]["body"]
        table = [line for line in (folder / "report.md").read_text().splitlines() if "|" in line]
        assert [line for line in table[:6] if line in note] == table[:6]
        figure = note.partition("![pareto](")[2].partition(")")[0]
        assert b"<svg" in _ask(f"{address}{figure}")
        best = json.loads((folder / "schedule-2-tflops.json").read_text())
        noted = [trial for trial in shown["trials"] if "exported schedule" in trial["note"]["body"]]
        assert len(noted) == 1
        assert f"| {best['stages'][0]['layer']} |" in noted[0]["note"]["body"]
        # What users write stays.
        body = json.dumps({"body": "mine", "version": shown["note"]["version"] + 1}).encode()
        header = {"Content-Type": "application/json"}
        request = Request(f"{address}/api/studies/{low}/note", body, header, method="PUT")
        assert urlopen(request, timeout=300).status == 204
    with _served(tmp_path, "two") as address:
        again = json.loads(_ask(f"{address}/api/studies/{low}"))
        assert again["note"]["body"] == "mine"
        assert {each["filename"]: each["artifact_id"] for each in again["artifacts"]} == attached
    if socket.has_dualstack_ipv6():
        with _served(tmp_path, "two", "::1") as address:
            assert len(json.loads(_ask(f"{address}/api/studies"))["study_summaries"]) == 2
    assert run([*arguments.split(), "--timeout", "60"]) == 0  # the study is as it was


def test_the_dashboard_needs_trials_and_a_study(tmp_path, identity, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    StudyFolder.open(tmp_path / "runs" / "new", identity).close()
    for study, message in (("new", "no trials to show"), ("nothing", "there are new")):
        assert run(["dashboard", study]) == 2
        assert message in capsys.readouterr().err
