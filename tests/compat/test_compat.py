"""Files that earlier versions wrote."""

from __future__ import annotations

import warnings
from pathlib import Path

from pruners import TopScores, load_schedule

FOLDER = Path(__file__).parent


def test_a_schedule_without_selectors_and_features_means_what_it_did() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        schedule = load_schedule(FOLDER / "schedule-without-selectors.json")
    assert {stage.selector for stage in schedule.stages} == {TopScores()}
    assert {stage.features for stage in schedule.stages} == {"vision"}
    # The hash that the version that wrote the file gave it: scores are kept under it.
    expected = "cdcda6b9d47ccc0536bf78f0c3b2817f0b2b39b6ce6499cdd4a8c009325911cf"
    assert schedule.content_hash == expected
    assert schedule.counts(576)[0] == (0, 105, 63, 42)
