"""Published schedules against the tables of their papers."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pruners import ScheduleError, dense, published
from pruners.methods import METHODS
from pruners.shape import LLAVA_1_5_7B

TABLE = Path(__file__).parents[1] / "data" / "visiondrop_schedules.csv"
LINES = [line for line in TABLE.read_text().splitlines() if not line.startswith("#")]
ROWS = list(csv.DictReader(LINES))


@pytest.mark.parametrize("row", ROWS, ids=[row["mean_tokens"] for row in ROWS])
def test_visiondrop_has_the_published_counts(row: dict[str, str]) -> None:
    tokens = int(row["mean_tokens"])
    counts = published("visiondrop", tokens=tokens).counts(576)
    columns = ("layers_0_7", "layers_8_15", "layers_16_23", "layers_24_31")
    assert [f"{count.dominant}+{count.contextual}" for count in counts] == [
        row[column] for column in columns
    ]
    assert [count.layer for count in counts] == [0, 8, 16, 24]
    per_layer = published("visiondrop", tokens=tokens).visual_tokens_per_layer(32, 576)
    assert sum(per_layer) / 32 == pytest.approx(tokens, abs=0.5)


@pytest.mark.parametrize("tokens", [192, 128, 64])
def test_desap_keeps_the_tokens_it_names(tokens: int) -> None:
    schedule = published("desap", tokens=tokens)
    assert schedule.visual_tokens_per_layer(32, 576) == (tokens,) * 32


# Boundary, dominant and contextual tokens as in the papers and released scripts, of 576 tokens.
PUBLISHED_COUNTS = {
    ("fastv", 192): [(2, 166, 0)],
    ("fastv", 128): [(2, 98, 0)],
    ("fastv", 64): [(2, 30, 0)],
    ("pyramiddrop", 270): [(8, 288, 0), (16, 144, 0), (24, 72, 0)],
    # Kept tokens of its tables, and int((int(0.3 d) + 1) / 10) + 1 clusters of the d dropped ones.
    ("sparsevlm", 192): [(3, 300, 9), (7, 200, 4), (16, 110, 3)],
    ("sparsevlm", 128): [(3, 303, 9), (7, 110, 7), (16, 36, 3)],
    ("sparsevlm", 96): [(3, 238, 11), (7, 48, 7), (16, 26, 1)],
    ("sparsevlm", 64): [(3, 66, 16), (7, 30, 2), (16, 17, 1)],
    ("visionzip", 64): [(0, 54, 10)],
    ("visionzip", 128): [(0, 108, 20)],
    ("visionzip", 192): [(0, 162, 30)],
    ("vispruner", 64): [(0, 64, 0)],
    ("cdpruner", 64): [(0, 64, 0)],
    ("vscan", 64): [(0, 96, 0), (16, 32, 0)],
    ("flowcut", 64): [(0, 64, 0)],
    ("divprune", 64): [(0, 64, 0)],
    ("tome", 64): [(0, 64, 0)],
    ("dart", 128): [(2, 98, 0)],
    ("random", 64): [(0, 64, 0)],
    ("downsampling", 64): [(0, 64, 0)],
}


@pytest.mark.parametrize(("method", "expected"), PUBLISHED_COUNTS.items(), ids=str)
def test_methods_have_the_published_counts(
    method: tuple[str, int], expected: list[tuple[int, int, int]]
) -> None:
    name, tokens = method
    counts = published(name, tokens=tokens).counts(576)
    assert [(count.layer, count.dominant, count.contextual) for count in counts] == expected


@pytest.mark.parametrize("name", sorted(set(METHODS) - {"sparsevlm", "downsampling"}))
@given(tokens=st.integers(40, 576), depth=st.integers(8, 80))
def test_the_mean_over_layers_is_what_was_asked_for(name: str, tokens: int, depth: int) -> None:
    shape = LLAVA_1_5_7B.model_copy(update={"decoder_layers": depth})
    try:
        per_layer = published(name, tokens=tokens, shape=shape).visual_tokens_per_layer(depth, 576)
    except ScheduleError as error:
        # With few layers, those before the first possible boundary hold more already.
        assert name in ("fastv", "dart", "pyramiddrop")
        assert "keeps at least" in str(error)  # noqa: PT017
        assert tokens < 576 / depth + 3
        return
    mean = sum(per_layer) / depth
    # Rounding to whole tokens can miss by half a token in every stage.
    slack = 1.6
    if name == "visiondrop" and round(1.5 * tokens) <= 576:
        # Its counts are fixed by T alone, and each of its three boundaries, at quarters of the
        # depth, is rounded by up to half a layer: 1.5 T (1 - r^3) tokens leave at them together.
        slack = 0.6 + 0.5 * 1.5 * tokens * (1 - 0.7336**3) / depth
        if depth % 4 == 0:
            slack = 0.6
    assert mean == pytest.approx(tokens, abs=slack)


def test_boundaries_move_earlier_where_retention_alone_cannot_do_it() -> None:
    # 8 layers of 576 tokens are a mean of 144: near that, too few are left for the other layers.
    assert [stage.layer for stage in published("pyramiddrop", tokens=192).stages] == [8, 16, 24]
    moved = [stage.layer for stage in published("pyramiddrop", tokens=64).stages]
    assert moved == sorted(set(moved))
    assert moved[0] < 8
    assert moved[0] / 8 == pytest.approx(moved[2] / 24, abs=0.1)


def test_dense_keeps_everything() -> None:
    assert dense().visual_tokens_per_layer(32, 576) == (576,) * 32
    assert published("dense") == dense()


def test_layers_follow_the_shape() -> None:
    shape = LLAVA_1_5_7B.model_copy(update={"decoder_layers": 40})
    schedule = published("visiondrop", tokens=64, shape=shape)
    assert [stage.layer for stage in schedule.stages] == [0, 10, 20, 30]


@pytest.mark.parametrize("name", ["visiondrop", "desap"])
@pytest.mark.parametrize("tokens", [1, 2, 3, 500, 576])
def test_any_count_gives_a_valid_schedule(name: str, tokens: int) -> None:
    counts = published(name, tokens=tokens).counts(576)
    assert all(1 <= count.alive <= 576 for count in counts)


@pytest.mark.parametrize(
    ("name", "tokens", "expected"),
    [
        ("visionzap", 64, "known are: cdpruner, dart, dense, desap"),
        ("visiondrop", None, "needs tokens"),
        ("desap", 0, "between 1 and 576"),
        ("desap", 577, "between 1 and 576"),
    ],
)
def test_a_wrong_name_or_count_is_refused(name: str, tokens: int | None, expected: str) -> None:
    with pytest.raises(ScheduleError, match=expected):
        published(name, tokens=tokens)
