"""How strategies without a race of their own spend the samples that they may score."""

from __future__ import annotations

from typing import NamedTuple

from search.strategies.base import SearchState, blocks_holding

TRIALS = 100
"""Trials that a strategy plans for when no number of samples is given."""

FEWEST_TRIALS = 10
"""Trials below which the whole split is too much for one, where nobody said what one shall cost."""


class Spending(NamedTuple):
    """What a search can afford.

    Attributes:
        blocks: Blocks that every trial is measured on.
        trials: Trials that fit.
    """

    blocks: int
    trials: int


def afford(state: SearchState, samples_per_trial: int | None, most_trials: int) -> Spending:
    """Divide the samples that may be scored into trials of equal size.

    Args:
        state: What is known; only its limit and blocks are read, so that the answer stays the same
            through a search.
        samples_per_trial: Samples of a trial, rounded to whole blocks; None for the whole
            split, or for what allows `FEWEST_TRIALS` trials where that is less.
        most_trials: Trials that the strategy has use for. Where more fit, each is measured on more
            samples instead.

    Returns:
        Blocks of a trial, and how many trials fit.
    """
    sizes = state.block_sizes
    blocks = blocks_holding(samples_per_trial, sizes)
    if state.limit is None:
        return Spending(blocks, min(TRIALS, most_trials))
    if samples_per_trial is None:
        blocks = min(blocks, blocks_holding(state.limit // FEWEST_TRIALS, sizes))
    while blocks < len(sizes) and state.limit // sum(sizes[:blocks]) > most_trials:
        blocks += 1
    return Spending(blocks, min(most_trials, state.limit // sum(sizes[:blocks])))
