"""Budgets: reading them, what they limit, and what is refused."""

from __future__ import annotations

import math
import re

import pytest

from pruners import published
from pruners.errors import BudgetError
from search.embedded import CHECKPOINT
from space import (
    PRESETS,
    Budget,
    MissionVocabulary,
    dense_cost,
    parse_budget,
    preset,
    price,
    shape_from_pretrained,
)
from space.budgets import budget_label
from space.working import WorkingStage

SHAPE = preset("llava-1.5-7b")
ONE_TOKEN = [(WorkingStage(stage, 1, 0),) for stage in MissionVocabulary().encoder_stages()]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2", Budget("tflops", 2)),
        (" 2.5 TFLOPs ", Budget("tflops", 2.5)),
        ("2T", Budget("tflops", 2)),
        ("500 gflops", Budget("tflops", 0.5)),
        ("1e0", Budget("tflops", 1)),
        ("22%", Budget("share", 0.22)),
        ("33.3 %", Budget("share", 0.333)),
        ("64 tokens", Budget("tokens", 64)),
        (".5 token", Budget("tokens", 0.5)),
        ("100MB", Budget("kv_bytes", 1e8)),
        ("100 MiB", Budget("kv_bytes", 100 * 2**20)),
        ("1 GB", Budget("kv_bytes", 1e9)),
        ("4096 bytes", Budget("kv_bytes", 4096)),
    ],
)
def test_reading(text: str, expected: Budget) -> None:
    found = parse_budget(text)
    assert found.kind == expected.kind
    assert found.value == pytest.approx(expected.value, rel=1e-12)
    again = parse_budget(str(found))
    assert (again.kind, again.value) == (found.kind, pytest.approx(found.value, rel=1e-9))


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("60MB", "60 MB"),
        ("64 MiB", "64 MiB"),
        ("0.1 GB", "100 MB"),
        ("1000 GB", "1 TB"),
        ("999 B", "999 bytes"),
        ("335020032 bytes", "319.5 MiB"),
        ("123456789 B", "123.456789 MB"),
        ("1234567890 B", "1.23456789 GB"),
        ("2", "2 TFLOPs"),
        ("22%", "22%"),
    ],
)
def test_labels_are_short_and_lose_nothing(text: str, label: str) -> None:
    name = str(parse_budget(text))
    assert parse_budget(text).label == budget_label(name) == label
    assert str(parse_budget(label)) == name


def test_what_names_no_budget_is_its_own_label() -> None:
    assert budget_label("another program's") == "another program's"


@pytest.mark.parametrize("text", ["", "two", "nan", "inf", "2 2", "2,5", "%", "64 tokens!", "0x10"])
def test_unreadable(text: str) -> None:
    with pytest.raises(BudgetError, match="expected for example") as raised:
        parse_budget(text)
    assert repr(text) in str(raised.value)


def test_unknown_unit_is_named() -> None:
    with pytest.raises(BudgetError, match=r"unknown unit 'parsecs'.*expected for example"):
        parse_budget("12 parsecs")


@pytest.mark.parametrize("value", [math.nan, math.inf, 0.0, -2.0])
def test_not_a_positive_number(value: float) -> None:
    with pytest.raises(BudgetError, match="must be a positive number"):
        Budget("tflops", value)
    with pytest.raises(BudgetError):
        parse_budget(f"{value}")


@pytest.mark.parametrize("text", ["9.06 TFLOPs", "100%", "576 tokens", "335020032 bytes"])
def test_the_dense_cost_is_the_most_that_is_accepted(text: str) -> None:
    budget = parse_budget(text)
    budget.check(SHAPE, ONE_TOKEN)
    with pytest.raises(BudgetError, match=r"above the dense cost of llava-1.5-7b"):
        Budget(budget.kind, budget.value * 1.001).check(SHAPE, ONE_TOKEN)


@pytest.mark.parametrize("text", ["1 TFLOPs", "13%", "0.9 tokens", "30 MB"])
def test_below_one_token_is_refused_with_the_cheapest(text: str) -> None:
    with pytest.raises(BudgetError, match=r"below the cheapest .*llava-1.5-7b.*one visual token"):
        parse_budget(text).check(SHAPE, ONE_TOKEN)


