"""How many patches each layer of the vision tower sees: worked examples and properties."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pruners import ScheduleError
from pruners.scorers import Downsampling, InformationFlow, TokenMatching
from pruners.tower_counts import (
    feature_index,
    flow_layers,
    matching_rounds,
    merged_per_layer,
    tower_tokens,
)


@pytest.mark.parametrize(("feature_layer", "index"), [(-2, 22), (-1, 23), (23, 22), (0, -1)])
def test_feature_index_counts_hidden_states_from_the_embeddings(
    feature_layer: int, index: int
) -> None:
    assert feature_index(24, feature_layer) == index


def test_merges_are_even_with_the_remainder_first() -> None:
    # 576 - 64 = 512 merges over 22 layers: 23 each, and one more in the first 6.
    assert merged_per_layer(576, 64, 22) == (24,) * 6 + (23,) * 16


def test_the_last_layer_may_need_several_matchings() -> None:
    # 24 merges over 3 layers are 8 each: 25 and 17 patches allow it in one matching, 9 do not.
    assert merged_per_layer(25, 1, 3) == (8, 8, 8)
    assert matching_rounds(17, 8) == (8,)
    assert matching_rounds(9, 8) == (4, 2, 1, 1)
    # 15 over 8 layers: two each until 2 patches are left, of which one merges.
    assert merged_per_layer(16, 1, 8) == (2, 2, 2, 2, 2, 2, 2, 1)


@given(st.data())
def test_merges_meet_every_count(data: st.DataObject) -> None:
    patches = data.draw(st.integers(1, 600))
    alive = data.draw(st.integers(1, patches))
    layers = data.draw(st.integers(1, 30))
    merged = merged_per_layer(patches, alive, layers)
    assert len(merged) == layers
    assert sum(merged) == patches - alive
    assert max(merged) - min(merged) <= 1
    assert list(merged) == sorted(merged, reverse=True)
    left = patches
    for layer, count in enumerate(merged):
        if layer < layers - 1:
            assert count <= left // 2
        for matched in matching_rounds(left, count):
            assert 1 <= matched <= left // 2
            left -= matched
    assert left == alive


@given(st.integers(1, 40))
def test_flow_layers_are_every_second_up_to_the_forced_one(feature: int) -> None:
    layers = flow_layers(feature)
    assert layers[-1] == feature - 1
    assert layers[0] in (0, 1)
    assert all(later - earlier == 2 for earlier, later in pairwise(layers))


def test_flow_layers_of_the_released_code() -> None:
    assert flow_layers(22) == tuple(range(1, 22, 2))


def test_patches_per_layer() -> None:
    merging = tower_tokens(TokenMatching(), 576, 64, 24, -2)
    assert merging[:3] == (576, 552, 528)
    assert merging[22:] == (64, 64)
    assert tower_tokens(InformationFlow(), 576, 64, 24, -2) == (576,) * 22 + (64,) * 2
    assert tower_tokens(Downsampling(), 576, 56, 24, -2) == (56,) * 24
    assert tower_tokens(TokenMatching(), 25, 1, 4, -1) == (25, 17, 9, 1)


@pytest.mark.parametrize("scorer", [TokenMatching(), InformationFlow(), Downsampling()])
def test_counts_out_of_range_are_refused(scorer: TokenMatching) -> None:
    for alive in (0, 26):
        with pytest.raises(ScheduleError, match=f"{alive} patches should leave .* that 25 enter"):
            tower_tokens(scorer, 25, alive, 4, -2)


@pytest.mark.parametrize("scorer", [TokenMatching(), InformationFlow()])
def test_a_tower_without_layers_before_the_features_is_refused(scorer: TokenMatching) -> None:
    with pytest.raises(ScheduleError, match="no layer of it comes before"):
        tower_tokens(scorer, 25, 5, 4, 1)
    assert tower_tokens(scorer, 25, 25, 4, 1) == (25,) * 4
