"""Layouts of sequences, against lists in plain Python."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pruners.sequence import Layout, Selection

LENGTH, VISUAL = 9, 4


@st.composite
def batches(draw: st.DrawFn) -> tuple[Any, ...]:
    """Two rows with padding on one side, and what a stage keeps of four visual tokens."""
    left = draw(st.booleans())
    padding = [draw(st.integers(0, 2)) for _ in range(2)]
    starts = [draw(st.integers(count if left else 0, 3)) for count in padding]
    alive = draw(st.integers(0, VISUAL - 1))
    contextual = draw(st.integers(0, max(0, alive - 1)))
    kept = [draw(st.permutations(range(VISUAL)))[:alive] for _ in range(2)]
    return left, padding, starts, kept, contextual, draw(st.booleans())


@given(batch=batches())
@settings(max_examples=80, deadline=None)
def test_dropping_equals_lists(batch: tuple[Any, ...]) -> None:
    left, padding, starts, kept, contextual, compact = batch
    alive = len(kept[0])
    image_mask = torch.zeros(2, LENGTH, dtype=torch.bool)
    mask = torch.ones(2, LENGTH, dtype=torch.bool)
    for row in range(2):
        image_mask[row, starts[row] : starts[row] + VISUAL] = True
        if padding[row]:
            mask[row, slice(padding[row]) if left else slice(-padding[row], None)] = False
    hidden = torch.arange(2 * LENGTH).float().reshape(2, LENGTH, 1)
    made = 100 + torch.arange(2 * alive).float().reshape(2, alive, 1)
    ids = torch.arange(LENGTH)[None] + 5
    layout = Layout.dense(image_mask, VISUAL, ids, mask)
    selection = Selection(made, torch.tensor(kept, dtype=torch.long).reshape(2, alive), contextual)
    shorter, after = layout.drop(hidden, selection, compact=compact)

    for row in range(2):
        start = starts[row]
        text = [p for p in range(LENGTH) if not start <= p < start + VISUAL]
        sources = [p for p in text if p < start]
        sources += [start + index for index in kept[row]] + [p for p in text if p > start]
        assert after.source[row].tolist() == sources
        values = hidden[row, sources, 0].tolist()
        values[start : start + alive] = made[row, :, 0].tolist()
        assert shorter[row, :, 0].tolist() == values
        assert after.visual[row].tolist() == list(range(start, start + alive))
        assert after.origin[row].tolist() == kept[row]
        flags = [False] * (alive - contextual) + [True] * contextual
        assert after.contextual[row].tolist() == flags
        assert after.mask is not None
        assert after.mask[row].tolist() == [bool(mask[row, p]) for p in sources]
        positions = after.position_ids[row].tolist()
        if compact:
            real = [
                position for position, p in zip(positions, sources, strict=True) if mask[row, p]
            ]
            assert real == list(range(len(real)))
        else:
            assert positions == [p + 5 for p in sources]


def test_the_cls_token_takes_the_first_patchs_place() -> None:
    image_mask = torch.tensor([[False, True, True, True, False]])
    layout = Layout.dense(image_mask, 3, None, None)
    selection = Selection(torch.ones(1, 2, 1), torch.tensor([[-1, 2]]))
    hidden, after = layout.drop(torch.zeros(1, 5, 1), selection, compact=False)
    assert hidden[0, :, 0].tolist() == [0, 1, 1, 0]
    assert after.origin.tolist() == [[-1, 2]]
    assert after.position_ids.tolist() == [[0, 1, 3, 4]]
    again, last = after.drop(
        hidden, Selection(torch.ones(1, 1, 1), torch.tensor([[0]])), compact=True
    )
    assert again.shape == (1, 3, 1)
    assert last.origin.tolist() == [[-1]]
    assert last.position_ids.tolist() == [[0, 1, 2]]
