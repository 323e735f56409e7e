"""Layouts of sequences, against lists in plain Python."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pruners.positions import positions_from_zero
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


def padding_mask(padding: list[int], length: int, *, left: bool) -> torch.Tensor:
    mask = torch.ones(len(padding), length, dtype=torch.bool)
    for row, count in enumerate(padding):
        if count:
            mask[row, slice(count) if left else slice(-count, None)] = False
    return mask


@given(batch=batches())
@settings(max_examples=80)
def test_dropping_equals_lists(batch: tuple[Any, ...]) -> None:
    left, padding, starts, kept, contextual, compact = batch
    alive = len(kept[0])
    mask = padding_mask(padding, LENGTH, left=left)
    visual = torch.tensor([list(range(start, start + VISUAL)) for start in starts])
    hidden = torch.arange(2 * LENGTH).float().reshape(2, LENGTH, 1)
    made = 100 + torch.arange(2 * alive).float().reshape(2, alive, 1)
    ids = torch.arange(LENGTH)[None] + 5
    layout = Layout.dense(visual, LENGTH, ids, mask)
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
    layout = Layout.dense(torch.tensor([[1, 2, 3]]), 5, None, None)
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


# Several tiles, with text or separators in between: everything left stays where it was.

PIECES = 12


@st.composite
def scattered(draw: st.DrawFn) -> tuple[Any, ...]:
    """Two rows with visual tokens anywhere, tiles, and what two stages keep of them.

    What the first stage keeps may include the CLS tokens of tiles, as ``-1 - first token``.
    """
    count = draw(st.integers(2, 6))
    places = st.lists(st.integers(1, PIECES - 1), min_size=count, max_size=count, unique=True)
    visual = [sorted(draw(places)) for _ in range(2)]
    firsts = [0, *draw(st.lists(st.integers(1, count - 1), max_size=2, unique=True))]
    choices = [*range(count), *(-1 - first for first in firsts)]
    alive = draw(st.integers(0, count))
    contextual = draw(st.integers(0, alive))
    kept = [draw(st.permutations(choices))[:alive] for _ in range(2)]
    later = draw(st.integers(0, alive))
    again = [draw(st.permutations(range(alive)))[:later] for _ in range(2)]
    padding = [draw(st.integers(0, visual[row][0])) for row in range(2)]
    return visual, kept, contextual, again, padding, draw(st.booleans())


@given(batch=scattered())
@settings(max_examples=150)
@example(batch=([[1, 2, 3, 4, 5]] * 2, [[0, -1], [0, 1]], 0, [[1, 0], [0, 1]], [0, 0], False))
def test_dropping_scattered_tokens_equals_lists(batch: tuple[Any, ...]) -> None:
    visual, kept, contextual, again, padding, compact = batch
    mask = padding_mask(padding, PIECES, left=True)
    ids = torch.arange(PIECES)[None] + 5
    # One number per place and axis, so that moving a position to another place would show.
    axes = torch.stack([ids, ids * 10, ids * 100]).expand(3, 2, -1)
    hidden = torch.arange(2 * PIECES).float().reshape(2, PIECES, 1)
    layout = Layout.dense(
        torch.tensor(visual), PIECES, ids if compact else axes, mask, in_one_piece=False
    )
    # Each row as a list of (value, place in the dense prompt, visual token, contextual).
    rows: list[list[Any]] = []
    for row in range(2):
        number = {place: index for index, place in enumerate(visual[row])}
        rows.append([(hidden[row, p, 0].item(), p, number.get(p), False) for p in range(PIECES)])

    for chosen, merged in ((kept, contextual), (again, 0)):
        alive = len(chosen[0])
        made = 100 + torch.arange(2 * alive).float().reshape(2, alive, 1)
        indices = torch.tensor(chosen, dtype=torch.long).reshape(2, alive)
        hidden, layout = layout.drop(hidden, Selection(made, indices, merged), compact=compact)
        for row in range(2):
            before = rows[row]
            tokens = [place for place, entry in enumerate(before) if entry[2] is not None]
            kept_now = []
            for order, index in enumerate(chosen[row]):
                place = tokens[index if index >= 0 else -1 - index]
                _, source, number, flag = before[place]
                origin = number if index >= 0 else index
                value = made[row, order, 0].item()
                # A CLS token stands before its tile's first token.
                entry = (value, source, origin, flag or order >= alive - merged)
                kept_now.append((place, index >= 0, entry))
            texts = [(place, True, entry) for place, entry in enumerate(before) if entry[2] is None]
            rows[row] = [entry for *_, entry in sorted(texts + kept_now, key=lambda item: item[:2])]
            check_row(row, rows[row], hidden, layout, mask, compact=compact)


def check_row(
    row: int, entries: list[Any], hidden: Any, layout: Layout, mask: Any, *, compact: bool
) -> None:
    assert hidden[row, :, 0].tolist() == [entry[0] for entry in entries]
    sources = [entry[1] for entry in entries]
    assert layout.source[row].tolist() == sources
    tokens = [(place, entry) for place, entry in enumerate(entries) if entry[2] is not None]
    assert layout.visual[row].tolist() == [place for place, _ in tokens]
    assert layout.origin[row].tolist() == [entry[2] for _, entry in tokens]
    assert layout.contextual[row].tolist() == [entry[3] for _, entry in tokens]
    assert layout.text[row].tolist() == [
        place for place, entry in enumerate(entries) if entry[2] is None
    ]
    assert layout.mask is not None
    real = [bool(mask[row, source]) for source in sources]
    assert layout.mask[row].tolist() == real
    if compact:
        positions = layout.position_ids[row].tolist()
        assert [p for p, own in zip(positions, real, strict=True) if own] == list(range(sum(real)))
    else:
        expected = [[(source + 5) * axis for source in sources] for axis in (1, 10, 100)]
        assert layout.position_ids[:, row].tolist() == expected


def test_the_cls_token_of_the_second_tile_stands_before_it() -> None:
    # text, tile of 2, separator, tile of 2, text
    layout = Layout.dense(torch.tensor([[1, 2, 4, 5]]), 7, None, None, in_one_piece=False)
    # The stage names dominant tokens of both tiles, then the contextual ones of both.
    selection = Selection(
        torch.tensor([[[10.0], [11.0], [12.0], [13.0]]]), torch.tensor([[-1, -3, 1, 3]]), 2
    )
    hidden, after = layout.drop(torch.zeros(1, 7, 1), selection, compact=False)
    assert hidden[0, :, 0].tolist() == [0, 10, 12, 0, 11, 13, 0]
    assert after.origin.tolist() == [[-1, 1, -3, 3]]
    assert after.contextual.tolist() == [[False, True, False, True]]
    assert after.source.tolist() == [[0, 1, 2, 3, 4, 5, 6]]


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_is_added_and_cut_off_on_its_side(side: Literal["left", "right"]) -> None:
    axes = torch.arange(6).view(1, 1, 6) * torch.tensor([1, 10, 100]).view(3, 1, 1)
    layout = Layout.dense(torch.tensor([[2, 3]]), 6, axes, None)
    longer = layout.resized(8, side)
    added = slice(2) if side == "left" else slice(6, 8)
    assert longer.length == 8
    assert longer.visual.tolist() == ([[4, 5]] if side == "left" else [[2, 3]])
    assert longer.mask is not None
    assert not longer.mask[0, added].any()
    assert longer.mask.sum() == 6
    own = longer.mask[0]
    assert longer.source[0, own].tolist() == list(range(6))
    assert longer.position_ids[:, 0, own].tolist() == axes[:, 0].tolist()
    assert longer.last_token.tolist() == [[7 if side == "left" else 5]]
    back = longer.resized(6, side)
    for name in ("visual", "source", "position_ids"):
        assert torch.equal(getattr(back, name), getattr(layout, name))
    assert back.mask is not None
    assert back.mask.all()


def test_positions_start_at_zero_on_every_axis() -> None:
    axes = torch.tensor([[[9, 4, 5, 6]], [[9, 4, 4, 4]], [[9, 4, 6, 5]]])
    mask = torch.tensor([[False, True, True, True]])
    layout = Layout.dense(torch.tensor([[2]]), 4, axes, mask)
    assert positions_from_zero(layout.position_ids, layout.mask)[:, 0, 1:].tolist() == [
        [0, 1, 2],
        [0, 0, 0],
        [0, 2, 1],
    ]
