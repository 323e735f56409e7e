from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import wilcoxon

from pruners.errors import DataError
from search.racing import (
    P_THRESHOLD,
    STARTUP_BLOCKS,
    block_accuracy,
    has_lost,
    make_blocks,
    predicted_value,
)
from studies.statistics import relative_accuracy


@given(
    counts=st.lists(st.integers(20, 60), min_size=1, max_size=5),
    block_size=st.integers(1, 40),
    seed=st.integers(0, 1000),
)
def test_blocks_hold_every_sample_once_and_every_task_in_equal_share(
    counts: list[int], block_size: int, seed: int
) -> None:
    tasks = [f"task {task}" for task, count in enumerate(counts) for _ in range(count)]
    blocks = make_blocks(tasks, block_size, seed)
    assert sorted(index for block in blocks for index in block) == list(range(len(tasks)))
    for task, count in enumerate(counts):
        shares = [sum(tasks[index] == f"task {task}" for index in block) for block in blocks]
        if len(blocks) <= count:
            assert max(shares) - min(shares) <= 1
    if len(blocks) > 1 and block_size >= 2 * len(counts):
        # As many blocks as come nearest to that size.
        assert abs(len(tasks) - len(blocks) * block_size) <= block_size / 2


def test_blocks_are_shuffled_and_depend_on_nothing_but_the_seed() -> None:
    tasks = ["a", "b"] * 100
    assert make_blocks(tasks, 20, seed=1) == make_blocks(tasks, 20, seed=1)
    assert make_blocks(tasks, 20, seed=1) != make_blocks(tasks, 20, seed=2)
    first = make_blocks(tasks, 20, seed=1)[0]
    assert sorted(first) != list(range(20))


def test_no_samples_are_refused() -> None:
    with pytest.raises(DataError, match="no samples"):
        make_blocks([], 10, seed=0)


def test_block_accuracies_average_to_the_relative_accuracy() -> None:
    generator = np.random.default_rng(0)
    tasks = ["a", "b", "c", "d"] * 50
    dense = (generator.random(200) < 0.8).astype(float)
    scores = (generator.random(200) < 0.5).astype(float)
    labels = np.array(tasks)
    dense_accuracies = {task: float(dense[labels == task].mean()) for task in "abcd"}
    blocks = make_blocks(tasks, 20, seed=3)
    values = [block_accuracy(scores[b], labels[b].tolist(), dense_accuracies) for b in blocks]
    assert np.mean(values) == pytest.approx(relative_accuracy(scores, dense, tasks))


def test_a_prediction_does_not_depend_on_how_easy_the_first_blocks_are() -> None:
    best = {0: 0.9, 1: 0.9, 2: 0.3, 3: 0.3}
    assert predicted_value([0.8, 0.8], best, best_value=0.6) == pytest.approx(0.5)
    assert predicted_value([0.9, 0.8, 0.3], best, best_value=0.6) == pytest.approx(0.6 - 0.1 / 3)


def _race(better: float, blocks: int = 20, seed: int = 0, noise: float = 0.03) -> int | None:
    """Race a trial that is better by so much; the number of blocks after which it is stopped."""
    generator = np.random.default_rng(seed)
    best = generator.normal(0.8, 0.05, size=blocks)
    values = best + generator.normal(better, noise, size=blocks)
    for block in range(1, blocks + 1):
        if has_lost(values[:block].tolist(), dict(enumerate(best))):
            return block
    return None


def test_the_first_possible_exit_is_where_the_exact_test_can_first_be_significant() -> None:
    def lost(blocks: int) -> float:
        differences = -np.arange(1.0, blocks + 1)
        return float(wilcoxon(differences, alternative="less").pvalue)

    assert lost(STARTUP_BLOCKS - 1) >= P_THRESHOLD > lost(STARTUP_BLOCKS)
    assert _race(better=-0.3) == STARTUP_BLOCKS


def test_worse_schedules_leave_early_and_better_ones_stay() -> None:
    worse = [_race(better=-0.05, seed=seed) for seed in range(20)]
    assert all(block is not None and block <= 10 for block in worse)
    better = [_race(better=0.02, seed=seed) for seed in range(20)]
    assert better.count(None) >= 18


@given(
    differences=st.lists(
        st.integers(-1000, 1000).filter(bool), min_size=5, max_size=12, unique_by=abs
    )
)
def test_the_race_agrees_with_the_exact_test_where_it_is_decided(differences: list[int]) -> None:
    exact = wilcoxon(differences, alternative="less", method="exact").pvalue
    lost = has_lost([float(value) for value in differences], dict.fromkeys(range(12), 0.0))
    if exact > P_THRESHOLD + 0.01 or sum(differences) >= 0:
        assert not lost
    if exact < P_THRESHOLD - 0.01 and sum(differences) < 0:
        assert lost


def test_close_to_the_threshold_the_race_decides_as_the_exact_test_does() -> None:
    # Without the continuity correction both would be losses.
    for won, expected in (({10}, True), ({1, 10}, False)):
        differences = [float(rank if rank in won else -rank) for rank in range(1, 11)]
        exact = wilcoxon(differences, alternative="less", method="exact").pvalue
        assert 0.04 < exact < 0.055
        assert (exact < P_THRESHOLD) == expected
        assert has_lost(differences, dict.fromkeys(range(10), 0.0)) is expected


def test_a_trial_that_leads_stays_however_many_blocks_it_has_lost() -> None:
    differences = [-0.01 * block for block in range(1, 10)] + [0.9]
    assert sum(differences) > 0
    assert wilcoxon(differences, alternative="less").pvalue < P_THRESHOLD
    assert not has_lost(differences, dict.fromkeys(range(10), 0.0))


def test_a_task_that_the_dense_model_always_fails_has_no_relative_accuracy() -> None:
    with pytest.raises(DataError, match="scores 0 on b"):
        block_accuracy(np.ones(2), ["a", "b"], {"a": 1.0, "b": 0.0})


def test_equal_blocks_are_no_loss() -> None:
    assert not has_lost([0.5] * 20, dict.fromkeys(range(20), 0.5))
