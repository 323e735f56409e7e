"""VScan's windows, against a loop over patches and by hand."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from pruners.windows import GridScores, top_tokens_of_windows


def by_loop(
    local: list[float],
    scores: list[float],
    grid: tuple[int, int],
    count: int,
    share: float,
    windows: int,
) -> list[int]:
    rows, columns = grid
    high, wide = min(windows, rows), min(windows, columns)
    chosen: list[int] = []
    for down in range(high):
        for across in range(wide):
            tokens = [
                index
                for index in range(rows * columns)
                if index // columns * high // rows == down
                and index % columns * wide // columns == across
            ]
            tokens.sort(key=lambda index: (-local[index], index))
            chosen += tokens[: int(share * count) // (high * wide)]
    others = [index for index in range(rows * columns) if index not in chosen]
    others.sort(key=lambda index: (-scores[index], index))
    return sorted(chosen + others[: count - len(chosen)])


# Few distinct values, so that ties are common.
VALUES = st.integers(0, 3)


@given(
    grid=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    windows=st.integers(1, 7),
    data=st.data(),
)
def test_windows_equal_a_loop(grid: tuple[int, int], windows: int, data: st.DataObject) -> None:
    tokens = grid[0] * grid[1]
    values = st.lists(VALUES, min_size=tokens, max_size=tokens)
    local, scores = data.draw(st.tuples(values, values)), data.draw(st.tuples(values, values))
    count = data.draw(st.integers(1, tokens))
    share = data.draw(st.sampled_from([0.0, 0.3, 0.5, 1.0]))
    chosen = top_tokens_of_windows(
        GridScores(torch.tensor(local).float(), *grid),
        torch.tensor(scores).float(),
        count,
        share=share,
        windows=windows,
    )
    for row in range(2):
        expected = by_loop(local[row], scores[row], grid, count, share, windows)
        assert chosen[row].tolist() == expected


def test_windows_by_hand() -> None:
    # Four windows of four patches; int(0.7 * 6) = 4 tokens, one per window: its nine. The two best
    # others follow.
    local = [
        [1, 9, 1, 1],
        [1, 1, 1, 9],
        [9, 1, 1, 1],
        [1, 1, 9, 1],
    ]
    scores = [
        [0, 9, 0, 0],  # chosen already
        [7, 0, 0, 0],
        [0, 0, 0, 8],
        [0, 0, 0, 6],
    ]
    chosen = top_tokens_of_windows(
        GridScores(torch.tensor(local).float().view(1, 16), 4, 4),
        torch.tensor(scores).float().view(1, 16),
        6,
        share=0.7,
        windows=2,
    )
    assert chosen.tolist() == [[1, 4, 7, 8, 11, 14]]


def test_a_window_smaller_than_its_quota_gives_all_it_has() -> None:
    # Columns and rows of a 3 x 3 grid fall into windows as 0, 0, 1: windows of 4, 2, 2 and 1
    # patches. Of 8 tokens each should give 2; the last has 1, so patches 0, 1, 2, 5, 6, 7 and 8 are
    # chosen, and patch 4, the better of the others.
    local = torch.tensor([[4.0, 4.0, 1.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0]])
    scores = torch.tensor([[0.0, 0.0, 0.0, 1.0, 2.0, 0.0, 0.0, 0.0, 0.0]])
    chosen = top_tokens_of_windows(GridScores(local, 3, 3), scores, 8, share=1.0, windows=2)
    assert chosen.tolist() == [[0, 1, 2, 4, 5, 6, 7, 8]]


def test_vscan_takes_three_tokens_of_each_of_sixteen_windows() -> None:
    # Released script: 96 of 576 tokens, half of them local; windows of 6 x 6 patches. Global scores
    # all lie in the first two rows.
    local = torch.rand(1, 576, generator=torch.Generator().manual_seed(0))
    scores = -torch.arange(576.0).unsqueeze(0)
    chosen = top_tokens_of_windows(GridScores(local, 24, 24), scores, 96, share=0.5, windows=4)[
        0
    ].tolist()
    per_window = [0] * 16
    for index in (index for index in chosen if index >= 3 * 24):
        per_window[index // 24 // 6 * 4 + index % 24 // 6] += 1
    assert per_window[4:] == [3] * 12


def test_half_precision_scores_choose_what_they_hold() -> None:
    local, scores = torch.rand(2, 16).bfloat16(), torch.rand(2, 16).bfloat16()
    chosen = top_tokens_of_windows(GridScores(local, 4, 4), scores, 9, share=0.5, windows=2)
    expected = top_tokens_of_windows(
        GridScores(local.float(), 4, 4), scores.float(), 9, share=0.5, windows=2
    )
    assert chosen.tolist() == expected.tolist()
