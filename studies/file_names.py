"""How the files of a study are called that there is one of per budget."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from space.budgets import Budget


def budget_slug(budget: Budget | str) -> str:
    """Spell a budget as part of a file name, for example ``"2-tflops"`` or ``"22-percent"``."""
    text = str(budget).lower().replace("%", " percent")
    return re.sub(r"[^a-z0-9.]+", "-", text).strip("-")


def schedule_file(budget: Budget | str, budgets: Sequence[Budget] | Sequence[str]) -> str:
    """Name the file of a budget's schedule: ``schedule.json`` when there is only one budget."""
    return "schedule.json" if len(budgets) == 1 else f"schedule-{budget_slug(budget)}.json"


def benchmarks_file(schedule: Path) -> Path:
    """Name the file of a budget's benchmark figures, beside that of its schedule."""
    return schedule.with_name(schedule.name.replace("schedule", "benchmarks", 1))


def scores_file(schedule: Path) -> Path:
    """Name the table of a budget's scores, sample by sample, beside the file of its schedule."""
    name = schedule.name.replace("schedule", "scores", 1)
    return schedule.with_name(name).with_suffix(".csv")
