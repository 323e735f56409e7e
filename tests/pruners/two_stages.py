"""A schedule of two stages that fits the tiny model, and what it is asked."""

from __future__ import annotations

from typing import Any

import torch

from pruners import (
    ClsAttention,
    NearestReference,
    Schedule,
    SimilarityFusion,
    Stage,
    VisualSelfAttention,
)

QUESTIONS = ["w1 w2 w3", "w4", "w5 w6 w7 w8 w9"]
ENCODER = Stage(
    layer=0, retention=0.5, contextual=0.2, scorer=ClsAttention(), merge=NearestReference()
)
DECODER = Stage(layer=3, retention=0.2, scorer=VisualSelfAttention())
SCHEDULE = Schedule(stages=(ENCODER, DECODER))


def fusion(**settings: Any) -> Schedule:
    scorer = SimilarityFusion(**{"text_tower": "/nowhere", **settings})
    return Schedule(stages=(Stage(layer=0, retention=0.4, scorer=scorer),))


def assert_untouched(model: torch.nn.Module) -> None:
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert not any("prunetune" in name for name in vars(model))