def test_refusals_say_what_would_do() -> None:
    for check in (Budget.check_dense, lambda budget, shape: budget.check(shape, ONE_TOKEN)):
        with pytest.raises(BudgetError, match=r"budget of 20 TFLOPs .* 9\.064 TFLOPs; .* or less"):
            check(parse_budget("20"), SHAPE)
    with pytest.raises(BudgetError, match=r"1 TFLOPs .* 1\.24\d TFLOPs .* and 9\.064 TFLOPs"):
        parse_budget("1").check(SHAPE, ONE_TOKEN)
    with pytest.raises(BudgetError, match=r"budget of 5% .* 13\.[67]\d?%"):
        parse_budget("5%").check(SHAPE, ONE_TOKEN)


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize(
    ("unit", "shown"),
    [("TFLOPs", "TFLOPs"), ("%", "%"), ("tokens", "tokens"), ("MB", "(?:[kMGT]i?B|bytes)")],
)
def test_what_a_refusal_offers_is_accepted(name: str, unit: str, shown: str) -> None:
    shape = preset(name)
    fallbacks = [
        (WorkingStage(stage, shape.tiles, 0),)
        for stage in MissionVocabulary().on(shape).encoder_stages()
    ]
    offered = rf"[\d.e+-]+ ?{shown}"
    with pytest.raises(BudgetError) as too_much:
        parse_budget(f"100000 {unit}").check(shape, fallbacks)
    with pytest.raises(BudgetError) as too_little:
        parse_budget(f"0.00001 {unit}").check(shape, fallbacks)
    most = re.findall(offered, str(too_much.value))[1]
    least, dense = re.findall(offered, str(too_little.value))[1:]
    for text in (most, least, dense):
        parse_budget(text).check(shape, fallbacks)


@pytest.mark.parametrize("text", ["0.1", "50%", "100%"])
def test_a_model_that_is_cheaper_than_any_choice_of_tokens_has_no_range_to_offer(text: str) -> None:
    tiny = {"hidden_size": 32, "intermediate_size": 64, "decoder_layers": 2}  # as for smoke tests
    shape = SHAPE.model_copy(update=tiny | {"attention_heads": 2, "key_value_heads": 2})
    with pytest.raises(BudgetError, match=r"more than its dense .* in tokens or bytes$"):
        parse_budget(text).check(shape, ONE_TOKEN)
    parse_budget("64 tokens").check(shape, ONE_TOKEN)
    parse_budget("200 kB").check(shape, ONE_TOKEN)


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("2", lambda cost: cost.tflops),
        ("22%", lambda cost: cost.tflops),
        ("64 tokens", lambda cost: cost.mean_visual_tokens),
        ("100MB", lambda cost: cost.kv_bytes),
    ],
)
def test_amounts_are_those_of_the_cost(text: str, amount) -> None:
    cost = price(published("visiondrop", 64), SHAPE)
    assert parse_budget(text).amount(cost) == amount(cost)


def test_a_share_is_a_share_of_the_dense_flops() -> None:
    assert parse_budget("25%").limit(SHAPE) == 0.25 * dense_cost(SHAPE).tflops
    assert parse_budget("2").limit(SHAPE) == 2


def test_the_echo_of_a_small_model_says_more_than_nought() -> None:
    shape = shape_from_pretrained(CHECKPOINT)
    dense = dense_cost(shape).tflops
    assert dense < 0.002
    for text in ("50%", "0.0002 TFLOPs"):
        shown = re.search(r" dense ([\d.e-]+)", parse_budget(text).describe(shape))
        assert shown is not None
        assert float(shown[1]) == pytest.approx(dense, rel=0.01)
    limit = re.search(r"total: ([\d.e-]+) TFLOPs$", parse_budget("50%").describe(shape))
    assert limit is not None
    assert float(limit[1]) == pytest.approx(dense / 2, rel=0.01)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("2", ["2 TFLOPs", "convention total", "22.1%", "llava-1.5-7b", "9.06"]),
        ("22%", ["22%", "convention total", "llava-1.5-7b", "1.994 TFLOPs"]),
        ("64 tokens", ["64 tokens", "mean over decoder layers", "11.1%", "576"]),
        ("100MB", ["100 MB", "key-value cache", "29.8%", "dense 335.020032 MB"]),
        ("64 MiB", ["64 MiB", "key-value cache", "20.0%", "dense 319.5 MiB"]),
    ],
)
def test_the_echo_names_convention_and_share(text: str, words: list[str]) -> None:
    line = parse_budget(text).describe(SHAPE)
    assert all(word in line for word in words), line
    assert "\n" not in line
