"""What proposals cost, and what is not measured again or any further."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from pruners.errors import ScheduleError
from search.analytic import AnalyticEvaluator
from search.measuring import Measurements
from search.racing import has_lost, make_blocks
from search.search_history import DUPLICATE_ATTRIBUTE, RACED_OUT_ATTRIBUTE
from search.strategies.base import Proposal, blocks_holding
from tests.search.strategy_contract.made import (
    BLOCK,
    BLOCKS,
    SPACE,
    Given,
    Ladder,
    block_figures,
    new_study,
    point_of,
    search_with,
)


@pytest.mark.parametrize("evaluations", [1, 24, 25, 260, 499, 500, 680, 999, 1000, 1300, 1325])
def test_no_sample_is_scored_beyond_the_limit(evaluations: int) -> None:
    evaluator = AnalyticEvaluator()
    outcome = search_with(Ladder(), Measurements(evaluator), evaluations=evaluations)
    assert outcome.evaluations == min(evaluations // BLOCK, 52) * BLOCK
    assert evaluator.scored == outcome.evaluations + 500
    assert outcome.stopped == ("evaluations" if evaluations <= 1300 else "converged")
    assert (outcome.incumbent is None) == (evaluations < BLOCK)


def test_what_the_last_samples_were_spent_on_is_kept_and_can_be_continued() -> None:
    study = new_study()
    proposal = [Proposal(point_of(SPACE, 0), BLOCKS)]
    outcome = search_with(Given(proposal), study=study, evaluations=260)
    assert outcome.stopped == "evaluations"
    (candidate,) = outcome.candidates
    blocks = make_blocks([key.task for key in AnalyticEvaluator().samples("search")], BLOCK, 0)
    assert list(candidate.samples) == sorted(itertools.chain(*blocks[:10]))
    assert candidate.value == pytest.approx(block_figures(candidate.measured)[0][:10].mean())

    outcome = search_with(Given(proposal * 2), study=study, evaluations=500)
    assert outcome.evaluations == 500
    assert [len(trial.intermediate_values) for trial in study.trials] == [10, 20]
    assert outcome.candidates[0].samples == tuple(range(500))


def test_what_is_known_already_costs_nothing() -> None:
    evaluator, study = AnalyticEvaluator(), new_study()
    proposals = [Proposal(point_of(SPACE, 0), blocks) for blocks in (3, 2, 3, 4)]
    outcome = search_with(Given(proposals), Measurements(evaluator), study)
    assert outcome.evaluations == 4 * BLOCK == evaluator.scored - 500
    duplicates = [trial.user_attrs.get(DUPLICATE_ATTRIBUTE) for trial in study.trials]
    assert duplicates == [None, 0, 0, None]
    assert [len(trial.intermediate_values) for trial in study.trials] == [3, 3, 3, 4]
    assert study.trials[1].value == study.trials[0].value
    assert len(outcome.candidates) == 1


def test_what_left_the_race_is_not_measured_further() -> None:
    good, bad = _best_and_worst()
    study = new_study()
    proposals = [Proposal(good, BLOCKS), Proposal(bad, BLOCKS), Proposal(bad, BLOCKS)]
    outcome = search_with(Given(proposals, races=True), study=study)
    raced = [RACED_OUT_ATTRIBUTE in trial.user_attrs for trial in study.trials]
    assert raced == [False, True, True]
    assert study.trials[2].user_attrs[DUPLICATE_ATTRIBUTE] == 1
    assert 5 <= len(study.trials[1].intermediate_values) < BLOCKS
    assert [candidate.trial for candidate in outcome.candidates] == [0]
    unraced = new_study()
    search_with(Given(proposals), study=unraced)
    assert [len(trial.intermediate_values) for trial in unraced.trials] == [BLOCKS] * 3


def test_a_trial_that_would_lose_with_its_last_block_has_its_own_value() -> None:
    study = new_study()
    proposals = [Proposal(point, 5) for point in _best_and_worst()]
    search_with(Given(proposals, races=True), study=study)
    best, worst = ([*trial.intermediate_values.values()] for trial in study.trials)
    assert has_lost(worst, dict(enumerate(best)))
    assert RACED_OUT_ATTRIBUTE not in study.trials[1].user_attrs
    assert study.trials[1].value == pytest.approx(np.mean(worst))


def _best_and_worst() -> tuple[dict[str, float], dict[str, float]]:
    evaluator = AnalyticEvaluator()
    measurements = Measurements(evaluator)
    points = [point_of(SPACE, number) for number in range(30)]
    points.sort(
        key=lambda point: evaluator.relative_accuracy(
            measurements.measured_form(SPACE.decode(point))
        )
    )
    return points[-1], points[0]


def test_a_proposal_that_is_no_point_of_the_space_is_refused() -> None:
    study = new_study()
    with pytest.raises(ScheduleError, match="boundary_1 is 2"):
        search_with(Given([Proposal(point_of(SPACE, 0) | {"boundary_1": 2.0}, 1)]), study=study)
    assert study.trials == []


@pytest.mark.parametrize(
    ("samples", "blocks"), [(None, 4), (1, 1), (25, 1), (37, 1), (38, 2), (100, 4), (1000, 4)]
)
def test_samples_are_rounded_to_whole_blocks(samples: int | None, blocks: int) -> None:
    assert blocks_holding(samples, (25, 25, 25, 24)) == blocks
