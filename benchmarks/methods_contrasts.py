"""What the papers claim of scores and stages, as pairs of schedules that differ in one thing.

Figures of the papers are of LLaVA-1.5-7B, in points of relative accuracy; [VisionDrop] is its
table 1, [DeSAP] names the table. DeSAP's ablations list GQA, POPE and MME; their mean of pruned
over dense is taken where no mean is given.

[VisionDrop] arXiv 2506.22283. [DeSAP] arXiv 2604.11240.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from methods_pairs import (
    UNMASKED,
    PairAt,
    decoupled_pair,
    desap_pair,
    fastv_pair,
    place_pair,
    positions_pair,
    random_pair,
    stages_pair,
    visiondrop_pair,
)

from pruners.scorers import LastTokenAttention, RaterAttention


@dataclass(frozen=True, eq=False)
class Contrast:
    """Two schedules that differ in one thing.

    Attributes:
        name: Unique name.
        first: What the first schedule has, and the papers prefer where they prefer one.
        second: What the second has instead.
        equal: What both share.
        papers: What the papers report, with its source.
        pair: Makes the two schedules at a budget.
        paper_points: First minus second in the papers, in points, by mean visual tokens.
        claimed: Whether the papers say that the first is better.
        grows: Whether they say that the difference grows with compression.
    """

    name: str
    first: str
    second: str
    equal: str
    papers: str
    pair: PairAt
    paper_points: Mapping[int, float] = field(default_factory=dict)
    claimed: bool = True
    grows: bool = False


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
_RANDOM = "one draw of random tokens there"
_NO_FIGURE = "no figure"
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
    *(
        Contrast(
            name=f"{label} against random tokens in its stages",
            first=f"{label}'s choice at its decoder stages",
            second=_RANDOM,
            equal=f"{label}'s boundaries, counts, merging and encoder stage",
            papers=_NO_FIGURE,
            pair=random_pair(name),
            claimed=False,
        )
        for name, label in (
            ("fastv", "FastV"),
            ("dart", "DART"),
            ("pyramiddrop", "PyramidDrop"),
            ("sparsevlm", "SparseVLM"),
            ("visiondrop", "VisionDrop"),
        )
    ),
    *(
        Contrast(
            name=f"original positions, {label}",
            first="positions of the dense model",
            second="positions renumbered after each drop",
            equal=f"all of {label}",
            papers="no figure; FastV and DART keep positions, PyramidDrop renumbers them",
            pair=positions_pair(name),
            claimed=False,
        )
        for name, label in (("dart", "DART"), ("fastv", "FastV"), ("pyramiddrop", "PyramidDrop"))
    ),
    Contrast(
        name="random tokens in FastV's place against in the encoder",
        first="one draw of random tokens at FastV's boundary",
        second="one draw of random tokens in the encoder",
        equal="cost, and the scorer",
        papers=_NO_FIGURE,
        pair=place_pair,
        claimed=False,
    ),
)
