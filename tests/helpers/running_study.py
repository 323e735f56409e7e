"""A study that another process is running, and what is in a study's folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from studies.identity import StudyIdentity

_REPOSITORY = Path(__file__).parents[2]

_RUN = """
import sys
from pathlib import Path
from studies.identity import StudyIdentity
from studies.storage import StudyFolder
import optuna
optuna.logging.set_verbosity(optuna.logging.ERROR)
identity = StudyIdentity.model_validate_json(sys.argv[2])
with StudyFolder.open(Path(sys.argv[1]), identity) as folder:
    study = folder.study("2 TFLOPs")
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    study.ask()
    print("ready", flush=True)
    sys.stdin.read()
"""


def start_study(folder: Path, identity: StudyIdentity) -> subprocess.Popen[str]:
    """Start a run that has a finished trial and one under way; it ends when its input is closed."""
    process = subprocess.Popen(
        [sys.executable, "-c", _RUN, str(folder), identity.model_dump_json()],
        cwd=_REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def kill_study(process: subprocess.Popen[str]) -> None:
    """Kill it at once."""
    with process:  # closes its streams
        process.kill()


def contents(folder: Path) -> dict[Path, tuple[int, bytes]]:
    """Read what files a folder has: when they were changed, and what is in them."""
    return {
        path: (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
