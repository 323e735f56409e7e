"""LLaVA-NeXT and LLaVA-OneVision, with random weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.pruners.families import TinyModel, llava_next, llava_onevision

BUILDERS: dict[str, Callable[[Path], TinyModel]] = {
    "llava_next": llava_next.build_llava_next,
    "llava_onevision": llava_onevision.build_llava_onevision,
}


@pytest.fixture(scope="session")
def next_model(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    return llava_next.build_llava_next(tmp_path_factory.mktemp("next"))


@pytest.fixture(scope="session")
def mistral(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    return llava_next.build_llava_next_mistral(tmp_path_factory.mktemp("mistral"))


@pytest.fixture(scope="session")
def onevision(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    return llava_onevision.build_llava_onevision(tmp_path_factory.mktemp("onevision"))


@pytest.fixture(params=BUILDERS)
def tiled(request: pytest.FixtureRequest, next_model: TinyModel, onevision: TinyModel) -> TinyModel:
    return next_model if request.param == "llava_next" else onevision
