"""Qwen2.5-VL and Qwen3-VL, with random weights."""

from __future__ import annotations

import pytest

from tests.pruners.families import TinyModel
from tests.pruners.families.qwen import build_qwen2_5_vl, build_qwen3_vl

BUILDERS = {"qwen2_5_vl": build_qwen2_5_vl, "qwen3_vl": build_qwen3_vl}


@pytest.fixture(scope="session", params=BUILDERS)
def qwen(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    return BUILDERS[request.param](tmp_path_factory.mktemp(request.param))
