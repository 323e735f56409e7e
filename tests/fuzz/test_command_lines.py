"""Command lines and settings of any content; nothing is searched, and nothing written."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from pruners.errors import SettingsError
from search.command_line import run
from search.settings import checked_settings
from tests.fuzz.cases import Cases
from tests.fuzz.documents import damaged

pytestmark = [pytest.mark.fuzz, pytest.mark.timeout(3600)]

OPTIONS = {
    "--budget-tflops": ("2", "2 4", "2 2.0", "0", "-1", "1e999", "nan", "two"),
    "--budget": ("22%", "'64 tokens'", "100MB", "0%", "101%", "1 lightyear", "''"),
    "--model": ("analytic", "nowhere", "", "/", "../..", "analytic analytic"),
    "--target": ("llava-1.5-7b", "qwen2.5-vl-7b", "nowhere", "", "/etc", "embedded"),
    "--stages": ("0", "4", "5", "-1", "x", "9999999999999999999999"),
    "--space": ("mission", "full", "", "none"),
    "--strategy": ("adaptive", "random", "grid", "", "best"),
    "--trials": ("1", "0", "-3", "1e3", "99999999999999999999"),
    "--timeout": ("1", "0", "-1", "nan", "inf", "1e400"),
    "--least-gain": ("0", "99", "100", "-1", "nan"),
    "--seed": ("0", "4294967295", "4294967296", "-1", "0x1"),
    "--study": ("name", "../up", "/abs", "", ".hidden", "a" * 101, "a/b", "\x00"),
    "--out": (".", "/proc/nowhere", "/etc/passwd", "", "a" * 300, "a/b/c"),
    "--tasks": ("gqa", "gqa,gqa", "nothing", ",", "mmvet"),
    "--task-data": ("gqa=rows", "=", "gqa", "gqa=a gqa=b"),
    "--search-samples": ("1", "0", "x"),
    "--device": ("cpu", "cuda:99", ""),
    "--dtype": ("auto", "float64", ""),
    "--batch-size": ("1", "0"),
    "--cache-gigabytes": ("1", "0", "nan"),
    "--quiet": ("",),
    "--sharp": ("",),
    "--frobnicate": ("", "1"),
    "--": ("",),
    "studies": ("", "list", "delete"),
}
WORDS = st.sampled_from(list(OPTIONS)).flatmap(
    lambda option: st.tuples(
        st.just(option), st.sampled_from(OPTIONS[option]) | st.text(max_size=10)
    )
)


def test_command_lines(cases: Cases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def use(words: list[tuple[str, str]]) -> None:
        # First, where no option can take it for its value: from then on nothing is searched.
        arguments = ["--dry-run"]
        for option, values in [("--budget-tflops", "2"), ("--model", "analytic"), *words]:
            arguments += [option, *values.split(" ")]
        said = io.StringIO()
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            status = run(arguments)
        assert status in (0, 2), said.getvalue()
        assert list(tmp_path.iterdir()) == []
        if status == 2:
            raise SettingsError(said.getvalue())

    cases.run(st.lists(WORDS, max_size=4), use, 3_000, everyday=100)
    assert cases.accepted
    assert cases.refused


SETTINGS: dict[str, Any] = {
    "budgets": ["2 TFLOPs", "22%"],
    "model": "analytic",
    "target": "llava-1.5-7b",
    "stages": 3,
    "space": "mission",
    "search": {"strategy": "adaptive", "trials": 5, "timeout": 4.0, "seed": 0, "least_gain": 0.5},
    "tasks": {
        "names": ["gqa"],
        "data": {"gqa": "rows"},
        "search_samples": 3,
        "device": None,
        "dtype": "auto",
        "batch_size": 1,
        "max_new_tokens": None,
        "text_tower": None,
        "cache": None,
        "cache_gigabytes": 1.0,
    },
    "study": "name",
    "out": "runs",
}


def test_settings(cases: Cases) -> None:
    def use(values: Any) -> None:
        settings = checked_settings(**values)
        assert settings.study is None or "/" not in settings.study

    documents = damaged([SETTINGS]).filter(lambda values: isinstance(values, dict))
    cases.run(documents, use, 10_000)
    assert cases.accepted
    assert cases.refused
