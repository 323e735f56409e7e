"""What the bar of a search shows, of the reports that real searches make."""

from __future__ import annotations

from search.analytic import AnalyticEvaluator
from search.measuring import Measurements
from search.searching import search_schedules
from search.settings import SearchSettings
from search.trial_progress import showing_trials
from space import SearchSpace, parse_budget, preset


def _shown(strategy: str, *budgets: str) -> list[tuple[int, str]]:
    shown: list[tuple[int, str]] = []
    target = preset("llava-1.5-7b")
    search_schedules(
        Measurements(AnalyticEvaluator(), limits={"search": 50}),
        [SearchSpace(target, parse_budget(budget), layer_step=4) for budget in budgets],
        SearchSettings(strategy=strategy, trials=3),
        on_trial=showing_trials(lambda amount, status="": shown.append((amount, status)), 2),
    )
    return shown


def test_each_trial_moves_the_bar_by_one_and_names_its_budget() -> None:
    shown = _shown("random", "2", "60MB")
    assert [amount for amount, _ in shown] == [1] * 6
    assert [status.partition(":")[0] for _, status in shown] == ["2 TFLOPs"] * 3 + ["60 MB"] * 3
    assert all("%, " in status for _, status in shown)


def test_no_accuracy_is_shown_before_a_schedule_meets_the_budget() -> None:
    # g-search begins with the dense model and half of its tokens, which cost more than this.
    statuses = {status for _, status in _shown("g-search", "2")}
    assert statuses == {"2 TFLOPs: best not known yet, 0 feasible"}
