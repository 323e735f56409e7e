"""Pruning inside the vision tower, against plain retellings of one image's way through it."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from transformers import AttentionInterface, CLIPVisionConfig, LlamaConfig, LlavaConfig
from transformers import LlavaForConditionalGeneration as Llava
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from pruners.adapters import adapter_for
from pruners.errors import InputError, ScheduleMismatchError
from pruners.merges import BipartiteMatching
from pruners.scorers import ClsAttention, Downsampling, InformationFlow, TokenMatching
from pruners.sequence import Selection
from pruners.stages import Stage
from pruners.tower import TowerPruning
from pruners.tower_counts import tower_tokens

GRID, PATCH, WIDTH, HEADS, INNER, LAYERS = 6, 4, 16, 2, 32, 8
PATCHES = GRID**2
FEATURE = LAYERS - 2

FLOW = Stage(layer=0, retention=0.5, scorer=InformationFlow(momentum=0.3))
MERGE = Stage(layer=0, retention=0.5, scorer=TokenMatching(), merge=BipartiteMatching())
SMALLER = Stage(layer=0, retention=0.5, scorer=Downsampling())
STAGES = {"information-flow": FLOW, "token-matching": MERGE, "downsampling": SMALLER}


@cache
def build(
    attention: str = "eager", dtype: torch.dtype = torch.float32, feature_layer: int = -2
) -> Any:
    vision = CLIPVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=INNER,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        image_size=GRID * PATCH,
        patch_size=PATCH,
    )
    decoder = LlamaConfig(
        vocab_size=8,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=decoder,
        image_token_id=4,
        vision_feature_layer=feature_layer,
        vision_feature_select_strategy="default",
    )
    model = Llava._from_config(config, attn_implementation=attention)
    generator = torch.Generator().manual_seed(3)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim == 1:
            parameter.data = 0.1 * noise + ("norm" in name and name.endswith("weight"))
        else:
            parameter.data = noise / parameter.shape[1:].numel() ** 0.5
    for layer in model.model.vision_tower.encoder.layers:
        # Attention so uneven that FlowCut's rates differ from image to image.
        layer.self_attn.q_proj.weight.data *= 2
    return model.to(dtype).eval()


def images(count: int, seed: int = 0) -> Tensor:
    side = GRID * PATCH
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


@contextmanager
def pruning(model: Any, stage: Stage, alive: int) -> Iterator[TowerPruning]:
    pruned = TowerPruning(adapter_for(model).towers["image"], stage, alive)
    try:
        yield pruned
    finally:
        pruned.remove()


@torch.no_grad()
def run(model: Any, stage: Stage, alive: int, pixel_values: Tensor) -> Selection:
    with pruning(model, stage, alive):
        left = TowerPruning.recorded(model.model.vision_tower(pixel_values))
    assert left is not None
    return left


# One image's way through the tower, told with the stock layers' submodules.


def heads_of(states: Tensor) -> list[Tensor]:
    """Split (tokens, width) into heads of (tokens, head size)."""
    return list(states.split(WIDTH // HEADS, dim=-1))


def run_layer(layer: Any, hidden: Tensor, bias: Tensor) -> tuple[Tensor, Any, Any, Any]:
    """Run a layer on (tokens, width); also return heads of queries, keys and values."""
    attention, normed = layer.self_attn, layer.layer_norm1(hidden)
    queries = heads_of(attention.q_proj(normed))
    keys = heads_of(attention.k_proj(normed))
    values = heads_of(attention.v_proj(normed))
    attended = []
    for query, key, value in zip(queries, keys, values, strict=True):
        logits = query @ key.T / math.sqrt(WIDTH // HEADS) + bias
        attended.append(logits.softmax(dim=-1) @ value)
    hidden = hidden + attention.out_proj(torch.cat(attended, dim=-1))
    hidden = hidden + layer.mlp(layer.layer_norm2(hidden))
    return hidden, queries, keys, values


def embed(tower: Any, image: Tensor) -> Tensor:
    hidden: Tensor = tower.pre_layrnorm(tower.embeddings(image.unsqueeze(0)))[0]
    return hidden


def normalised(shares: Tensor) -> Tensor:
    return shares / shares.sum()


def tell_flow(
    tower: Any, image: Tensor, alive: int, momentum: float, feature: int
) -> tuple[Tensor, list[int], list[int]]:
    """FlowCut on one image: features, indices of the patches left, and counts by layer."""
    hidden, left, accumulated = embed(tower, image), list(range(PATCHES)), None
    entering = []
    for index, layer in enumerate(tower.encoder.layers[: feature + 1]):
        entering.append(len(left))
        hidden, queries, keys, values = run_layer(layer, hidden, torch.zeros(len(left) + 1))
        if index == feature:
            break
        relation, semantic = torch.zeros(len(left)), torch.zeros(len(left))
        for query, key, value in zip(queries, keys, values, strict=True):
            logits = key @ query[0] / math.sqrt(WIDTH // HEADS)
            relation += logits.softmax(dim=0)[1:]
            semantic += (value @ value[0]).softmax(dim=0)[1:]
        relation, semantic = normalised(relation), normalised(semantic)
        mean_value = sum(values) / HEADS
        score = (relation + semantic) * mean_value[1:].abs().sum(dim=-1)
        accumulated = (
            score if accumulated is None else momentum * accumulated + (1 - momentum) * score
        )
        layers_left = feature - 1 - index
        if layers_left % 2:
            continue
        drop = len(left) - alive
        if layers_left:
            entropy = -sum(share * math.log(share) for share in relation.tolist())
            evenness = entropy / math.log(len(left)) if len(left) > 1 else 1.0
            drop = round(drop / math.sqrt(layers_left) * (1 - evenness**2))
        best = sorted(range(len(left)), key=lambda place: -accumulated[place].item())
        kept = sorted(best[: len(left) - drop])
        hidden = hidden[[0] + [1 + place for place in kept]]
        accumulated = accumulated[kept]
        left = [left[place] for place in kept]
    return hidden[1:], left, entering


def tell_matching(
    tower: Any, image: Tensor, alive: int, feature: int
) -> tuple[Tensor, list[int], list[float]]:
    """ToMe on one image: features, indices of the patches left, and their sizes."""
    hidden, left, sizes = embed(tower, image), list(range(PATCHES)), [1.0] * PATCHES
    for index, layer in enumerate(tower.encoder.layers[: feature + 1]):
        bias = torch.tensor([1.0, *sizes]).log()
        hidden, _, keys, _ = run_layer(layer, hidden, bias)
        if index == feature:
            break
        metric = list((sum(keys) / HEADS)[1:])
        patches = list(hidden[1:])
        # As many as are due, one after the other: to this layer belongs merge number `index`, and
        # every `feature`-th after it.
        due = len(range(index, PATCHES - alive, feature))
        while due:
            pairs = []
            for source in range(1, len(left), 2):
                cosines = [
                    (torch.cosine_similarity(metric[source], metric[target], dim=0).item(), -target)
                    for target in range(0, len(left), 2)
                ]
                cosine, target = max(cosines)
                pairs.append((-cosine, source, -target))
            merging = sorted(pairs)[:due]
            due -= len(merging)
            groups = {place: [place] for place in range(len(left))}
            for _, source, target in merging:
                groups[target] += groups.pop(source)
            weights = sizes
            patches, metric = (
                [
                    sum(weights[member] * vectors[member] for member in group)
                    / sum(weights[member] for member in group)
                    for group in groups.values()
                ]
                for vectors in (patches, metric)
            )
            left = [left[place] for place in groups]
            sizes = [sum(weights[member] for member in group) for group in groups.values()]
        hidden = torch.stack([hidden[0], *patches])
    return hidden[1:], left, sizes


@pytest.mark.parametrize("feature_layer", [-2, -1, -3])
@pytest.mark.parametrize("alive", [1, 9, 35])
@torch.no_grad()
def test_flowcut_equals_its_retelling(alive: int, feature_layer: int) -> None:
    model = build(feature_layer=feature_layer)
    left = run(model, FLOW, alive, images(3))
    rates = set()
    for sample, image in enumerate(images(3)):
        features, indices, entering = tell_flow(
            model.model.vision_tower, image, alive, 0.3, LAYERS + feature_layer
        )
        assert left.indices[sample].tolist() == indices
        torch.testing.assert_close(left.tokens[sample], features, atol=1e-5, rtol=1e-5)
        rates.add(tuple(entering))
    assert left.sizes is not None
    assert torch.equal(left.sizes, torch.ones(3, alive))
    if alive == 1:
        assert len(rates) > 1  # The batch was padded inside the tower.


@pytest.mark.parametrize("feature_layer", [-2, -1])
@pytest.mark.parametrize("alive", [1, 3, 10, 35])
@torch.no_grad()
def test_tome_equals_its_retelling(alive: int, feature_layer: int) -> None:
    model = build(feature_layer=feature_layer)
    left = run(model, MERGE, alive, images(2))
    assert left.sizes is not None
    for sample, image in enumerate(images(2)):
        features, indices, sizes = tell_matching(
            model.model.vision_tower, image, alive, LAYERS + feature_layer
        )
        assert left.indices[sample].tolist() == indices
        assert left.sizes[sample].tolist() == sizes
        torch.testing.assert_close(left.tokens[sample], features, atol=1e-5, rtol=1e-5)


def resized_by_pillow(pixel_values: Tensor, height: int, width: int) -> Tensor:
    """Resize channel by channel with Pillow, whose bilinear filter is antialiased."""
    channels = []
    for channel in pixel_values.flatten(0, 1):
        image = Image.fromarray(channel.numpy())
        resized = image.resize((width, height), Image.Resampling.BILINEAR)
        channels.append(torch.from_numpy(np.array(resized)))
    return torch.stack(channels).view(*pixel_values.shape[:2], height, width)


@pytest.mark.parametrize(("alive", "grid"), [(1, (1, 1)), (9, (3, 3)), (12, (3, 4)), (30, (5, 6))])
@torch.no_grad()
def test_a_smaller_image_is_what_the_stock_tower_makes_of_it(
    alive: int, grid: tuple[int, int]
) -> None:
    model = build()
    left = run(model, SMALLER, alive, images(2))
    smaller = resized_by_pillow(images(2), PATCH * grid[0], PATCH * grid[1])
    output = model.model.vision_tower(
        smaller, interpolate_pos_encoding=True, output_hidden_states=True
    )
    torch.testing.assert_close(left.tokens, output.hidden_states[-2][:, 1:], atol=1e-4, rtol=1e-4)
    # The dense patch that holds the centre of each patch of the smaller image.
    rows, columns = ([math.floor((i + 0.5) * GRID / side) for i in range(side)] for side in grid)
    assert (
        left.indices.tolist() == [[GRID * row + column for row in rows for column in columns]] * 2
    )
    assert left.sizes is not None
    assert torch.equal(left.sizes, torch.ones(2, alive))


def all_stages(function: Callable[..., None]) -> Callable[..., None]:
    return pytest.mark.parametrize("kind", STAGES)(function)


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


# Work: what the counts of `tower_tokens` price is what runs.


def counted(model: Any, stage: Stage, alive: int) -> tuple[int, int]:
    """FLOPs of the layers' attention and feed-forward blocks, and of the whole tower."""
    tower = model.model.vision_tower
    counter = FlopCounterMode(display=False)
    with pruning(model, stage, alive), counter, torch.no_grad():
        tower(images(2))
    by_module = {name: sum(counts.values()) for name, counts in counter.flop_counts.items()}
    blocks = sum(
        flops for name, flops in by_module.items() if name.endswith((".self_attn", ".mlp"))
    )
    return blocks, counter.get_total_flops()


