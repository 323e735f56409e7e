"""DeepStack: features that the decoder adds to visual tokens later."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from pruners import BipartiteMatching, NearestReference, Schedule, apply_schedule
from pruners.errors import UnsupportedModelError
from tests.helpers.forwards import logits_of
from tests.pruners.families import TinyModel
from tests.pruners.qwen.schedules import FIRST, LATER

deep = pytest.mark.parametrize("qwen", ["qwen3_vl"], indirect=True)


@contextmanager
def around(qwen: TinyModel, layer: int) -> Iterator[dict[str, Tensor]]:
    """Record what a decoder layer returns and what the next one computes with."""
    seen: dict[str, Tensor] = {}
    layers = qwen.decoder_layers
    hooks = [
        layers[layer].register_forward_hook(lambda m, args, output: seen.update(out=output)),
        layers[layer + 1].input_layernorm.register_forward_pre_hook(
            lambda m, args: seen.update(into=args[0])
        ),
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


@deep
@pytest.mark.parametrize("merge", [NearestReference(), BipartiteMatching()])
@pytest.mark.parametrize("after", [0, 1])
def test_what_is_left_gets_its_own_features(qwen: TinyModel, merge: Any, after: int) -> None:
    inputs = qwen.inputs(["w1 w2 w3", "w4"])
    contextual = 0.2 if isinstance(merge, NearestReference) else 0.0
    stage = FIRST.model_copy(update={"merge": merge, "contextual": contextual})
    with torch.no_grad():
        features = qwen.model.model.get_image_features(
            inputs["pixel_values"], inputs["image_grid_thw"], return_dict=True
        )
    own = features.deepstack_features[after]
    pruned = apply_schedule(qwen.model, Schedule(stages=(stage,)))
    with pruned as handle, around(qwen, after) as seen:
        logits_of(qwen.model, inputs)
        (group,) = handle.last_prefill.groups
    added = seen["into"] - seen["out"]
    (record,) = group.stages
    for row in range(2):
        visual = set(group.visual[row].tolist())
        places = [p for p, at in enumerate(record.positions[row].tolist()) if at in visual]
        found = added[row, places]
        origins = record.indices[row]
        expected = own[row][origins]
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
        rest = [place for place in range(added.shape[1]) if place not in places]
        assert (added[row, rest] == 0).all()
    assert own[0].abs().max() > 0.1


@deep
def test_without_drops_in_its_layers_deepstack_is_the_models_own(qwen: TinyModel) -> None:
    """Up to the first layer that drops tokens, every hidden state is the dense model's."""
    batch = qwen.mixed()
    with torch.no_grad():
        dense = qwen.model(**batch, output_hidden_states=True).hidden_states
        with apply_schedule(qwen.model, Schedule(stages=(LATER,))):
            pruned = qwen.model(**batch, output_hidden_states=True).hidden_states
    real = batch["attention_mask"].bool()
    for layer in range(LATER.layer + 1):
        assert torch.equal(pruned[layer][real], dense[layer][real])


@deep
def test_deepstack_features_after_the_last_layer_are_refused(qwen: TinyModel) -> None:
    model = copy.deepcopy(qwen.model)
    model.model.language_model.layers = model.model.language_model.layers[:2]
    with pytest.raises(UnsupportedModelError, match="deepstack_visual_indexes names 2"):
        apply_schedule(model, Schedule(stages=(FIRST,)))
