from __future__ import annotations

import optuna
import pytest

from search.analytic import ANALYTIC_SHAPE
from search.strategies.base import SearchState
from search.strategies.spending import afford
from space import SearchSpace, parse_budget

SPACE = SearchSpace(ANALYTIC_SHAPE, parse_budget("32 tokens"))


@pytest.mark.parametrize(
    ("limit", "samples_per_trial", "most_trials", "blocks", "trials"),
    [
        (250, 25, 100, 1, 10),
        (250, 60, 100, 2, 5),
        (250, 10, 100, 1, 10),  # a block is the least
        (20, 25, 100, 1, 0),
        (16_000, 25, 100, 7, 91),  # more samples instead of more trials
        (16_000, 25, 640, 1, 640),
        (10**6, 25, 100, 20, 100),  # no more than all
        (250, None, 100, 1, 10),
        (1000, None, 100, 4, 10),
        (1400, None, 100, 6, 9),  # 150 samples are nearest to a tenth
        (20_000, None, 100, 20, 40),
        (None, 25, 60, 1, 60),
        (None, None, 600, 20, 100),
    ],
)
def test_samples_are_divided_into_trials(
    limit: int | None, samples_per_trial: int | None, most_trials: int, blocks: int, trials: int
) -> None:
    study = optuna.create_study()
    state = SearchState(SPACE, study, 0, 0, (25,) * 20, 0, limit, ())
    assert afford(state, samples_per_trial, most_trials) == (blocks, trials)
