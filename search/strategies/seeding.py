"""Seeds of the samplers that strategies make anew for every trial."""

from __future__ import annotations

import numpy as np

from search.strategies.base import SearchState


def trial_seed(state: SearchState, begun: int | None = None) -> int:
    """Return the seed of the sampler that proposes the next trial.

    A sampler's own random state is not stored; derived from the trial's place in the study, it is
    the same after an interruption.

    Args:
        state: What is known; its seed and the number of trials begun decide.
        begun: How many that is, where more have begun since the state was taken.

    Returns:
        The seed, 32 bits.
    """
    number = state.begun if begun is None else begun
    return int(np.random.SeedSequence([state.seed, number]).generate_state(1)[0])
