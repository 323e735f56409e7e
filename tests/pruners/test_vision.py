"""Vision outputs, against what the tower itself returns."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.functional import normalize

from pruners import (
    InformationFlow,
    Schedule,
    ScheduleMismatchError,
    Stage,
    apply_schedule,
    encode_images,
)
from pruners.errors import InputError
from pruners.vision_outputs import VisionParts


def test_outputs_equal_the_towers_own(tiny: Any) -> None:
    model = tiny.load("eager")
    tower = model.model.vision_tower
    images = tiny.images(3)
    keys: list[torch.Tensor] = []
    projection = tower.encoder.layers[-2].self_attn.k_proj
    hook = projection.register_forward_hook(lambda module, args, output: keys.append(output))
    try:
        with torch.no_grad():
            output = tower(images, output_attentions=True, output_hidden_states=True)
    finally:
        hook.remove()
    vision = encode_images(model, images, tiny.text_tower)
    assert len(vision) == 3
    torch.testing.assert_close(vision.features, output.hidden_states[-2])
    for layer in (-1, -2):
        expected = output.attentions[layer][:, :, 0, 1:].mean(dim=1)
        torch.testing.assert_close(vision.saliency[layer], expected)
    # Two heads of width 8; patches alone.
    mean = (keys[0][:, 1:, :8] + keys[0][:, 1:, 8:]) / 2
    torch.testing.assert_close(vision.keys, normalize(mean, dim=-1))
    assert vision.decoupled["qq"].shape == (3, 26, 8)
    torch.testing.assert_close(vision.decoupled["qq"].norm(dim=-1), torch.ones(3, 26))


def test_selecting_picks_images(tiny: Any) -> None:
    vision = encode_images(tiny.model, tiny.images(3), tiny.text_tower)
    picked = vision.select(torch.tensor([2, 0]))
    assert torch.equal(picked.features, vision.features[[2, 0]])
    assert torch.equal(picked.saliency[-1], vision.saliency[-1][[2, 0]])
    assert picked.keys is not None
    assert vision.keys is not None
    assert torch.equal(picked.keys, vision.keys[[2, 0]])
    assert torch.equal(picked.decoupled["qq"], vision.decoupled["qq"][[2, 0]])


def test_only_what_is_asked_for_is_computed(tiny: Any) -> None:
    vision = encode_images(tiny.model, tiny.images(1), parts=VisionParts(frozenset({-4})))
    assert set(vision.saliency) == {-4}
    assert vision.keys is None
    assert not vision.decoupled


def test_encoding_leaves_no_hooks(tiny: Any) -> None:
    tower = tiny.model.model.vision_tower
    encode_images(tiny.model, tiny.images(1))
    with pytest.raises(ValueError, match="Input image size"):
        encode_images(tiny.model, torch.zeros(1, 3, 8, 8))
    assert not tower._forward_hooks
    assert not any(module._forward_pre_hooks for module in tower.modules())


def test_embeddings_without_a_text_tower_are_refused(tiny: Any) -> None:
    parts = VisionParts(encodings=frozenset({"qq"}))
    with pytest.raises(InputError, match="text tower need its projection"):
        encode_images(tiny.model, tiny.images(1), parts=parts)


def test_a_layer_that_is_not_there_is_refused(tiny: Any) -> None:
    with pytest.raises(ScheduleMismatchError, match="vision layer -5, but the tower has 4 layers"):
        encode_images(tiny.model, tiny.images(1), parts=VisionParts(frozenset({-5})))


def test_a_tower_that_drops_tokens_encodes_nothing_for_others(tiny: Any) -> None:
    stage = Stage(layer=0, retention=0.5, scorer=InformationFlow())
    with (
        apply_schedule(tiny.model, Schedule(stages=(stage,))),
        pytest.raises(InputError, match="encode images before"),
    ):
        encode_images(tiny.model, tiny.images(1))
