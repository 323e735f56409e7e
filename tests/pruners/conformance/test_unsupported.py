"""What a family cannot run, is refused."""

from __future__ import annotations

import re
from typing import Any

import pytest

from pruners import PrunetuneError, Schedule, apply_schedule, published
from pruners.errors import UnsupportedModelError
from pruners.methods import METHODS, Needs, supported_methods
from pruners.shape import LLAVA_1_5_7B
from tests.pruners.conformance.schedules import SHARE
from tests.pruners.families import TinyModel

ADVICE = re.compile(r"(use|Use|set|pass|load) ")


def unsupported(family: TinyModel) -> list[str]:
    return [name for name in METHODS if name not in supported_methods(family.shape)]


def test_conformance_unsupported_methods_name_an_alternative(family: Any) -> None:
    for name in unsupported(family):
        with pytest.raises(UnsupportedModelError, match="Use another method") as caught:
            published(name, tokens=round(SHARE * family.visual_tokens), shape=family.shape)
        instead = METHODS[name].instead
        assert repr(instead) in str(caught.value)
        assert instead in supported_methods(family.shape)


def test_conformance_schedules_of_unsupported_methods_are_refused(family: Any) -> None:
    """The same without a shape to warn: a schedule made for LLaVA, brought to another model."""
    for name in unsupported(family):
        if METHODS[name].needs is Needs.PAIRED_TEXT_TOWER and family.shape.shares_text_space:
            continue  # the text tower of that space may be named instead
        stages = published(name, tokens=192, shape=LLAVA_1_5_7B).stages
        fitting = tuple(stage for stage in stages if stage.layer < len(family.decoder_layers))
        with pytest.raises(PrunetuneError, match=ADVICE):
            apply_schedule(
                family.model, Schedule(stages=fitting), text_tower=family.clip_folder
            ).remove()
        assert not any(module._forward_pre_hooks for module in family.model.modules())
