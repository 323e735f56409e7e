"""Tiny checkpoints with random weights, built once per run."""

from __future__ import annotations

import pytest

from tests.pruners.families import FAMILIES, TinyModel, build_llava


@pytest.fixture(scope="session", params=FAMILIES)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    return FAMILIES[request.param](tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    return build_llava(tmp_path_factory.mktemp("tiny"))
