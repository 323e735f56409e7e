"""FitPrune's rule against trying every set of tokens, and on attention whose answer is known."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from pruners.shape import LLAVA_1_5_7B
from search.analytic import ANALYTIC_SHAPE, BEST_TOKENS, AnalyticEvaluator
from search.attention_mass import AttentionMass, shares
from search.strategies.fitprune import FitPrune, fitted_curve, kept_shares
from space import SearchSpace, parse_budget


def random_mass(seed: int, samples: int = 2, layers: int = 3, tokens: int = 7) -> AttentionMass:
    generator = np.random.default_rng(seed)
    draws = generator.random((2, samples, layers, tokens)) ** 3
    return AttentionMass(cross=shares(draws[0]), own=shares(draws[1]))


def brute_force(mass: AttentionMass, alpha: float) -> list[float]:
    """Of all sets of tokens that each criterion can spare, take the largest, then what they share.

    Of several largest sets, the one with the least attention.
    """
    samples, layers, tokens = mass.cross.shape
    kept = []
    for sample in range(samples):
        gone: set[int] = set()
        for layer in range(layers):
            spared = []
            for received in (mass.cross[sample, layer], mass.own[sample, layer]):
                left = sorted(set(range(tokens)) - gone)
                fitting = [
                    (len(chosen), -received[list(chosen)].sum(), set(chosen))
                    for size in range(len(left) + 1)
                    for chosen in combinations(left, size)
                    if received[[*gone, *chosen]].sum() <= alpha
                ]
                spared.append(max(fitting, key=lambda each: each[:2])[2] if fitting else set())
            gone |= spared[0] & spared[1]
            kept.append(1 - len(gone) / tokens)
    return np.reshape(kept, (samples, layers)).mean(axis=0).tolist()


@pytest.mark.parametrize("alpha", [0.0, 0.05, 0.2, 0.5, 0.8])
@pytest.mark.parametrize("seed", range(4))
def test_as_many_tokens_leave_as_both_criteria_can_spare(seed: int, alpha: float) -> None:
    mass = random_mass(seed)
    assert kept_shares(mass, alpha).tolist() == pytest.approx(brute_force(mass, alpha))


def test_an_example_by_hand() -> None:
    cross = np.array([[[0.7, 0.2, 0.06, 0.04], [0.4, 0.3, 0.15, 0.15]]])
    own = np.array([[[0.5, 0.04, 0.06, 0.4], [0.1, 0.1, 0.2, 0.6]]])
    # Layer 0: the text can spare tokens 2 and 3, the image 1 and 2; both only 2. Layer 1: 2 is gone
    # (0.15 and 0.2 of the attention), and nothing more can be spared.
    assert kept_shares(AttentionMass(cross, own), 0.1).tolist() == [0.75, 0.75]
    # Layer 0: the text can spare 1 too, hence both 1 and 2. Layer 1: these have 0.45 of the text's.
    assert kept_shares(AttentionMass(cross, own), 0.32).tolist() == [0.5, 0.5]


@pytest.mark.parametrize("target", [ANALYTIC_SHAPE, LLAVA_1_5_7B])
def test_where_attention_says_what_is_needed_that_is_the_schedule(target) -> None:  # type: ignore[no-untyped-def]
    scale = target.visual_tokens // 144
    space = SearchSpace(target, parse_budget(f"{34.5 * scale} tokens"))
    mass = AnalyticEvaluator().attention_mass("search", range(3))
    curve = fitted_curve(mass, space)
    needed = [tokens / 144 for tokens in BEST_TOKENS for _ in range(target.decoder_layers // 8)]
    assert curve == pytest.approx(needed)


@pytest.mark.parametrize("budget", [72, 8])
def test_alpha_is_the_least_that_meets_the_budget(budget: int) -> None:
    space = SearchSpace(ANALYTIC_SHAPE, parse_budget(f"{budget} tokens"))
    mass = random_mass(0, samples=4, layers=8, tokens=72)
    means = [kept_shares(mass, alpha).mean() * 144 for alpha in np.linspace(0, 1, 501)]
    expected = max(mean for mean in means if mean <= budget)
    # Costs are of whole tokens, half of one more or less in each layer.
    assert np.mean(fitted_curve(mass, space)) * 144 == pytest.approx(expected, abs=1)


def test_one_schedule_is_measured_on_what_attention_has_left(play) -> None:  # type: ignore[no-untyped-def]
    space = SearchSpace(ANALYTIC_SHAPE, parse_budget("34.5 tokens"))
    strategy = FitPrune()
    strategy.prepare(AnalyticEvaluator())
    for limit, calibration, blocks in ((250, 25, 9), (4000, 66, 20), (None, 66, 20)):
        assert strategy.calibration_samples(limit) == calibration
        played = play(strategy, space, lambda _: 1.0, limit=limit)
        assert len(played) == 1
        assert played[0].blocks == blocks
        assert played[0].schedule.cost.visual_tokens_per_layer == BEST_TOKENS
