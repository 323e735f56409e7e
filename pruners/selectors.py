"""Selectors: how a stage chooses tokens, given their scores. Records in schedule files."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pruners.part import Part


class TopScores(Part):
    """The tokens with the highest scores; of equal ones the earlier.

    Attributes:
        kind: Name of the selector in files.
    """

    kind: Literal["top-scores"] = "top-scores"


class LocalWindows(Part):
    """VScan's encoder stage: some tokens are the best of their window, the rest the best of all.

    The grid of patches is cut into windows; each gives equally many tokens, by the CLS attention of
    an early vision layer. The stage's scorer chooses the rest among all others.

    Attributes:
        kind: Name of the selector in files.
        share: Share of the tokens that windows choose; VScan: half.
        windows: Windows along each side; VScan: 4, of 6 x 6 patches each.
        depth: Vision layer that windows are judged by, counted from 0, as a share of the tower's
            layers; VScan: layer 5 of 24.
    """

    kind: Literal["local-windows"] = "local-windows"
    share: float = Field(default=0.5, ge=0, le=1)
    windows: int = Field(default=4, ge=1)
    depth: float = Field(default=5 / 24, ge=0, lt=1)


class Deduplicated(Part):
    """VisPruner: the important tokens, and of the others those that are least like one another.

    The others, by falling score, are split alternately in two halves; of the first half those most
    similar (cosine) to any of the second leave, a few at a time, until enough are left.

    Attributes:
        kind: Name of the selector in files.
        share: Share of the tokens that are important ones (rounded down); 0.5 in the released
            script.
        step: Most tokens to leave at a time; 8 in the released code.
    """

    kind: Literal["deduplicated"] = "deduplicated"
    share: float = Field(default=0.5, ge=0, le=1)
    step: int = Field(default=8, ge=1)


class Determinantal(Part):
    """CDPruner: a determinantal point process picks tokens that score well and differ.

    Its kernel is diag(r) S diag(r), with S the cosine similarities of the tokens and r their scores
    scaled to [0, 1]; the most probable set is approached greedily.

    Attributes:
        kind: Name of the selector in files.
    """

    kind: Literal["determinantal"] = "determinantal"


class MaxMinDistance(Part):
    """DivPrune: each token chosen is the one farthest from all that were chosen before it.

    Distance is 1 - cosine. The first is the token whose nearest neighbour is farthest. Scores are
    not looked at.

    Attributes:
        kind: Name of the selector in files.
    """

    kind: Literal["max-min-distance"] = "max-min-distance"


class LeastDuplication(Part):
    """DART: pivot tokens, and for each the tokens that are least similar (cosine) to it.

    Image pivots are the visual tokens with the highest scores and stay; text pivots are the tokens
    after the image with the highest key norms. Each pivot in turn, image pivots first, chooses its
    equal share of the remaining count.

    Attributes:
        kind: Name of the selector in files.
        image_pivots: Visual pivot tokens; 4 in the released code.
        text_pivots: Text pivot tokens; 4 in the released code. 0 at layer 0.
    """

    kind: Literal["least-duplication"] = "least-duplication"
    image_pivots: int = Field(default=4, ge=1)
    text_pivots: int = Field(default=4, ge=0)


Selector = Annotated[
    TopScores | LocalWindows | Deduplicated | Determinantal | MaxMinDistance | LeastDuplication,
    Field(discriminator="kind"),
]
