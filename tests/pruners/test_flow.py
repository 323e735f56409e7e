"""FlowCut's score and rate: one example worked by hand, and a plain-loop version."""

from __future__ import annotations

import math

import pytest
import torch

from pruners.flow import accumulate_flow, layer_flow, tokens_to_drop


def test_score_worked_by_hand() -> None:
    # Logits of query and keys: 0, 0, ln 3. Shares 1/5, 1/5, 3/5; of the patches alone 1/4, 3/4.
    query = torch.tensor([[[[2.0]]]])
    keys = torch.tensor([[[[0.0], [0.0], [math.log(3)]]]])
    # Products of values with the first: 1, ln 2, -ln 2. Exponentials e, 2, 1/2: 4/5 and 1/5.
    values = torch.tensor([[[[1.0], [math.log(2)], [-math.log(2)]]]])
    flow = layer_flow(query, keys, values, None, scale=0.5)
    torch.testing.assert_close(flow.relation, torch.tensor([[1 / 4, 3 / 4]]))
    # The norm is ln 2 for both.
    expected = torch.tensor([[1 / 4 + 4 / 5, 3 / 4 + 1 / 5]]) * math.log(2)
    torch.testing.assert_close(flow.score, expected)


def test_score_equals_plain_loops() -> None:
    generator = torch.Generator().manual_seed(0)
    heads, tokens, size = 3, 6, 4
    query = torch.randn(2, heads, 1, size, generator=generator)
    keys = torch.randn(2, heads, tokens, size, generator=generator)
    values = torch.randn(2, heads, tokens, size, generator=generator)
    present = torch.tensor([[True] * 5, [True, True, True, False, False]])
    flow = layer_flow(query, keys, values, present, scale=0.5)
    for sample, count in ((0, 5), (1, 3)):
        relation, semantic, strength = ([0.0] * count for _ in range(3))
        for head in range(heads):
            q = query[sample, head, 0].tolist()
            k = keys[sample, head, : count + 1].tolist()
            v = values[sample, head, : count + 1].tolist()
            for shares, row, columns, scale in ((relation, q, k, 0.5), (semantic, v[0], v, 1.0)):
                weights = [
                    math.exp(scale * sum(x * y for x, y in zip(row, column, strict=True)))
                    for column in columns
                ]
                for patch in range(count):
                    shares[patch] += weights[patch + 1] / sum(weights) / heads
        for patch in range(count):
            mean = values[sample, :, patch + 1].mean(dim=0)
            strength[patch] = sum(abs(value) for value in mean.tolist())
        expected = [
            (r / sum(relation) + s / sum(semantic)) * x
            for r, s, x in zip(relation, semantic, strength, strict=True)
        ]
        torch.testing.assert_close(flow.score[sample, :count], torch.tensor(expected))
        assert flow.relation[sample, count:].tolist() == [0.0] * (5 - count)
        assert flow.score[sample, count:].tolist() == [0.0] * (5 - count)


def test_a_class_token_that_attends_to_itself_alone_leaves_finite_scores() -> None:
    values = torch.tensor([[[[100.0], [2.0], [1.0]]]])
    flow = layer_flow(values[:, :, :1], values, values, None, scale=1.0)
    # Products 10000, 200, 100: beside the first exponential the others vanish in float32.
    torch.testing.assert_close(flow.relation, torch.tensor([[1.0, 0.0]]))
    torch.testing.assert_close(flow.score, torch.tensor([[4.0, 0.0]]))


def test_scores_accumulate() -> None:
    first, second = torch.tensor([[4.0, 0.0]]), torch.tensor([[0.0, 8.0]])
    assert accumulate_flow(None, first, 0.25) is first
    assert accumulate_flow(first, second, 0.25).tolist() == [[1.0, 6.0]]


def test_rate_worked_by_hand() -> None:
    # Entropy 7/4 ln 2, evenness 7/8, so the rate is 15/64 = 0.234.
    relation = torch.tensor([[1 / 2, 1 / 4, 1 / 8, 1 / 8]])
    assert tokens_to_drop(relation, [4], 1, 1) == (1,)  # 3 * 0.234 = 0.70
    assert tokens_to_drop(relation, [4], 2, 1) == (0,)  # 2 * 0.234 = 0.47
    assert tokens_to_drop(relation, [4], 1, 4) == (0,)  # 3 / 2 * 0.234 = 0.35
    assert tokens_to_drop(relation, [4], 1, 0) == (3,)  # forced


@pytest.mark.parametrize("layers_left", [1, 2, 20])
def test_the_rate_spans_none_to_all_by_sample(layers_left: int) -> None:
    relation = torch.zeros(3, 400)
    relation[0] = 1 / 400  # even: drops nothing
    relation[1, 7] = 1.0  # one patch has it all: the most
    relation[2, 0] = 1.0  # one patch is left
    dropped = tokens_to_drop(relation, [400, 400, 1], 1, layers_left)
    assert dropped == (0, round(399 / math.sqrt(layers_left)), 0)
