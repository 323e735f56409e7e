"""Racing: samples in blocks, so that a schedule that loses is recognised before the last one.

The blocks of a split are made once per seed, and every schedule is scored on the same ones in the
same order. Block means are compared with those of the best trial by Wilcoxon's signed-rank test
(Optuna's `WilcoxonPruner`), paired by the number of the block.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pruners.errors import DataError

if TYPE_CHECKING:
    import optuna

P_THRESHOLD = 0.1
"""A trial leaves the race when it is worse than the best one at this p-value (Optuna's default)."""

STARTUP_BLOCKS = 4
"""Blocks before a trial may leave: the fewest at which the exact test can fall below the threshold.

Even if every block is lost, one-sided p is 2^-3 = 0.125 after three blocks and 0.0625 after four.
"""


def make_blocks(tasks: Sequence[str], block_size: int, seed: int) -> tuple[list[int], ...]:
    """Divide samples into blocks that hold every task in equal share.

    Args:
        tasks: Task of each sample.
        block_size: Samples per block; the last blocks may hold fewer by one per task.
        seed: Seed of the shuffle within each task.

    Returns:
        Indices of each block's samples. Together the blocks hold every sample once.

    Raises:
        DataError: There are no samples.
    """
    if not tasks:
        raise DataError("there are no samples to divide into blocks")
    labels = np.asarray(tasks)
    generator = np.random.default_rng(seed)
    number = max(1, round(len(tasks) / block_size))
    shares = [
        np.array_split(generator.permutation(np.flatnonzero(labels == task)), number)
        for task in np.unique(labels)
    ]
    blocks = (np.concatenate(parts).tolist() for parts in zip(*shares, strict=True))
    return tuple(block for block in blocks if block)


def block_accuracy(
    scores: NDArray[np.float64],
    tasks: Sequence[str],
    dense_accuracies: Mapping[str, float],
) -> float:
    """Relative accuracy of one block, against the dense model's accuracy on the whole split.

    The dense accuracy of a block alone would be noisier, and can be 0. With equal shares of the
    tasks, the mean over all blocks is the split's relative accuracy.

    Args:
        scores: Score per sample of the block, `(samples,)`.
        tasks: Task of each sample.
        dense_accuracies: The dense model's accuracy on the whole split, by task.

    Returns:
        The mean over the block's tasks of accuracy / dense accuracy.

    Raises:
        DataError: The dense model never succeeds on a task.
    """
    labels = np.asarray(tasks)
    ratios = []
    for task in np.unique(labels):
        dense = dense_accuracies[str(task)]
        if dense <= 0:
            raise DataError(
                f"the dense model scores 0 on {task}, so nothing is relative to it there"
            )
        ratios.append(scores[labels == task].mean() / dense)
    return float(np.mean(ratios))


def predicted_value(values: Sequence[float], best: Mapping[int, float], best_value: float) -> float:
    """Predict the final value of a trial that left the race.

    Its mean so far would depend on how easy the first blocks are, and could even exceed the best
    trial's final value. The paired difference to the best trial does not.

    Args:
        values: Block accuracies of the trial, from block 0 on.
        best: Block accuracies of the best trial, by block.
        best_value: Final value of the best trial.

    Returns:
        The best trial's value plus the mean difference over the blocks that both were scored on.
    """
    shared = [value - best[block] for block, value in enumerate(values) if block in best]
    return best_value + float(np.mean(shared))


def race_pruner() -> optuna.pruners.BasePruner:
    """The test that ends a trial's race, with this module's thresholds."""
    from optuna.exceptions import ExperimentalWarning
    from optuna.pruners import WilcoxonPruner

    with warnings.catch_warnings():
        # What a release of Optuna makes of it is pinned by the study's identity.
        warnings.simplefilter("ignore", ExperimentalWarning)
        return WilcoxonPruner(p_threshold=P_THRESHOLD, n_startup_steps=STARTUP_BLOCKS)