def priced(entering: tuple[int, ...]) -> int:
    """The same of the layers, from the patches that enter each, for two images."""
    total = 0
    for patches in entering:
        tokens = patches + 1
        total += 2 * tokens * (4 * WIDTH**2 + 2 * WIDTH * INNER) + 4 * tokens**2 * WIDTH
    return 2 * total


def embedding(patches: int) -> int:
    return 2 * 2 * patches * 3 * PATCH**2 * WIDTH


@pytest.mark.parametrize("alive", [1, 12, 35])
def test_work_of_tome_is_as_priced(alive: int) -> None:
    entering = tower_tokens(TokenMatching(), PATCHES, alive, LAYERS, -2)
    blocks, total = counted(build(), MERGE, alive)
    assert blocks == priced(entering)
    matching = 0
    for before, after in pairwise(entering):
        while before > after:
            matching += 2 * 2 * (before // 2) * (before - before // 2) * WIDTH // HEADS
            before -= min(before // 2, before - after)
    assert total == blocks + matching + embedding(PATCHES)


@pytest.mark.parametrize("alive", [1, 12, 30])
def test_work_of_a_smaller_image_is_as_priced(alive: int) -> None:
    entering = tower_tokens(Downsampling(), PATCHES, alive, LAYERS, -2)
    blocks, total = counted(build(), SMALLER, alive)
    assert blocks == priced(entering)
    assert total == blocks + embedding(alive)


@pytest.mark.parametrize("alive", [1, 12, 35])
def test_work_of_flowcut_is_at_most_as_priced(alive: int) -> None:
    entering = tower_tokens(InformationFlow(), PATCHES, alive, LAYERS, -2)
    blocks, total = counted(build(), FLOW, alive)
    assert blocks <= priced(entering)
    even = copy.deepcopy(build())
    for layer in even.model.vision_tower.encoder.layers:
        layer.self_attn.q_proj.weight.data.zero_()
        layer.self_attn.q_proj.bias.data.zero_()
    even_blocks, even_total = counted(even, FLOW, alive)
    assert even_blocks == priced(entering)
    # Two rows of attention for each layer before the one that makes the features.
    scoring = 2 * FEATURE * 2 * 2 * (PATCHES + 1) * WIDTH
    assert even_total == even_blocks + scoring + embedding(PATCHES)
    assert blocks < even_blocks or alive == 35
    assert total <= even_total
