"""What the papers claim of scores and stages, as pairs of schedules that differ in one thing.

Figures of the papers are of LLaVA-1.5-7B, in points of relative accuracy; [VisionDrop] is its
table 1, [DeSAP] names the table. DeSAP's ablations list GQA, POPE and MME; their mean of pruned
over dense is taken where no mean is given.

[VisionDrop] arXiv 2506.22283. [DeSAP] arXiv 2604.11240.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from methods_schedules import BudgetPoint, schedule_at

from pruners.merges import ClusterAverage, NearestReference, NoMerge
from pruners.methods.visiondrop import CONTEXTUAL
from pruners.schedule import Schedule
from pruners.scorers import (
    ClsAttention,
    LastTokenAttention,
    QuestionRelevance,
    RaterAttention,
    Scorer,
    SimilarityFusion,
    VisualSelfAttention,
)
from pruners.shape import Shape
from pruners.stages import Stage
from space.projection import project

Change = Callable[[Stage], Mapping[str, object]]
"""Fields of a stage that a contrast replaces."""

Pair = tuple[Schedule, Schedule]

CAUSAL = VisualSelfAttention()
"""VisionDrop's decoder score as its code computes it: early tokens are favoured."""

UNMASKED = VisualSelfAttention(mean="bidirectional")
"""The same as its paper's equation has it."""


@dataclass(frozen=True, eq=False)
class Contrast:
    """Two schedules that differ in one thing.

    Attributes:
        name: Unique name.
        first: What the first schedule has, and the papers prefer.
        second: What the second has instead.
        equal: What both share.
        papers: What the papers report, with its source.
        pair: Makes the two schedules at a budget.
        paper_points: First minus second in the papers, in points, by mean visual tokens.
        grows: Whether the papers say that the difference grows with compression.
    """

    name: str
    first: str
    second: str
    equal: str
    papers: str
    pair: Callable[[BudgetPoint, Shape], Pair]
    paper_points: Mapping[int, float] = field(default_factory=dict)
    grows: bool = False


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


def desap_pair(first: Mapping[str, object], second: Mapping[str, object]) -> Callable[..., Pair]:
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


def visiondrop_pair(second: Scorer, *, merge: bool, first: Scorer = CAUSAL) -> Callable[..., Pair]:
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


