"""A default device that a user has set: what the host works out stays on the host."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pruners import apply_schedule, published
from pruners.methods import supported_methods
from tests.helpers.forwards import logits_of
from tests.pruners.families import TinyModel

ELSEWHERE = "meta"  # where nothing can be read, so that whatever lands there is found out
STOCK_FAILS = {"qwen2_5_vl", "llava_next-mistral"}
"""Families whose stock code reads what it has put on the default device."""


def assert_alike(family: TinyModel, inputs: dict[str, Any], method: str) -> None:
    schedule = published(method, family.visual_tokens // 2, family.shape)
    settings = {"processor": family.tokenizer, "text_tower": family.clip_folder}
    with apply_schedule(family.model, schedule, **settings):
        expected = logits_of(family.model, inputs)
        with torch.device(ELSEWHERE):
            found = logits_of(family.model, inputs)
    assert torch.equal(found, expected)


def test_schedules_run_under_any_default_device(
    family: TinyModel, request: pytest.FixtureRequest
) -> None:
    if request.node.callspec.params["family"] in STOCK_FAILS:
        pytest.skip("the stock model alone does not run on such a default device")
    for inputs in filter(None, (family.mixed(), family.video())):
        for method in ("visiondrop", "random"):
            assert_alike(family, inputs, method)


def test_methods_of_every_kind_run_under_any_default_device(tiny: Any) -> None:
    for method in supported_methods(tiny.shape):
        assert_alike(tiny, tiny.mixed(), method)
