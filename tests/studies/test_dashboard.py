from __future__ import annotations

import io
import json

import optuna
import pytest

from studies.storage import StudyFolder

optuna_dashboard = pytest.importorskip("optuna_dashboard", reason="extra: dashboard")
optuna.logging.set_verbosity(optuna.logging.WARNING)


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
