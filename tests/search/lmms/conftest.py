"""Tests of what lmms-eval sees of this distribution; left out where it is not installed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from importlib.util import find_spec

import pytest

from tests.pruners.families import FAMILIES, TinyModel

if find_spec("lmms_eval") is None:
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="session", autouse=True)
def _private_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep prepared data sets out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LMMS_EVAL_DATASETS_CACHE", str(tmp_path_factory.mktemp("datasets")))
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield


@pytest.fixture(scope="session")
def build_family(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], TinyModel]:
    return cache(lambda name: FAMILIES[name](tmp_path_factory.mktemp(name)))


@pytest.fixture(scope="session")
def tiny(build_family: Callable[[str], TinyModel]) -> TinyModel:
    return build_family("llava")
