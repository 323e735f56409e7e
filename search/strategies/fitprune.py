"""FitPrune, reconstructed: as many tokens leave as the dense model's attention can spare."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from pruners.errors import SettingsError
from search.attention_mass import AttentionEvaluator, AttentionMass
from search.evaluators import Evaluator
from search.sample_limits import equal_shares
from search.strategies.base import Proposal, SearchState, Strategy
from search.strategies.replay import next_in_turn
from search.strategies.staircases import curve_cost, point_of_curve
from space.coding import SearchSpace

CALIBRATION_SAMPLES = 66
"""0.01 % of LLaVA's 665,000 instructions, as published."""

CALIBRATION_SHARE = 10
"""At most this part of the samples that may be scored is spent on attention."""

RESOLUTION = 1e-4
"""How closely alpha is bisected; 0.01 in the paper, which here is more than one token."""


class FitPrune(Strategy):
    """Finds one schedule per budget from the dense model's attention, without scoring any.

    Source: Ye et al., "Fit and Prune" (AAAI 2025, arXiv 2409.10197); written anew from its rule.
    Layer by layer, the tokens that receive the least attention leave as long as those that are left
    keep a share 1 - alpha of the attention from the text, and of that from the image; only tokens
    that both criteria can spare leave. One alpha for all layers is bisected until the budget is
    met. Attention is measured once, on 66 samples, fewer where a tenth of all samples is less.

    What differs here: a layer's own attention decides how many tokens enter it, where the paper
    drops them behind it, so that budgets can be met at which layer 0 cannot see all tokens; the
    counts are averaged over samples, made the nearest staircase that the space has, and scaled to
    the budget; and which tokens they are is decided by the space's scorers, as in all schedules.

    """

    name = "fitprune"

    def __init__(self) -> None:
        self._evaluator: AttentionEvaluator | None = None
        self._mass = cache(self._measured_mass)

    def prepare(self, evaluator: Evaluator) -> None:
        """Take the evaluator, to look into the dense model.

        Raises:
            SettingsError: It gives no attention out.
        """
        if not isinstance(evaluator, AttentionEvaluator):
            raise SettingsError(
                f"the strategy {self.name} needs the model's attention, which {evaluator.name} "
                "does not give; choose another strategy"
            )
        self._evaluator = evaluator

    def propose(self, state: SearchState) -> Proposal | None:
        """Propose the one schedule; None once it is measured."""
        calibration = self.calibration_samples(state.limit)
        curve = fitted_curve(self._mass(calibration, state.seed), state.space)
        point = next_in_turn([point_of_curve(state.space, curve)], state)
        if point is None:
            return None
        blocks = len(state.block_sizes)
        if state.left is not None:
            totals = np.cumsum(state.block_sizes)
            blocks = max(1, int((totals <= state.left - calibration).sum()))
        return Proposal(point, blocks)

    def calibration_samples(self, limit: int | None) -> int:
        """Return on how many samples attention is measured, each as dear as scoring one."""
        if limit is None:
            return CALIBRATION_SAMPLES
        return max(1, min(CALIBRATION_SAMPLES, limit // CALIBRATION_SHARE))

    def _measured_mass(self, samples: int, seed: int) -> AttentionMass:
        assert self._evaluator is not None  # prepared before the search
        tasks = [sample.task for sample in self._evaluator.samples("search")]
        return self._evaluator.attention_mass("search", equal_shares(tasks, samples, seed))


def fitted_curve(mass: AttentionMass, space: SearchSpace) -> list[float]:
    """Bisect alpha until what it keeps meets a space's budget.

    Args:
        mass: Attention in the measured model.
        space: The space; of a shape of any depth, over which layers are spread evenly.

    Returns:
        Share of the tokens alive in each layer of the space's shape, never rising.
    """
    cost, limit = curve_cost(space), space.budget.limit(space.shape)
    layers = space.shape.decoder_layers

    def curve(alpha: float) -> list[float]:
        kept = kept_shares(mass, alpha)
        return [float(kept[layer * len(kept) // layers]) for layer in range(layers)]

    spared, too_dear = 1.0, 0.0
    while spared - too_dear > RESOLUTION:
        alpha = (spared + too_dear) / 2
        if cost(curve(alpha)) <= limit:
            spared = alpha
        else:
            too_dear = alpha
    return curve(spared)


def kept_shares(mass: AttentionMass, alpha: float) -> NDArray[np.float64]:
    """Count the tokens that each layer keeps when it may lose a share of the attention.

    Args:
        mass: Attention in the measured model.
        alpha: Share of a layer's attention, by each criterion, that may be lost, in [0, 1].

    Returns:
        Share of the tokens alive in each layer, averaged over samples, `(layers,)`.
    """
    samples, layers, tokens = mass.cross.shape
    kept = np.empty((samples, layers))
    for sample in range(samples):
        alive = np.ones(tokens, dtype=bool)
        for layer in range(layers):
            criteria = mass.cross[sample, layer], mass.own[sample, layer]
            spared = [spared_tokens(received, alive, alpha) for received in criteria]
            alive &= ~(spared[0] & spared[1])
            kept[sample, layer] = alive.mean()
    shares: NDArray[np.float64] = kept.mean(axis=0)
    return shares


def spared_tokens(
    received: NDArray[np.float64], alive: NDArray[np.bool_], alpha: float
) -> NDArray[np.bool_]:
    """Find the tokens that one criterion can spare: as many as fit, the least attended first.

    Args:
        received: Share of the layer's attention that each token receives, `(tokens,)`.
        alive: Which tokens are still there, `(tokens,)`; the attention of others is lost already.
        alpha: Share that may be lost in all.

    Returns:
        Which tokens may leave, `(tokens,)`.
    """
    lost = float(received[~alive].sum())
    order = np.flatnonzero(alive)
    order = order[np.argsort(received[order], kind="stable")]
    spared = np.zeros_like(alive)
    spared[order[lost + np.cumsum(received[order]) <= alpha]] = True
    return spared
