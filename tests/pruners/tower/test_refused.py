"""Images, stages and towers that are refused."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from pruners.adapters import adapter_for
from pruners.errors import InputError, ScheduleMismatchError
from pruners.scorers import ClsAttention
from pruners.stages import Stage
from pruners.tower import TowerPruning
from tests.pruners.tower.small import (
    FLOW,
    LAYERS,
    MERGE,
    SMALLER,
    STAGES,
    build,
    images,
    pruning,
    run,
)


@pytest.mark.parametrize("stage", [FLOW, MERGE])
def test_larger_images_are_refused(stage: Stage) -> None:
    larger = torch.zeros(1, 3, 28, 28)
    with (
        pruning(build(), stage, 9),
        pytest.raises(InputError, match="49 patches enter the vision tower"),
    ):
        build().model.vision_tower(larger, interpolate_pos_encoding=True)


def test_stages_that_do_not_fit_are_refused() -> None:
    adapter = adapter_for(build())
    with pytest.raises(ScheduleMismatchError, match="leaves no tokens inside"):
        TowerPruning(
            adapter.towers["image"], Stage(layer=0, retention=0.5, scorer=ClsAttention()), 9
        )
    with pytest.raises(ScheduleMismatchError, match="11 patches are no grid"):
        TowerPruning(adapter.towers["image"], SMALLER, 11)
    for stage in STAGES.values():
        with pytest.raises(ScheduleMismatchError, match="37 patches should leave"):
            TowerPruning(adapter.towers["image"], stage, 37)
    for stage in (FLOW, MERGE):
        with pytest.raises(ScheduleMismatchError, match="no layer of it comes before"):
            TowerPruning(adapter_for(build(feature_layer=-LAYERS)).towers["image"], stage, 9)
    without_cls = copy.copy(adapter.towers["image"])
    without_cls.class_token = False
    for stage in STAGES.values():
        with pytest.raises(ScheduleMismatchError, match="has no CLS token"):
            TowerPruning(without_cls, stage, 9)
    assert not adapter.towers["image"].module._forward_pre_hooks


def test_attention_that_takes_no_bias_is_refused_where_one_is_needed() -> None:
    AttentionInterface.register("unbiased", sdpa_attention_forward)
    model = build("unbiased")
    with pytest.raises(ScheduleMismatchError, match=r"token-matching.*runs 'unbiased'"):
        TowerPruning(adapter_for(model).towers["image"], MERGE, 9)
    # Alone, an image needs no padding.
    alone = run(model, FLOW, 1, images(1))
    assert torch.equal(alone.indices, run(build("sdpa"), FLOW, 1, images(1)).indices)
    with pytest.raises(ScheduleMismatchError, match="different counts"):
        run(model, FLOW, 1, images(3))
