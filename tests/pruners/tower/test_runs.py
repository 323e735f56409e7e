"""What holds for every way to prune inside the tower."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor

from pruners.errors import InputError
from pruners.tower import TowerPruning
from tests.pruners.tower.small import (
    GRID,
    PATCH,
    PATCHES,
    STAGES,
    WIDTH,
    all_stages,
    build,
    images,
    pruning,
    run,
)


@all_stages
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_a_batch_equals_its_samples(kind: str, attention: str) -> None:
    model, stage = build(attention), STAGES[kind]
    together = run(model, stage, 9, images(4))
    assert together.indices.dtype == torch.int64
    assert together.indices.shape == (4, 9)
    assert together.sizes is not None
    for sample, image in enumerate(images(4)):
        alone = run(model, stage, 9, image.unsqueeze(0))
        assert alone.sizes is not None
        assert torch.equal(together.indices[sample], alone.indices[0])
        assert torch.equal(together.sizes[sample], alone.sizes[0])
        torch.testing.assert_close(together.tokens[sample], alone.tokens[0], atol=1e-5, rtol=1e-5)


@all_stages
def test_eager_equals_sdpa_and_runs_repeat(kind: str) -> None:
    stage = STAGES[kind]
    eager, sdpa = (run(build(name), stage, 9, images(4)) for name in ("eager", "sdpa"))
    assert torch.equal(eager.indices, sdpa.indices)
    torch.testing.assert_close(eager.tokens, sdpa.tokens, atol=1e-5, rtol=1e-5)
    assert torch.equal(run(build(), stage, 9, images(4)).tokens, eager.tokens)


@all_stages
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("alive", [1, 9])
def test_half_precision_runs(kind: str, attention: str, alive: int) -> None:
    model = build(attention, torch.bfloat16)
    left = run(model, STAGES[kind], alive, images(3).bfloat16())
    assert left.tokens.dtype == torch.bfloat16
    assert left.tokens.shape == (3, alive, WIDTH)
    assert left.tokens.isfinite().all()


@all_stages
def test_all_alive_changes_nothing(kind: str) -> None:
    model, pixel_values = build("sdpa"), images(2)
    with torch.no_grad():
        output = model.model.vision_tower(pixel_values, output_hidden_states=True)
    left = run(model, STAGES[kind], PATCHES, pixel_values)
    assert torch.equal(left.tokens, output.hidden_states[-2][:, 1:])
    assert left.indices.tolist() == [list(range(PATCHES))] * 2


@all_stages
def test_equal_patches_leave_in_order(kind: str) -> None:
    model = copy.deepcopy(build())
    for parameter in model.model.vision_tower.parameters():
        parameter.data.zero_()
    left = run(model, STAGES[kind], 4, torch.ones(2, 3, GRID * PATCH, GRID * PATCH))
    # ToMe: 32 merges over 6 layers, the first of those at odd places into the very first. After the
    # last layer, 9 tokens have 5 merges to make, 4 in a first matching.
    merged = list(range(PATCHES))
    for due in (6, 6, 5, 5, 5, 4, 1):
        merged = [patch for place, patch in enumerate(merged) if place % 2 == 0 or place > 2 * due]
    expected = {
        "information-flow": [0, 1, 2, 3],
        "token-matching": merged,
        "downsampling": [7, 10, 25, 28],
    }
    assert left.indices.tolist() == [expected[kind]] * 2
    assert left.sizes is not None
    assert left.sizes[0].tolist() == (
        [33.0, 1.0, 1.0, 1.0] if kind == "token-matching" else [1.0] * 4
    )
    assert left.tokens.isfinite().all()


@all_stages
@torch.no_grad()
def test_the_model_projects_what_is_left(kind: str) -> None:
    model = build("sdpa")
    dense = model.model.vision_tower(images(2), output_hidden_states=True)
    # Twice, because the model installs its own hooks at its first call.
    for _ in range(2):
        with pruning(model, STAGES[kind], 9):
            output = model.model.get_image_features(
                images(2), vision_feature_layer=-2, vision_feature_select_strategy="default"
            )
        left = TowerPruning.recorded(output)
        assert left is not None
        projected = model.model.multi_modal_projector(left.tokens)
        torch.testing.assert_close(torch.stack(list(output.pooler_output)), projected)
    after = model.model.vision_tower(images(2), output_hidden_states=True)
    assert TowerPruning.recorded(after) is None
    for before, now in zip(dense.hidden_states, after.hidden_states, strict=True):
        assert torch.equal(before, now)


@all_stages
@torch.no_grad()
def test_an_error_leaves_nothing_behind(kind: str) -> None:
    model = build()
    tower = model.model.vision_tower
    layers = tower.encoder.layers
    hidden = torch.randn(1, PATCHES + 1, WIDTH, generator=torch.Generator().manual_seed(0))
    expected = [layer(hidden, None) for layer in layers]

    def fail(*arguments: Any) -> None:
        raise RuntimeError("broken layer")

    with pruning(model, STAGES[kind], 9):
        before = TowerPruning.recorded(tower(images(2)))
        handle = layers[4].mlp.register_forward_pre_hook(fail)
        with pytest.raises(RuntimeError, match="broken layer"):
            tower(images(3))
        handle.remove()
        with pytest.raises((InputError, ValueError), match=r"12 x 12|Input image size"):
            tower(torch.zeros(1, 3, 12, 12))
        # Outside a call of the tower, its layers are the stock ones.
        for layer, output in zip(layers, expected, strict=True):
            assert torch.equal(layer(hidden, None), output)
        after = TowerPruning.recorded(tower(images(2)))
    assert before is not None
    assert after is not None
    assert torch.equal(before.tokens, after.tokens)
    assert not any(
        module._forward_pre_hooks or module._forward_hooks
        for module in (layers[0].self_attn.k_proj, layers[0].self_attn.v_proj)
    )


@all_stages
def test_threads_do_not_mix_and_copies_prune_too(kind: str) -> None:
    model = copy.deepcopy(build())

    @torch.no_grad()
    def left_of(image: Tensor) -> Tensor:
        left = TowerPruning.recorded(model.model.vision_tower(image.unsqueeze(0)))
        assert left is not None
        return left.tokens

    with pruning(model, STAGES[kind], 9):
        one_by_one = [left_of(image) for image in images(12)]
        with ThreadPoolExecutor(4) as threads:
            at_once = list(threads.map(left_of, images(12)))
        model = copy.deepcopy(model)
    copied = [left_of(image) for image in images(12)]
    for expected, *others in zip(one_by_one, at_once, copied, strict=True):
        for other in others:
            assert torch.equal(other, expected)
