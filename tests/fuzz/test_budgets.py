"""Budgets of any text."""

from __future__ import annotations

import math

import pytest
from hypothesis import strategies as st

from pruners.shape import LLAVA_1_5_7B
from space import PRESETS, parse_budget
from tests.fuzz.cases import Cases

pytestmark = [pytest.mark.fuzz, pytest.mark.timeout(3600)]

NUMBERS = st.one_of(
    st.integers().map(str),
    st.floats().map(str),
    st.floats(min_value=0, max_value=100).map(lambda number: f"{number:.4g}"),
    st.text("0123456789.eE+-_ ", max_size=12),
    st.sampled_from(["9" * 5000, "1e9999", "1e-9999", "٣", "½", "0x10", "1_000", ".", "-0"]),
)
UNITS = st.sampled_from(
    [
        "",
        "%",
        " tokens",
        "token",
        "MB",
        "MiB",
        "TB",
        "TFLOPs",
        " gflops",
        "kib",
        "%%",
        "\uff2dB",
        "İ",
    ]
) | st.text(max_size=5)
TEXTS = st.tuples(NUMBERS, UNITS).map("".join) | st.text()


def use(text: str) -> None:
    """Read a budget and hold it against models, as every run does."""
    budget = parse_budget(text)
    assert math.isfinite(budget.value)
    assert parse_budget(str(budget)).kind in (budget.kind, "tflops")
    for shape in (LLAVA_1_5_7B, PRESETS["qwen2.5-vl-7b"]):
        budget.check_dense(shape)
        assert budget.limit(shape) > 0
        assert budget.describe(shape)


def test_budgets(cases: Cases) -> None:
    cases.run(TEXTS, use, 20_000)
    assert cases.accepted
    assert cases.refused
