from __future__ import annotations

import pytest

from search.arguments import repeat_options

OPTIONS = frozenset({"--budget-tflops", "--budget"})


@pytest.mark.parametrize(
    ("given", "expanded"),
    [
        ("--budget-tflops 1 2 4", "--budget-tflops 1 --budget-tflops 2 --budget-tflops 4"),
        (
            "--seed 3 --budget-tflops 1 2 --quiet --budget 22% 64",
            "--seed 3 --budget-tflops 1 --budget-tflops 2 --quiet --budget 22% --budget 64",
        ),
        ("--budget=22% --seed 1", "--budget=22% --seed 1"),
        ("--budget-tflops --quiet", "--budget-tflops --quiet"),
        ("--budget-tflops", "--budget-tflops"),
        ("--budget-tflops -2 1", "--budget-tflops -2 --budget-tflops 1"),
        ("--seed 1 2", "--seed 1 2"),
        ("", ""),
    ],
)
def test_each_value_gets_its_option(given: str, expanded: str) -> None:
    assert repeat_options(given.split(), OPTIONS) == expanded.split()
