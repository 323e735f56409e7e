"""What the counts of `tower_tokens` price is the work that is done."""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from pruners.scorers import Downsampling, InformationFlow, TokenMatching
from pruners.stages import Stage
from pruners.tower_counts import tower_tokens
from tests.pruners.tower.small import (
    FEATURE,
    FLOW,
    HEADS,
    INNER,
    LAYERS,
    MERGE,
    PATCH,
    PATCHES,
    SMALLER,
    WIDTH,
    build,
    images,
    pruning,
)


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
