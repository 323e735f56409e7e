"""Batches of sequences with different lengths, against lists in plain Python."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pruners.batch import Batch
from pruners.groups import Group
from pruners.sequence import Layout, Selection

LENGTH = 10


@st.composite
def batches(draw: st.DrawFn) -> tuple[Any, ...]:
    """Groups of rows with visual tokens each, what is kept of them, and the rows' padding."""
    sizes = draw(st.lists(st.integers(0, 4), min_size=1, max_size=3, unique=True))
    members = [draw(st.integers(1, 2)) for _ in sizes]
    side = draw(st.sampled_from(["left", "right"]))
    padding = [[draw(st.integers(0, 3)) for _ in range(count)] for count in members]
    drops = [[draw(st.integers(0, size)) for size in sizes], []]
    drops[1] = [draw(st.integers(0, left)) for left in drops[0]]
    order = draw(st.permutations(range(sum(members))))
    return sizes, side, padding, drops, order, draw(st.booleans())


@given(batch=batches())
@settings(max_examples=150)
def test_changing_groups_equals_lists(batch: tuple[Any, ...]) -> None:
    sizes, side, padding, drops, order, compact = batch
    rows_of, start = [], 0
    for own in padding:
        rows_of.append(tuple(sorted(order[start : start + len(own)])))
        start += len(own)
    pads = {
        row: count
        for rows, own in zip(rows_of, padding, strict=True)
        for row, count in zip(rows, own, strict=True)
    }
    padded = any(pads.values())
    hidden = torch.arange(len(pads) * LENGTH).float().view(-1, LENGTH, 1)
    groups, layouts, sequences = [], [], {}
    for rows, size in zip(rows_of, sizes, strict=True):
        # Visual tokens behind the first real token, or where padding leaves room for them.
        visual = torch.tensor(
            [
                [(pads[row] if side == "left" else 0) + 1 + token for token in range(size)]
                for row in rows
            ],
            dtype=torch.long,
        ).view(len(rows), size)
        indices = None if len(sizes) == 1 else torch.tensor(rows)
        groups.append(Group(rows, indices, visual, (), {}, in_one_piece=True))
        mask = torch.ones(len(rows), LENGTH, dtype=torch.bool)
        for place, row in enumerate(rows):
            count = pads[row]
            mask[place, slice(count) if side == "left" else slice(LENGTH - count, None)] = False
            real = range(count, LENGTH) if side == "left" else range(LENGTH - count)
            sequences[row] = list(real)
        layouts.append(Layout.dense(visual, LENGTH, None, mask if padded else None))
    least = tuple(min(pads[row] for row in rows) for rows in rows_of)
    changed = Batch(tuple(groups), tuple(layouts), least, side)

    for kept in drops:

        def drop(
            number: int, own: Tensor, kept: list[int] = kept, before: Batch = changed
        ) -> tuple[Tensor, Layout]:
            layout = before.layouts[number]
            indices = torch.arange(kept[number]).expand(len(own), -1)
            tokens = own.gather(1, layout.visual[:, : kept[number], None])
            return layout.drop(own, Selection(tokens, indices), compact=compact)

        hidden, changed = changed.changed(hidden, drop)
        for rows, size, count in zip(rows_of, sizes, kept, strict=True):
            for row in rows:
                first = (pads[row] if side == "left" else 0) + 1
                gone = set(range(first + count, first + size))
                sequences[row] = [place for place in sequences[row] if place not in gone]
        check(changed, hidden, sequences, side, compact=compact)
        longest = max(map(len, sequences.values()))
        assert changed.source.shape[1] == hidden.shape[1]
        if len(groups) > 1:
            assert hidden.shape[1] == longest
        else:
            # One group is dropped from as it is, with whatever padding all of its rows have.
            assert hidden.shape[1] == LENGTH - sizes[0] + kept[0]


def check(
    batch: Batch, hidden: Tensor, sequences: dict[int, list[int]], side: str, *, compact: bool
) -> None:
    for row, places in sequences.items():
        own = slice(hidden.shape[1] - len(places), None) if side == "left" else slice(len(places))
        assert hidden[row, own, 0].tolist() == [row * LENGTH + place for place in places]
        assert batch.source[row, own].tolist() == places
        positions = list(range(len(places))) if compact else places
        assert batch.position_ids[row, own].tolist() == positions
        mask = batch.mask
        if mask is None:
            assert len(places) == hidden.shape[1]
        else:
            assert mask[row].sum() == len(places)
            assert mask[row, own].all()


def test_what_is_padding_may_be_cut_off() -> None:
    """The longest sample loses tokens; then the padding that all have leaves as well."""
    groups = (
        Group((0,), torch.tensor([0]), torch.tensor([[1, 2, 3, 4]]), (), {}, in_one_piece=True),
        Group((1,), torch.tensor([1]), torch.zeros(1, 0).long(), (), {}, in_one_piece=True),
    )
    mask = torch.tensor([[1] * 6, [0, 0, 0, 1, 1, 1]]).bool()
    layouts = tuple(
        Layout.dense(group.visual, 6, None, mask[row : row + 1]) for row, group in enumerate(groups)
    )
    batch = Batch(groups, layouts, (0, 3), "left")

    def drop(number: int, hidden: Tensor) -> tuple[Tensor, Layout]:
        layout = batch.layouts[number]
        if number:
            return hidden, layout
        nothing = Selection(hidden[:, :0], torch.zeros(1, 0, dtype=torch.long))
        return layout.drop(hidden, nothing, compact=False)

    hidden, after = batch.changed(torch.arange(12.0).view(2, 6, 1), drop)
    assert hidden[..., 0].tolist() == [[0, 0, 5], [9, 10, 11]]
    assert after.mask is not None
    assert after.mask.tolist() == [[False, True, True], [True, True, True]]
    assert after.padding == (1, 0)


def test_groups_are_put_back_in_the_order_of_the_batch() -> None:
    groups = tuple(
        Group(rows, torch.tensor(rows), torch.zeros(len(rows), 0).long(), (), {}, in_one_piece=True)
        for rows in ((0, 3), (1,), (2,))
    )
    axes = torch.arange(3 * 4 * 2).view(3, 4, 2)
    layouts = tuple(Layout.dense(group.visual, 2, group.of(axes, dim=1), None) for group in groups)
    batch = Batch(groups, layouts, (0, 0, 0), "left")
    assert torch.equal(batch.position_ids, axes)
    assert batch.mask is None
    hidden = torch.arange(8.0).view(4, 2, 1)
    added = batch.mapped(hidden, lambda number, own: own + 100 * number)
    expected = hidden + torch.tensor([0.0, 100, 200, 0]).view(4, 1, 1)
    assert torch.equal(added, expected)