def fastv_pair(second: Scorer, *, first: Scorer = CAUSAL) -> Callable[..., Pair]:
    """Contrast two decoder scores in FastV's place and count."""

    def pair(point: BudgetPoint, target: Shape) -> Pair:
        fastv = schedule_at("fastv", point, target)
        return (
            with_parts(fastv, lambda stage: {"scorer": first}),
            with_parts(fastv, lambda stage: {"scorer": second}),
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


_VISUAL = "visual self-attention, as the released code computes it"
_UNMASKED = "visual self-attention without causal mask, the paper's equation"
_LAST = "last token's attention"
_RATERS = "raters' attention"
_TEXT_GUIDED = (
    "[VisionDrop] at 192 tokens: 98.76 % against {other}, methods that differ in more than the "
    "score; the text says that visual scores win the more, the stronger the compression. [DeSAP] "
    "section 3 at 192, 128 and 64: VisionZip, which is visual, {desap}"
)
_AGAINST_LAST = _TEXT_GUIDED.format(
    other="FastV's 88.45 and PyramidDrop's 96.11",
    desap="1.3, 1.1 and 7.7 points above PyramidDrop",
)
_AGAINST_RATERS = _TEXT_GUIDED.format(
    other="SparseVLM's 98.64", desap="1.9, 2.6 and 6.1 points above SparseVLM"
)
_LAYOUT = "VisionDrop's boundaries, counts and encoder stage, scores of the layer after a boundary"
_FASTV = "FastV's boundary and count, scores of the layer after it, nothing merged"
_DESAP = "DeSAP's count and merging"

CONTRASTS = (
    Contrast(
        name="decoupled, half of the tokens",
        first="decoupled encoding (qq)",
        second="plain attention (qk)",
        equal=f"{_DESAP}; similarity chooses half, saliency half",
        papers="[DeSAP] table 4b, 64 tokens: +0.5",
        pair=desap_pair({"encoding": "qq"}, {"encoding": "qk"}),
        paper_points={64: 0.5},
    ),
    Contrast(
        name="decoupled, all tokens",
        first="decoupled encoding (qq)",
        second="plain attention (qk)",
        equal=f"{_DESAP}; similarity chooses alone",
        papers="no figure; [DeSAP] prefers qq",
        pair=desap_pair({"encoding": "qq", "weight": 1.0}, {"encoding": "qk", "weight": 1.0}),
    ),
    Contrast(
        name="decoupled against whole features",
        first="similarity of the last block's decoupled attention output, mean over the question",
        second="similarity of whole features (residual and feed-forward included) to the "
        "question's last token, as CDPruner takes it, positive",
        equal=f"{_DESAP}; similarity chooses alone, without alignment",
        papers="[DeSAP] table 5, 64 tokens: +12.2 over its 'vanilla' similarity",
        pair=decoupled_pair,
        paper_points={64: 12.2},
    ),
    Contrast(
        name="alignment",
        first="fine-grained alignment",
        second="plain mean over the question's tokens",
        equal=f"{_DESAP}; decoupled similarity chooses alone",
        papers="[DeSAP] table 5, 64 tokens: +0.9",
        pair=desap_pair({"weight": 1.0}, {"weight": 1.0, "alignment": False}),
        paper_points={64: 0.9},
    ),
    Contrast(
        name="fusion against saliency",
        first="half similarity, half saliency",
        second="saliency alone",
        equal=_DESAP,
        papers="[DeSAP] table 4a, 64 tokens: +3.3",
        pair=desap_pair({"weight": 0.5}, {"weight": 0.0}),
        paper_points={64: 3.3},
    ),
    Contrast(
        name="fusion against similarity",
        first="half similarity, half saliency",
        second="similarity alone",
        equal=_DESAP,
        papers="[DeSAP] table 4a, 64 tokens: +1.3",
        pair=desap_pair({"weight": 0.5}, {"weight": 1.0}),
        paper_points={64: 1.3},
    ),
    Contrast(
        name="visual against last token, VisionDrop's stages",
        first=_VISUAL,
        second=_LAST,
        equal=f"{_LAYOUT}, its merging",
        papers=_AGAINST_LAST,
        pair=visiondrop_pair(LastTokenAttention(), merge=True),
        paper_points={192: 2.65},
        grows=True,
    ),
    Contrast(
        name="visual against raters, VisionDrop's stages",
        first=_VISUAL,
        second=_RATERS,
        equal=f"{_LAYOUT}, its merging",
        papers=_AGAINST_RATERS,
        pair=visiondrop_pair(RaterAttention(reads="next"), merge=True),
        paper_points={192: 0.12},
        grows=True,
    ),
    Contrast(
        name="visual against last token, VisionDrop's stages, nothing merged",
        first=_VISUAL,
        second=_LAST,
        equal=f"{_LAYOUT}, nothing merged",
        papers=_AGAINST_LAST,
        pair=visiondrop_pair(LastTokenAttention(), merge=False),
        grows=True,
    ),
    Contrast(
        name="visual against raters, VisionDrop's stages, nothing merged",
        first=_VISUAL,
        second=_RATERS,
        equal=f"{_LAYOUT}, nothing merged",
        papers=_AGAINST_RATERS,
        pair=visiondrop_pair(RaterAttention(reads="next"), merge=False),
        grows=True,
    ),
    Contrast(
        name="visual against last token, FastV's stage",
        first=_VISUAL,
        second=_LAST,
        equal=_FASTV,
        papers=_AGAINST_LAST,
        pair=fastv_pair(LastTokenAttention()),
        paper_points={192: 10.31},
        grows=True,
    ),
    Contrast(
        name="visual against raters, FastV's stage",
        first=_VISUAL,
        second=_RATERS,
        equal=_FASTV,
        papers=_AGAINST_RATERS,
        pair=fastv_pair(RaterAttention(reads="next")),
        grows=True,
    ),
    Contrast(
        name="unmasked visual against last token, VisionDrop's stages",
        first=_UNMASKED,
        second=_LAST,
        equal=f"{_LAYOUT}, nothing merged",
        papers=_AGAINST_LAST,
        pair=visiondrop_pair(LastTokenAttention(), merge=False, first=UNMASKED),
        grows=True,
    ),
    Contrast(
        name="unmasked visual against last token, FastV's stage",
        first=_UNMASKED,
        second=_LAST,
        equal=_FASTV,
        papers=_AGAINST_LAST,
        pair=fastv_pair(LastTokenAttention(), first=UNMASKED),
        grows=True,
    ),
    Contrast(
        name="four stages against one",
        first="VisionDrop's four stages",
        second="its encoder stage alone",
        equal="cost, scores and merging of the encoder stage",
        papers="[VisionDrop] at 32 tokens: 91.46 % against VisionZip's 89.92: +1.5",
        pair=stages_pair,
        paper_points={32: 1.54},
    ),
)


@dataclass(frozen=True)
class PaperOrder:
    """Methods that a paper ranks at one number of tokens.

    Attributes:
        source: Where.
        tokens: Mean visual tokens, of 576.
        percent: Relative accuracy in percent, by method.
    """

    source: str
    tokens: int
    percent: Mapping[str, float]


ORDERS = (
    PaperOrder(
        "VisionDrop, table 1",
        192,
        {"visiondrop": 98.76, "sparsevlm": 98.64, "pyramiddrop": 96.11, "fastv": 88.45},
    ),
    PaperOrder(
        "DeSAP, main table",
        192,
        {
            "desap": 100.3,
            "flowcut": 99.1,
            "visionzip": 98.4,
            "pyramiddrop": 97.1,
            "sparsevlm": 96.5,
        },
    ),
    PaperOrder(
        "DeSAP, main table",
        128,
        {"desap": 99.6, "flowcut": 98.0, "visionzip": 97.1, "pyramiddrop": 96.0, "sparsevlm": 94.5},
    ),
    PaperOrder(
        "DeSAP, main table",
        64,
        {"desap": 98.1, "flowcut": 95.6, "visionzip": 94.3, "sparsevlm": 88.2, "pyramiddrop": 86.6},
    ),
    PaperOrder("VisionDrop, table 1", 32, {"visiondrop": 91.46, "visionzip": 89.92}),
)
"""Orders of methods that the papers report for LLaVA-1.5-7B, best first."""
