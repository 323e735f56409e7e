"""A study of two budgets, whose schedules lose answers with known probabilities."""

from __future__ import annotations

from pathlib import Path

import pytest

from studies.identity import StudyIdentity
from studies.reading import StoredBudget, StoredStudy
from tests.studies.report_page.made import budget_result


@pytest.fixture(scope="session")
def stored() -> tuple[StoredBudget, ...]:
    budgets = []
    for tokens, budget in ((64, "2 TFLOPs"), (192, "4 TFLOPs")):
        result, schedule = budget_result(tokens, budget)
        path = Path(f"schedule-{budget[0]}-tflops.json")
        budgets.append(StoredBudget(budget, (), result, schedule, path))
    return tuple(budgets)


@pytest.fixture
def study(stored: tuple[StoredBudget, ...], identity: StudyIdentity) -> StoredStudy:
    return StoredStudy("a-study", Path("runs/a-study"), identity, stored)
