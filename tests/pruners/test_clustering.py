"""Density-peak clustering, against a loop that follows its definition, and by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pruners.clustering import density_peak_clusters, recycle_tokens

Vector = Sequence[float]


def clusters_by_loop(tokens: Sequence[Vector], count: int) -> tuple[list[int], list[int]]:
    total, width = len(tokens), len(tokens[0])
    distance = [[math.dist(a, b) / math.sqrt(width) for b in tokens] for a in tokens]
    density = [math.exp(-sum(d * d for d in sorted(row)[:count]) / count) for row in distance]
    peaks = []
    for i in range(total):
        denser = [j for j in range(total) if (density[j], -j) > (density[i], -i)]
        to_denser = min((distance[i][j] for j in denser), default=max(map(max, distance)))
        peaks.append(density[i] * to_denser)
    centres = sorted(sorted(range(total), key=lambda i: (-peaks[i], i))[:count])
    clusters = []
    for i in range(total):
        if i in centres:
            clusters.append(centres.index(i))
        else:
            clusters.append(min(range(count), key=lambda c: (distance[i][centres[c]], c)))
    return centres, clusters


def random_inputs(batch: int, tokens: int, width: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(batch, tokens, width, generator=generator)
    return vectors, torch.rand(batch, tokens, generator=generator)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("count", [1, 2, 5, 12, 13])
def test_clusters_equal_a_loop(seed: int, count: int) -> None:
    tokens, _ = random_inputs(2, 13, 6, seed)
    centres, clusters = density_peak_clusters(tokens, count)
    for row in range(2):
        expected = clusters_by_loop(tokens[row].tolist(), count)
        assert (centres[row].tolist(), clusters[row].tolist()) == expected


# Whole numbers on a line: distances are exact, so ties are common and the same in any precision.
@given(places=st.lists(st.integers(0, 2), min_size=1, max_size=8), data=st.data())
def test_ties_go_to_the_earlier_token(places: list[int], data: st.DataObject) -> None:
    count = data.draw(st.integers(1, len(places)))
    tokens = [(float(place),) for place in places]
    centres, clusters = density_peak_clusters(torch.tensor([tokens]), count)
    assert (centres[0].tolist(), clusters[0].tolist()) == clusters_by_loop(tokens, count)


def test_clusters_by_hand() -> None:
    # With two neighbours, itself one, a token's density is exp(-d² / 2), d to the nearest other:
    # exp(-1/2) at 0 and 1, exp(-2) at 10 and 12. The first is the densest, so its distance is the
    # largest, 12; of the others: 1 to 0, 9 from 10 to 1, 2 from 12 to 10. The products are 7.3,
    # 0.6, 1.2 and 0.3: centres are 0 and 10.
    tokens = torch.tensor([[[0.0], [1.0], [10.0], [12.0]]])
    centres, clusters = density_peak_clusters(tokens, 2)
    assert centres.tolist() == [[0, 2]]
    assert clusters.tolist() == [[0, 0, 1, 1]]


def test_distances_are_divided_by_the_root_of_the_width() -> None:
    # The same tokens, each number four times: distances are twice as large before the division.
    tokens = torch.randn(1, 9, 1, generator=torch.Generator().manual_seed(0))
    narrow, wide = (density_peak_clusters(part, 3) for part in (tokens, tokens.expand(1, 9, 4)))
    assert narrow[0].tolist() == wide[0].tolist()
    assert narrow[1].tolist() == wide[1].tolist()


def test_near_tokens_far_from_the_origin_are_told_apart() -> None:
    # Squared distances of 1e-4 beside squared norms of 1e8 are lost where they are computed from
    # dot products in single precision.
    near = torch.tensor([[0.0], [0.0078125], [1.0], [1.0078125]]) + 8192
    tokens = torch.cat([near, torch.full((4, 1), 8192.0)], dim=-1).unsqueeze(0)
    centres, clusters = density_peak_clusters(tokens, 2)
    assert (centres[0].tolist(), clusters[0].tolist()) == clusters_by_loop(tokens[0].tolist(), 2)
    assert clusters.tolist() == [[0, 0, 1, 1]]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("count", "recycled"), [(1, 0.3), (3, 0.3), (8, 0.1), (5, 1.0), (20, 0.5)])
def test_recycling_equals_a_loop(seed: int, count: int, recycled: float) -> None:
    tokens, scores = random_inputs(2, 20, 5, seed)
    contextual, centres = recycle_tokens(tokens, scores, count, recycled)
    assert contextual.shape == (2, count, 5)
    for row in range(2):
        vectors, values = tokens[row].tolist(), scores[row].tolist()
        number = min(max(math.floor(recycled * 20) + 1, count), 20)
        best = sorted(sorted(range(20), key=lambda i: -values[i])[:number])
        expected, clusters = clusters_by_loop([vectors[i] for i in best], count)
        assert centres[row].tolist() == [best[place] for place in expected]
        for cluster in range(count):
            members = [vectors[i] for i, own in zip(best, clusters, strict=True) if own == cluster]
            mean = [sum(column) / len(members) for column in zip(*members, strict=True)]
            assert contextual[row, cluster].tolist() == pytest.approx(mean, abs=1e-6)


def test_recycling_by_hand() -> None:
    # int(0.7 * 5) + 1 = 4 tokens are recycled, all but the last; see the clusters by hand above.
    tokens = torch.tensor([[[0.0], [1.0], [10.0], [12.0], [500.0]]])
    scores = torch.tensor([[0.5, 0.3, 0.4, 0.2, 0.1]])
    contextual, centres = recycle_tokens(tokens, scores, 2, 0.7)
    assert contextual.tolist() == [[[0.5], [11.0]]]
    assert centres.tolist() == [[0, 2]]


def test_the_sparsevlm_counts_of_recycled_tokens() -> None:
    # Its first drop of the setting 192: 276 of 576 tokens are dropped, int(0.3 * 276) + 1 = 83
    # recycled. With as many clusters, every recycled token is its own.
    tokens, scores = random_inputs(1, 276, 4, seed=0)
    contextual, centres = recycle_tokens(tokens, scores, 83, 0.3)
    best = scores[0].topk(83).indices.sort().values
    assert centres[0].tolist() == best.tolist()
    assert torch.equal(contextual[0], tokens[0, best])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_batch_clusters_as_its_samples_do(dtype: torch.dtype) -> None:
    tokens, scores = (part.to(dtype) for part in random_inputs(3, 60, 16, seed=1))
    contextual, centres = recycle_tokens(tokens, scores, 6, 0.5)
    assert contextual.dtype == dtype
    for row in range(3):
        alone = recycle_tokens(tokens[row : row + 1], scores[row : row + 1], 6, 0.5)
        assert torch.equal(alone[0][0], contextual[row])
        assert torch.equal(alone[1][0], centres[row])


def test_half_precision_is_clustered_in_single_precision() -> None:
    tokens = random_inputs(2, 20, 8, seed=2)[0].bfloat16()
    for half, single in zip(
        density_peak_clusters(tokens, 4), density_peak_clusters(tokens.float(), 4), strict=True
    ):
        assert half.tolist() == single.tolist()


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_equal_tokens_make_clusters_of_their_own(value: float) -> None:
    tokens, scores = torch.full((2, 6, 3), value), torch.zeros(2, 6)
    contextual, centres = recycle_tokens(tokens, scores, 4, 1.0)
    assert contextual.tolist() == [[[value] * 3] * 4] * 2
    assert centres.tolist() == [[0, 1, 2, 3]] * 2


def test_a_single_dropped_token_is_recycled() -> None:
    contextual, centres = recycle_tokens(torch.ones(2, 1, 3), torch.zeros(2, 1), 1, 0.3)
    assert contextual.tolist() == [[[1.0] * 3]] * 2
    assert centres.tolist() == [[0], [0]]
