"""Against plain retellings of one image's way through the tower."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.pruners.tower.small import (
    FLOW,
    GRID,
    HEADS,
    LAYERS,
    MERGE,
    PATCH,
    PATCHES,
    SMALLER,
    WIDTH,
    build,
    images,
    run,
)


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
