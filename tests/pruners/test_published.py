"""Published schedules against the tables of their papers."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from pruners import ScheduleError, dense, published
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
