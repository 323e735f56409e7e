"""What a search reads off a study whose trials were written by hand."""

from __future__ import annotations

from collections.abc import Sequence

import optuna
from optuna.distributions import FloatDistribution
from optuna.trial import create_trial

from pruners.shape import LLAVA_1_5_7B
from search.search_history import KNOWN_BLOCKS_ATTRIBUTE, RACED_OUT_ATTRIBUTE, SearchHistory
from search.strategies.free_space import FreeSpace
from space.budgets import Budget
from space.coding import SearchSpace
from studies.records import MEASURED_ATTRIBUTE

BUDGET = Budget("tokens", 136)
SPACE = FreeSpace(SearchSpace(LLAVA_1_5_7B, BUDGET, decoder_stages=1))


def add_trial(
    study: optuna.Study,
    name: str,
    accuracies: Sequence[float],
    *,
    tokens: int = 136,
    **attributes: object,
) -> None:
    """Add the trial of a schedule that keeps so many tokens everywhere."""
    point = {each.name: each.high for each in SPACE.parameters} | {"retention": tokens / 576}
    trial = create_trial(
        value=sum(accuracies) / len(accuracies),
        params=point,
        distributions={
            each.name: FloatDistribution(each.low, each.high) for each in SPACE.parameters
        },
        intermediate_values=dict(enumerate(accuracies)),
        user_attrs={MEASURED_ATTRIBUTE: name, **attributes},
    )
    study.add_trial(trial)


def history_of(study: optuna.Study) -> SearchHistory:
    return SearchHistory(study, SPACE, BUDGET, (25, 25, 25, 24), lambda schedule: schedule)


def test_the_best_is_within_the_budget_and_in_the_race_and_known_on_enough_blocks() -> None:
    study = optuna.create_study(direction="maximize")
    add_trial(study, "above the budget", [0.9] * 4, tokens=137)
    add_trial(study, "left the race", [0.8] * 3, **{RACED_OUT_ATTRIBUTE: True})
    add_trial(study, "known on two blocks", [0.7] * 2)
    add_trial(study, "first of equals", [0.5] * 4)
    add_trial(study, "second of equals", [0.5] * 4)
    history = history_of(study)
    for blocks, expected in ((4, "first of equals"), (3, "first of equals")):
        best = history.best(blocks)
        assert best is not None
        assert best.measured == expected
    best = history.best(2)
    assert best is not None
    assert best.measured == "known on two blocks"
    assert history.best(5) is None


def test_samples_are_counted_once_however_often_a_schedule_is_continued() -> None:
    study = optuna.create_study(direction="maximize")
    add_trial(study, "one", [0.5])
    add_trial(study, "one", [0.5, 0.6, 0.7, 0.8], **{KNOWN_BLOCKS_ATTRIBUTE: 1})
    add_trial(study, "other", [0.4, 0.4])
    history = history_of(study)
    assert history.evaluations == (25 + 25 + 25 + 24) + 2 * 25
    assert history.trials == 3
    one, other = history.tried
    assert (one.trial, one.blocks, one.value) == (0, 4, 0.65)
    assert (other.trial, other.blocks) == (2, 2)
