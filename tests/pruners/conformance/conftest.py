"""What holds for every schedule on every model family."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pruners import PrunedModel, Schedule, apply_schedule, published
from pruners.adapters import adapter_for
from pruners.methods import METHODS, Needs
from tests.pruners.conformance.schedules import NEEDS, REPRESENTATIVE, SCHEDULES, SHARE
from tests.pruners.families import FAMILIES, TinyModel


@pytest.hookimpl(tryfirst=True)  # so that names of tests begin with the family
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "schedule_name" not in metafunc.fixturenames:
        return
    pairs = [
        pytest.param(
            family,
            name,
            id=f"{family}-{name}",
            marks=() if family == "llava" or name in REPRESENTATIVE else pytest.mark.slow,
        )
        for family in FAMILIES
        for name in (*METHODS, *SCHEDULES)
    ]
    metafunc.parametrize(("family", "schedule_name"), pairs, indirect=["family"], scope="session")


@pytest.fixture
def schedule(family: TinyModel, schedule_name: str) -> Schedule:
    shape = family.shape
    needs = NEEDS.get(schedule_name, Needs.NOTHING)
    if not needs.met_by(shape):
        pytest.skip(f"the schedule needs {needs.value}")
    if schedule_name in SCHEDULES:
        return Schedule(stages=SCHEDULES[schedule_name](shape))
    return published(schedule_name, tokens=round(SHARE * family.visual_tokens), shape=shape)


@pytest.fixture(params=["compact", "original"])
def positioned(request: pytest.FixtureRequest, family: TinyModel, schedule: Schedule) -> Schedule:
    if request.param == "compact" and adapter_for(family.model).position_axes > 1:
        pytest.skip("positions of several axes are never compacted")
    return schedule.model_copy(update={"positions": request.param})


@pytest.fixture
def prune(family: Any) -> Iterator[Callable[..., PrunedModel]]:
    """Apply a schedule, by default to the family's shared model, and remove it after the test."""
    handles: list[PrunedModel] = []

    def prune(schedule: Schedule, model: Any = None) -> PrunedModel:
        model = family.model if model is None else model
        handle = apply_schedule(
            model, schedule, processor=family.tokenizer, text_tower=family.clip_folder
        )
        handles.append(handle)
        return handle

    yield prune
    for handle in handles:
        handle.remove()
