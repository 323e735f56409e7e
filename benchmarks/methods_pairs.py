"""Pairs of schedules that differ in one thing, at any budget."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from methods_schedules import BudgetPoint, schedule_at

from pruners.merges import ClusterAverage, NearestReference, NoMerge
from pruners.methods.visiondrop import CONTEXTUAL
from pruners.schedule import Schedule
from pruners.scorers import (
    ClsAttention,
    QuestionRelevance,
    Random,
    Scorer,
    SimilarityFusion,
    VisualSelfAttention,
)
from pruners.selectors import TopScores
from pruners.shape import Shape
from pruners.stages import Stage
from space.projection import project

Change = Callable[[Stage], Mapping[str, object]]
"""Fields of a stage that a contrast replaces."""

Pair = tuple[Schedule, Schedule]

PairAt = Callable[[BudgetPoint, Shape], Pair]
"""Makes the two schedules at a budget, for a shape."""

CAUSAL = VisualSelfAttention()
"""VisionDrop's decoder score as its code computes it: early tokens are favoured."""

UNMASKED = VisualSelfAttention(mean="bidirectional")
"""The same as its paper's equation has it."""


def with_parts(schedule: Schedule, change: Change) -> Schedule:
    """Replace parts of a schedule's stages; boundaries and counts stay unless they are replaced.

    Args:
        schedule: The schedule.
        change: Gives the fields to replace in each stage.

    Returns:
        The new schedule, not priced.
    """
    stages = tuple(Stage(**{**dict(stage), **change(stage)}) for stage in schedule.stages)
    return schedule.model_copy(update={"stages": stages, "cost": None})


def desap_pair(first: Mapping[str, object], second: Mapping[str, object]) -> PairAt:
    """Contrast two settings of DeSAP's scorer, at DeSAP's count."""

    def pair(point: BudgetPoint, target: Shape) -> Pair:
        schedule = schedule_at("desap", point, target)

        def with_setting(setting: Mapping[str, object]) -> Schedule:
            return with_parts(
                schedule,
                lambda stage: {"scorer": SimilarityFusion(**{**dict(stage.scorer), **setting})},
            )

        return with_setting(first), with_setting(second)

    return pair


def decoupled_pair(point: BudgetPoint, target: Shape) -> Pair:
    """Similarity of decoupled features against that of whole ones, each choosing alone."""
    decoupled, _ = desap_pair({"weight": 1.0, "alignment": False}, {})(point, target)

    def whole(stage: Stage) -> Mapping[str, object]:
        assert isinstance(stage.scorer, SimilarityFusion)
        relevance = QuestionRelevance(text_tower=stage.scorer.text_tower, sign="positive")
        return {"scorer": relevance, "merge": ClusterAverage()}

    return decoupled, with_parts(decoupled, whole)


def visiondrop_pair(second: Scorer, *, merge: bool, first: Scorer = CAUSAL) -> PairAt:
    """Contrast two decoder scores in VisionDrop's stages; its encoder stage is in both."""

    def pair(point: BudgetPoint, target: Shape) -> Pair:
        published = schedule_at("visiondrop", point, target)
        plain = {} if merge else {"merge": NoMerge(), "contextual": 0.0}

        def scored_by(scorer: Scorer) -> Schedule:
            return with_parts(
                published, lambda stage: plain | ({"scorer": scorer} if stage.layer > 0 else {})
            )

        return scored_by(first), scored_by(second)

    return pair


def fastv_pair(second: Scorer, *, first: Scorer = CAUSAL) -> PairAt:
    """Contrast two decoder scores in FastV's place and count."""

    def pair(point: BudgetPoint, target: Shape) -> Pair:
        fastv = schedule_at("fastv", point, target)
        return (
            with_parts(fastv, lambda stage: {"scorer": first}),
            with_parts(fastv, lambda stage: {"scorer": second}),
        )

    return pair


def random_pair(name: str) -> PairAt:
    """Contrast a method with one that keeps random tokens at its decoder stages."""

    def pair(point: BudgetPoint, target: Shape) -> Pair:
        method = schedule_at(name, point, target)
        return method, randomised(method)

    return pair


def randomised(schedule: Schedule) -> Schedule:
    """Let chance choose at the decoder stages."""
    chance = {"scorer": Random(), "selector": TopScores()}
    return with_parts(schedule, lambda stage: chance if stage.layer > 0 else {})


def place_pair(point: BudgetPoint, target: Shape) -> Pair:
    """Random tokens in FastV's place against random tokens in the encoder, at the same cost."""
    in_encoder = schedule_at("random", point, target)
    in_decoder = project(randomised(schedule_at("fastv", point, target)), target, point.budget)
    return in_decoder.model_copy(update={"positions": in_encoder.positions}), in_encoder


def positions_pair(name: str) -> PairAt:
    """Contrast a method's tokens at their dense positions with the same tokens renumbered."""

    def pair(point: BudgetPoint, target: Shape) -> Pair:
        method = schedule_at(name, point, target)
        return (
            method.model_copy(update={"positions": "original"}),
            method.model_copy(update={"positions": "compact"}),
        )

    return pair


def stages_pair(point: BudgetPoint, target: Shape) -> Pair:
    """VisionDrop's four stages against its encoder stage alone, at the same cost."""
    published = schedule_at("visiondrop", point, target)
    stage = Stage(
        layer=0,
        retention=point.tokens / target.visual_tokens,
        contextual=CONTEXTUAL,
        scorer=ClsAttention(),
        merge=NearestReference(),
    )
    alone = project(Schedule(stages=(stage,), shape=target), target, point.budget)
    return published, alone
