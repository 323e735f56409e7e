"""The grid of schedules whose accuracy is known: every one that meets a budget on a lattice.

A schedule of the lattice starts with a multiple of the mean tokens, falls at up to three of the
decoder's boundaries, keeps fixed shares at all of them but the last, and there what the budget
leaves. Crossed with it are similarity weights and contextual shares. Budgets are mean visual tokens
over layers, as the papers count retention.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, combinations_with_replacement, pairwise, product

import numpy as np

from pruners.schedule import Schedule
from pruners.shape import Shape
from search.measured_form import as_measured
from space.mission_vocabulary import MissionVocabulary

STARTS = (1.0, 1.2, 1.5, 2.0, 3.0)
"""Tokens behind the encoder, as multiples of the budget's mean."""

KEPT = (0.75, 0.4)
"""Shares that decoder stages before the last one keep."""

DECODER_STAGES = 3

OFF_BUDGET_SHARES = (1, 0.5, 0.25, 0.12, 0.06, 0.03)
"""Shares of the dense model's tokens that segments of the decoder keep where no budget holds."""

SAMPLE = 80
"""Schedules per budget that are carried over to other models."""

WEIGHTS = (0.0, 0.25, 0.5, 0.75)
CONTEXTUAL = (0.125, 0.4)
PUBLISHED_WEIGHT, PUBLISHED_CONTEXTUAL = 0.5, 0.125
"""Those of DeSAP and VisionDrop."""


def staircases(mean_tokens: int, layers: int, visual_tokens: int) -> tuple[tuple[int, ...], ...]:
    """List the numbers of visual tokens per layer that the lattice has at a budget.

    Args:
        mean_tokens: The budget: visual tokens as a mean over decoder layers.
        layers: Decoder layers.
        visual_tokens: Visual tokens of the dense model.

    Returns:
        Tokens by layer, each never rising, of which one more in the last stage would exceed the
        budget; none twice, in rising order.
    """
    found = {(mean_tokens,) * layers}
    for start, stages in product(STARTS[1:], range(1, DECODER_STAGES + 1)):
        first = min(visual_tokens, round(start * mean_tokens))
        for boundaries in combinations(range(1, layers), stages):
            for shares in product(KEPT, repeat=stages - 1):
                found |= set(_filled(first, boundaries, shares, mean_tokens * layers, layers))
    return tuple(sorted(found))


@dataclass(frozen=True)
class LatticePoint:
    """A schedule of the mission's space by what is free in it.

    Attributes:
        tokens: Visual tokens that each decoder layer sees, `(layers,)`.
        weight: Similarity weight.
        contextual: Contextual share, the same at all stages.
    """

    tokens: tuple[int, ...]
    weight: float
    contextual: float

    def schedule(self, shape: Shape) -> Schedule:
        """Make the schedule, in the form that is measured.

        Args:
            shape: Shape of the measured model, of as many layers.

        Returns:
            The schedule.
        """
        layers = [
            layer
            for layer in range(1, len(self.tokens))
            if self.tokens[layer] < self.tokens[layer - 1]
        ]
        values = {"similarity_weight": self.weight, "contextual": self.contextual}
        kept = [
            stage.model_copy(update={"retention": self.tokens[stage.layer] / shape.visual_tokens})
            for stage in MissionVocabulary(shape=shape).stages(values, layers)
        ]
        schedule = Schedule(stages=tuple(kept), positions="compact", shape=shape)
        return as_measured(schedule, shape)


def lattice(shape: Shape, mean_tokens: int) -> Iterator[LatticePoint]:
    """List the points of the lattice at a budget.

    Args:
        shape: Shape of the measured model.
        mean_tokens: The budget: visual tokens as a mean over decoder layers.

    Yields:
        Points, no two of which behave the same.
    """
    seen = set()
    for tokens in staircases(mean_tokens, shape.decoder_layers, shape.visual_tokens):
        for weight, contextual in product(WEIGHTS, CONTEXTUAL):
            point = LatticePoint(tokens, weight, contextual)
            content_hash = point.schedule(shape).content_hash
            if content_hash not in seen:
                seen.add(content_hash)
                yield point


def off_budget_lattice(shape: Shape) -> Iterator[LatticePoint]:
    """List schedules that meet no budget in particular, as some strategies measure on their way.

    Args:
        shape: Shape of the measured model.

    Yields:
        All never rising choices of shares for four segments of the decoder, as equally deep as its
        layers allow, but the dense model; with the published similarity weight and contextual
        share.
    """
    parts = DECODER_STAGES + 1
    starts = [shape.decoder_layers * part // parts for part in range(parts + 1)]
    lengths = [end - start for start, end in pairwise(starts)]
    counts = [max(1, round(share * shape.visual_tokens)) for share in OFF_BUDGET_SHARES]
    for chosen in combinations_with_replacement(counts, parts):
        if min(chosen) < shape.visual_tokens:
            tokens = [
                count for count, length in zip(chosen, lengths, strict=True) for _ in range(length)
            ]
            yield LatticePoint(tuple(tokens), PUBLISHED_WEIGHT, PUBLISHED_CONTEXTUAL)


def dense_point(shape: Shape) -> LatticePoint:
    """Return the dense model as a point."""
    return LatticePoint((shape.visual_tokens,) * shape.decoder_layers, 0.0, 0.0)


def lattice_sample(shape: Shape, mean_tokens: int) -> list[LatticePoint]:
    """Draw `SAMPLE` points of the lattice at a budget, the same ones every time.

    Args:
        shape: Shape of the measured model.
        mean_tokens: The budget: visual tokens as a mean over decoder layers.

    Returns:
        The points in the lattice's order; all of them where it has no more.
    """
    points = list(lattice(shape, mean_tokens))
    drawn = np.random.default_rng(mean_tokens).permutation(len(points))[:SAMPLE]
    return [points[index] for index in sorted(drawn)]


def scaled(point: LatticePoint, shape: Shape, other: Shape) -> LatticePoint:
    """Carry a point over to a model of another depth, as `Schedule.scaled_to` does.

    Args:
        point: A point for `shape`.
        shape: Shape of the one model.
        other: Shape of the other, of as many visual tokens.

    Returns:
        The point for `other`.
    """
    schedule = as_measured(point.schedule(shape), other)
    tokens = schedule.visual_tokens_per_layer(other.decoder_layers, other.visual_tokens)
    return LatticePoint(tokens, point.weight, point.contextual)


def _filled(
    first: int,
    boundaries: tuple[int, ...],
    shares: tuple[float, ...],
    total: int,
    layers: int,
) -> Iterator[tuple[int, ...]]:
    """Yield the staircase whose last stage keeps what a total over the layers leaves, if any."""
    alive = [first]
    for share in shares:
        alive.append(max(1, round(alive[-1] * share)))
    edges = (0, *boundaries, layers)
    widths = [after - before for before, after in pairwise(edges)]
    used = sum(tokens * width for tokens, width in zip(alive, widths, strict=False))
    alive.append((total - used) // widths[-1])
    if alive[-1] >= 1 and all(before > after for before, after in pairwise(alive)):
        yield tuple(
            tokens for tokens, width in zip(alive, widths, strict=True) for _ in range(width)
        )
