"""The importance figure: how much each choice of a schedule matters for its accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from studies.figure_style import Width, color_of, inches
from studies.records import TrialRecord
from studies.results import SEARCHED
from studies.schedule_levels import schedule_levels, variance_ratio

LEAST_SCHEDULES = 20
"""Schedules needed to say anything."""

_RESAMPLES = 40
_TREES = 25
_SHUFFLES = 2


@dataclass(frozen=True)
class Importance:
    """How much choices matter, by how much worse accuracy is predicted without knowing them.

    Attributes:
        choices: The choices, the most important first.
        median: For each, how much the mean error of predicted relative accuracy rises when its
            values are shuffled, in percentage points; the median over resamples of the schedules.
        low: The 2.5 % quantile over resamples.
        high: The 97.5 % quantile over resamples.
        explained: Share of the variance of accuracy within budgets that the prediction explains, on
            schedules that it was not made from; the median. Where it is near 0, importance says
            nothing.
        schedules: Schedules that it is estimated from.
    """

    choices: tuple[str, ...]
    median: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    explained: float
    schedules: int


def choice_importance(trials: Sequence[TrialRecord], seed: int = 0) -> Importance | None:
    """Estimate the importance of each choice by permutation [Breiman2001].

    A random forest predicts relative accuracy, less its budget's mean and less what its blocks of
    samples are easier than others, from all choices and the cost. It is fitted to bootstrap
    resamples of the schedules; a choice is then shuffled among the schedules that a resample left
    out. So the spread over resamples has what trials there are by chance, which the spread over
    shuffles alone would not. Trials count by their samples.

    It is the importance in what was searched: a search tries more of what is good, and a choice
    that it hardly varied looks unimportant.

    Args:
        trials: Trials of all budgets.
        seed: Seed of resamples, forests and shuffles.

    Returns:
        The importance; None of fewer than 20 different schedules, or where nothing was varied.

    [Breiman2001] Breiman: Random Forests, 2001.
    """
    known = _best_known(trials)
    if len(known) < LEAST_SCHEDULES:
        return None
    table = _choices(known)
    if table.empty:
        return None
    percent = _observed(known)
    weights = np.array([float(trial.samples) for trial in known])
    centred = _within_budgets(percent, weights, [trial.budget for trial in known])
    values = table.to_numpy(dtype=float)
    rng = np.random.default_rng(seed)
    rises, explained = [], []
    for _ in range(_RESAMPLES):
        drawn = rng.integers(len(known), size=len(known))
        left_out = np.setdiff1d(np.arange(len(known)), drawn)
        rise, share = _one_resample(values, centred, weights, drawn, left_out, rng)
        rises.append(rise)
        explained.append(share)
    low, median, high = np.quantile(np.array(rises), [0.025, 0.5, 0.975], axis=0)
    order = np.argsort(-median, kind="stable")
    return Importance(
        choices=tuple(str(table.columns[place]) for place in order),
        median=tuple(median[order].tolist()),
        low=tuple(low[order].tolist()),
        high=tuple(high[order].tolist()),
        explained=float(np.median(explained)),
        schedules=len(known),
    )


def importance_points(importance: Importance) -> pd.DataFrame:
    """List the points.

    Args:
        importance: The importance.

    Returns:
        A row per choice.
    """
    return pd.DataFrame(
        {
            "choice": importance.choices,
            "error_rise_points": importance.median,
            "low": importance.low,
            "high": importance.high,
        }
    )


def draw_importance(importance: Importance, width: Width) -> Figure:
    """Draw a bar per choice, with the spread over resamples.

    Args:
        importance: The importance.
        width: How wide.

    Returns:
        The figure.
    """
    number = len(importance.choices)
    figure = Figure(figsize=(inches(width), 0.95 + 0.19 * number), layout="constrained")
    axis = figure.subplots()
    median = np.array(importance.median)
    spread = np.array([median - importance.low, importance.high - median])
    axis.barh(
        range(number),
        median,
        xerr=spread,
        color=color_of(SEARCHED, [SEARCHED]),
        height=0.62,
        error_kw={"elinewidth": 0.9, "capsize": 1.5, "ecolor": "0.45"},
    )
    axis.axvline(0, color="0.25", linewidth=0.8)
    axis.grid(visible=False)
    axis.grid(axis="x", color="0.92")
    axis.set_axisbelow(True)
    axis.set_yticks(range(number), [_readable(choice) for choice in importance.choices])
    axis.set_ylim(number - 0.5, -0.5)
    axis.set_xlabel("Rise of the error of predicted accuracy\nwithout it (percentage points)")
    explained = max(0.0, 100 * importance.explained)
    text = (
        f"{importance.schedules} schedules; the prediction explains {explained:.0f} % of variance"
    )
    figure.suptitle(text, fontsize="medium")
    return figure


def _readable(choice: str) -> str:
    """``"ratio_1"`` as ``"ratio, stage 1"``, ``"similarity_weight"`` as two words."""
    name, _, number = choice.rpartition("_")
    return f"{name}, stage {number}" if number.isdigit() else choice.replace("_", " ")


def _best_known(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Of trials of the same schedule, the one on the most samples."""
    best: dict[tuple[str, str | None], TrialRecord] = {}
    for trial in trials:
        if not (trial.blocks and trial.samples and trial.parameters):
            continue
        key = (trial.budget, trial.measured_hash or trial.content_hash)
        if key not in best or trial.samples > best[key].samples:
            best[key] = trial
    return list(best.values())


