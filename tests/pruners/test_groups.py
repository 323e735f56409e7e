"""Which samples are pruned together, and what is read of their tiles."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pruners import ClsAttention, Schedule, Stage, VisualSelfAttention
from pruners.groups import Group, GroupReader, groups_of
from pruners.media import Kind, Tile
from pruners.plan import Plan
from pruners.samples import Sample, SampleTile

CPU = torch.device("cpu")
FIRST = Stage(layer=0, retention=0.5, scorer=ClsAttention(keep_cls=False))
SCHEDULE = Schedule(stages=(FIRST, Stage(layer=2, retention=0.25, scorer=VisualSelfAttention())))
PLAN = Plan.of(SCHEDULE)


def sample(
    *grids: tuple[int, int], start: int = 0, source: int = 0, kind: Kind = "image"
) -> Sample:
    """Make a sample whose tiles of those grids stand one behind the other, text in between."""
    tiles, visual, first = [], [], 0
    for number, grid in enumerate(grids):
        tokens = grid[0] * grid[1]
        visual.append(torch.arange(start, start + tokens))
        tile = Tile(torch.arange(tokens), grid, source + number)
        tiles.append(SampleTile(kind, tile, torch.arange(first, first + tokens)))
        start, first = start + tokens + 1, first + tokens
    if not tiles:
        return Sample(torch.zeros(0, dtype=torch.long), ())
    return Sample(torch.cat(visual), tuple(tiles))


GRIDS = st.lists(st.sampled_from([(2, 2), (1, 4), (3, 3)]), max_size=3)


@given(rows=st.lists(GRIDS, min_size=1, max_size=5))
@settings(max_examples=60)
def test_samples_with_tiles_alike_are_one_group(rows: list[list[tuple[int, int]]]) -> None:
    samples = [sample(*grids, start=row, source=10 * row) for row, grids in enumerate(rows)]
    groups = groups_of(samples, PLAN, CPU)
    assert sorted(row for group in groups for row in group.rows) == list(range(len(rows)))
    for group in groups:
        assert list(group.rows) == sorted(group.rows)
        assert all(rows[row] == rows[group.rows[0]] for row in group.rows)
        assert group.visual.tolist() == [samples[row].visual.tolist() for row in group.rows]
        check_classes(group, rows, samples)
        check_counts(group, rows[group.rows[0]])
    for one, other in combinations(groups, 2):
        assert rows[one.rows[0]] != rows[other.rows[0]]


def check_classes(group: Group, rows: list[list[tuple[int, int]]], samples: list[Sample]) -> None:
    """Every tile of every sample is in one class, with tiles of its grid alone."""
    told = []
    for tiles in group.classes:
        assert tiles.visual.shape == (len(group.rows), tiles.each, tiles.size)
        assert tiles.size == tiles.grid[0] * tiles.grid[1]
        sources = iter(tiles.sources)
        for row, own in zip(group.rows, tiles.visual.tolist(), strict=True):
            told += [(row, next(sources), tiles.grid, visual) for visual in own]
    expected = [
        (row, tile.tile.source, grid, tile.visual.tolist())
        for row in group.rows
        for tile, grid in zip(samples[row].tiles, rows[row], strict=True)
    ]
    assert sorted(told) == sorted(expected)
    assert len({tiles.grid for tiles in group.classes}) == len(group.classes)


def check_counts(group: Group, grids: list[tuple[int, int]]) -> None:
    sizes = [rows * columns for rows, columns in grids]
    if not sizes:
        assert group.counts == {}
        return
    each = [max(1, int(0.5 * size + 0.5)) for size in sizes]
    later = max(1, int(0.25 * sum(sizes) + 0.5))
    alive = {layer: count.alive for layer, count in group.counts.items()}
    assert alive.get(0, sum(sizes)) == sum(each)
    assert alive.get(2, sum(each)) == min(later, sum(each))


def test_a_group_picks_its_rows() -> None:
    samples = [sample((2, 2)), sample((3, 3)), sample((2, 2), start=3)]
    first, second = groups_of(samples, PLAN, CPU)
    values = torch.arange(6).view(2, 3)
    assert first.of(values, dim=1).tolist() == [[0, 2], [3, 5]]
    assert second.of(values.T).tolist() == [[1, 4]]
    (whole,) = groups_of(samples[:1] * 3, PLAN, CPU)
    assert whole.of(values.T) is not None
    assert torch.equal(whole.of(values.T), values.T)


def test_media_of_two_kinds_are_never_one_class() -> None:
    groups = groups_of([sample((2, 2)), sample((2, 2), kind="video")], PLAN, CPU)
    assert [group.classes[0].kind for group in groups] == ["image", "video"]


@pytest.mark.parametrize("width", [(), (2,)])
def test_values_of_classes_are_put_in_the_order_of_tokens(width: tuple[int, ...]) -> None:
    """Tiles of 4, 9 and 4 tokens are two classes, whose values are read apart."""
    samples = [sample((2, 2), (3, 3), (2, 2)), sample((2, 2), (3, 3), (2, 2), start=5)]
    (group,) = groups_of(samples, PLAN, CPU)
    whole = torch.randn(2, 17, *width, generator=torch.Generator().manual_seed(0))
    parts = {
        (2, 2): torch.stack([whole[0, :4], whole[0, 13:], whole[1, :4], whole[1, 13:]]),
        (3, 3): whole[:, 4:13],
    }
    reader = GroupReader(group, {}, None)
    assert torch.equal(reader.joined([parts[tiles.grid] for tiles in group.classes]), whole)
