"""Tiny checkpoints with random weights, built once per run."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest

from tests.pruners.families import FAMILIES, TinyModel, build_llava


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run tests of `family` on every family; those with schedules say themselves on which."""
    if "family" in metafunc.fixturenames and "schedule_name" not in metafunc.fixturenames:
        metafunc.parametrize("family", FAMILIES, indirect=True, scope="session")


@pytest.fixture(scope="session")
def build_family(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], TinyModel]:
    return cache(lambda name: FAMILIES[name](tmp_path_factory.mktemp(name)))


@pytest.fixture(scope="session")
def family(request: pytest.FixtureRequest, build_family: Callable[[str], TinyModel]) -> TinyModel:
    return build_family(request.param)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    return build_llava(tmp_path_factory.mktemp("tiny"))