def _observed(trials: Sequence[TrialRecord]) -> NDArray[np.float64]:
    """Relative accuracy of each, in percent, as if all had been scored on the same blocks."""
    percent = np.zeros(len(trials))
    for budget in {trial.budget for trial in trials}:
        places = {str(n): n for n, trial in enumerate(trials) if trial.budget == budget}
        blocks = {key: trials[place].blocks for key, place in places.items()}
        for key, level in schedule_levels(blocks, variance_ratio(blocks)).items():
            percent[places[key]] = 100 * level.observed
    return percent


def _choices(trials: Sequence[TrialRecord]) -> pd.DataFrame:
    """What the forest sees: a column per choice that was varied, options as numbers, and cost."""
    table = pd.DataFrame([trial.parameters for trial in trials])
    for name in table.columns:
        if not pd.api.types.is_numeric_dtype(table[name]):
            table[name] = table[name].astype("category").cat.codes
    table = table.loc[:, table.nunique() > 1]
    costs = [trial.tflops or 0.0 for trial in trials]
    if len({trial.budget for trial in trials}) > 1:
        table["cost"] = costs
    return table.fillna(-1.0)


def _within_budgets(
    percent: NDArray[np.float64], weights: NDArray[np.float64], budgets: Sequence[str]
) -> NDArray[np.float64]:
    """Accuracy less the weighted mean of its budget."""
    centred = percent.copy()
    for budget in set(budgets):
        chosen = np.array([each == budget for each in budgets])
        centred[chosen] -= np.average(percent[chosen], weights=weights[chosen])
    return centred


def _one_resample(
    table: NDArray[np.float64],
    target: NDArray[np.float64],
    weights: NDArray[np.float64],
    drawn: NDArray[np.int64],
    left_out: NDArray[np.int64],
    rng: np.random.Generator,
) -> tuple[NDArray[np.float64], float]:
    """Rise of the mean absolute error per choice, and the share of variance explained."""
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.inspection import permutation_importance

    forest = RandomForestRegressor(
        n_estimators=_TREES, min_samples_leaf=3, random_state=int(rng.integers(2**31))
    )
    forest.fit(table[drawn], target[drawn], sample_weight=weights[drawn])
    held = table[left_out], target[left_out]
    result = permutation_importance(
        forest,
        *held,
        scoring="neg_mean_absolute_error",
        n_repeats=_SHUFFLES,
        random_state=int(rng.integers(2**31)),
        sample_weight=weights[left_out],
    )
    explained = forest.score(*held, sample_weight=weights[left_out])
    return np.asarray(result.importances_mean), float(explained)
