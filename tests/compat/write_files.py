"""Writes what this version writes, for later versions to read: see the README beside it.

python -m tests.compat.write_files
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import sys
import tempfile
from contextlib import closing
from importlib.metadata import version
from pathlib import Path

from pruners import Schedule, published, save_schedule
from pruners.methods import METHODS, supported_methods
from search.command_line import run
from space import PRESETS
from space.flops import price
from tests.compat.facts import facts

FOLDER = Path(__file__).parent
COMMAND = "--budget-tflops 2 4 --model analytic --trials 8 --seed 7 --quiet --study small"
KEPT = ("*.json", "*.db", "trials.csv", "pareto.csv", "scores*.csv", "report.md")
"""Files of a study that programs read; figures and pages are for people."""


def main() -> None:
    """Write the folder of the installed version, which must not exist."""
    folder = FOLDER / version("prunetune")
    if folder.exists():
        sys.exit(f"{folder} exists: what a version wrote is never written again")
    with tempfile.TemporaryDirectory() as temporary:
        made = Path(temporary) / folder.name
        write_schedules(made / "schedules")
        write_study(made / "study")
        (made / "facts.json").write_text(json.dumps(facts(made), indent=1, sort_keys=True) + "\n")
        shutil.copytree(made, folder)


def write_schedules(folder: Path) -> None:
    """Write every published method on every family that runs it, priced."""
    folder.mkdir(parents=True)
    save_schedule(Schedule(), folder / "dense.json")
    for shape in PRESETS.values():
        for name in supported_methods(shape) if shape.name != "llava-1.5-7b" else METHODS:
            schedule = published(name, shape.visual_tokens // 4, shape)
            priced = schedule.model_copy(update={"cost": price(schedule, shape)})
            save_schedule(priced, folder / f"{shape.name}-{name}.json")


def write_study(folder: Path) -> None:
    """Write a study of two budgets, whose databases are one file each."""
    folder.mkdir()
    with tempfile.TemporaryDirectory() as runs:
        if run([*COMMAND.split(), "--out", runs]) != 0:
            sys.exit("the study failed")
        study = Path(runs) / "small"
        for database in study.glob("*.db"):
            with closing(sqlite3.connect(database)) as connection:
                connection.execute("PRAGMA journal_mode=DELETE")
                connection.execute("VACUUM")
        for pattern in KEPT:
            for file in study.glob(pattern):
                shutil.copy(file, folder)


if __name__ == "__main__":
    main()
