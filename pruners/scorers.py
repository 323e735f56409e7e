"""Scorers: what a stage orders the visual tokens by. These are their records in schedule files.

Where a scorer may stand follows from what it reads: the vision tower (any stage; at decoder stages
a token has the score of the patch that it comes from), the decoder (stages above layer 0), or the
tower while it runs (the stage at layer 0, whose tokens then leave inside the tower).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pruners.part import Part


class ClsAttention(Part):
    """Encoder saliency: the attention that the CLS token pays to each patch.

    The score of VisionDrop's and VisionZip's encoder stage (their released code).

    Attributes:
        kind: Name of the scorer in files.
        layer: Vision tower layer whose attention is read, as a negative index; the released code
            reads the layer that feeds the projector (-2).
        keep_cls: Whether the CLS token itself is fed to the decoder as one of the dominant tokens,
            as the released code does.
    """

    kind: Literal["cls-attention"] = "cls-attention"
    layer: int = Field(default=-2, le=-1)
    keep_cls: bool = True


class SimilarityFusion(Part):
    """Encoder score of DeSAP: question similarity and saliency share a stage's tokens.

    Similarity is taken between the decoupled attention output of the vision tower's last block
    and the tokens of the paired text tower (DeSAP, equations 2 and 3); saliency is CLS attention
    (equation 4); the budget split is that of section 4.3, not a sum of scores.

    Attributes:
        kind: Name of the scorer in files.
        weight: Similarity weight: the share of the dominant tokens that similarity chooses, in
            [0, 1]. DeSAP's default is 0.5 (its table 4a). At 0 no text tower is loaded.
        text_tower: Folder or hub name of the CLIP checkpoint paired with the vision tower.
        temperature: The paper's lambda in equation 3 (0.1).
        encoding: Which projections attend to which in the decoupled output: ``"qq"`` is the
            paper's default (its table 4b), ``"qk"`` is plain attention.
        alignment: Whether the fine-grained alignment of equation 3 weighs the similarities; when
            False, the plain mean similarity over question tokens is used (the ablation of table 5).
        saliency_layer: Vision tower layer whose CLS attention is the saliency (the paper: last).
        order: Which of the two chooses first; the paper lets similarity choose first.
        text: Which text is compared with the image: the question or the whole prompt.
        clamp_negative: Whether negative similarities count as zero; the paper has no clamp.
        keep_cls: Whether the CLS token is fed to the decoder as one of the dominant tokens.
    """

    kind: Literal["similarity-fusion"] = "similarity-fusion"
    weight: float = Field(default=0.5, ge=0, le=1)
    text_tower: str
    temperature: float = Field(default=0.1, ge=0)
    encoding: Literal["qq", "qk", "vv", "kk"] = "qq"
    alignment: bool = True
    saliency_layer: int = Field(default=-1, le=-1)
    order: Literal["similarity-first", "saliency-first"] = "similarity-first"
    text: Literal["question", "prompt"] = "question"
    clamp_negative: bool = False
    keep_cls: bool = False


class QuestionRelevance(Part):
    """Encoder score of CDPruner: how near a patch lies to the question in CLIP's joint space.

    Cosine between the patch, brought into the joint space by the tower's last norm and projection,
    and the question's end-of-text embedding. CDPruner's released code takes it negative: CLIP's
    patches lie opposite to the text that describes them.

    Attributes:
        kind: Name of the scorer in files.
        text_tower: Folder or hub name of the CLIP checkpoint paired with the vision tower.
        sign: ``"negative"`` as in the released code, or ``"positive"``.
        text: Which text is compared with the image: the question or the whole prompt.
    """

    kind: Literal["question-relevance"] = "question-relevance"
    text_tower: str
    sign: Literal["negative", "positive"] = "negative"
    text: Literal["question", "prompt"] = "question"


class VisualSelfAttention(Part):
    """Saliency: the mean attention that a visual token receives from visual tokens.

    At decoder stages this is VisionDrop's score: the next layer's queries and keys, softmax over
    all keys, mean over heads, then over the queries of all visual tokens. At layer 0 it is the same
    mean in the vision tower's layer that makes the features, which VisionDrop takes for towers
    without a CLS token; attention is not causal there, and `mean` says nothing.

    Attributes:
        kind: Name of the scorer in files.
        mean: How causality enters the mean over queries. ``"causal"`` is the released code: queries
            before a token cannot see it and count as zeros, which favours early tokens.
            ``"attending-queries"`` divides by the number of queries that can see the token.
            ``"bidirectional"`` is the paper's equation: attention among visual tokens, unmasked.
    """

    kind: Literal["visual-self-attention"] = "visual-self-attention"
    mean: Literal["causal", "attending-queries", "bidirectional"] = "causal"


ReadLayer = Literal["previous", "next"]
"""Whether a decoder score is taken from the layer before a boundary or from the one after it."""


class LastTokenAttention(Part):
    """Text-guided score of FastV and PyramidDrop: the attention that the last token pays.

    Softmax over all keys, mean over heads, the row of the prompt's last token.

    Attributes:
        kind: Name of the scorer in files.
        reads: FastV reads the layer before the boundary, PyramidDrop the one after it (released
            code of both).
    """

    kind: Literal["last-token-attention"] = "last-token-attention"
    reads: ReadLayer = "next"


class RaterAttention(Part):
    """Text-guided score of SparseVLM: the mean attention that the rater tokens pay.

    Raters are text tokens after the image that matter most to it: with V and T the visual and text
    tokens that enter the decoder, those whose mean over V of softmax(V Tᵀ), taken over text, is
    above the mean of all text tokens.

    Attributes:
        kind: Name of the scorer in files.
        reads: Layer whose attention is read; SparseVLM's released code reads the one before.
    """

    kind: Literal["rater-attention"] = "rater-attention"
    reads: ReadLayer = "previous"


class KeyNorm(Part):
    """Saliency of DART's pivots: the L1 norm of a token's key, over all heads.

    At layer 0, keys are those of the vision tower's layer that makes the features.

    Attributes:
        kind: Name of the scorer in files.
        reads: Decoder layer whose rotated keys are read; DART's released code reads the one before.
    """

    kind: Literal["key-norm"] = "key-norm"
    reads: ReadLayer = "previous"


class Uniform(Part):
    """All tokens score alike, for selectors that look at no score (DivPrune).

    Attributes:
        kind: Name of the scorer in files.
    """

    kind: Literal["uniform"] = "uniform"


class Random(Part):
    """A control: a random order of the dense model's visual tokens, the same for every image.

    Attributes:
        kind: Name of the scorer in files.
        seed: Seed of the order.
    """

    kind: Literal["random"] = "random"
    seed: int = Field(default=0, ge=0, lt=2**32)


class InformationFlow(Part):
    """FlowCut: tokens leave inside the vision tower, by a score accumulated over its layers.

    In every layer, with a the CLS token's attention to the patches and c the softmax of its value's
    products with theirs, both averaged over heads and normalised over patches, a patch scores
    (a + c) times the L1 norm of its head-mean value. After every second layer some tokens leave,
    the more the less even a is (its entropy); before the layer that makes the features the rest
    does, so that the stage's count is met exactly.

    Attributes:
        kind: Name of the scorer in files.
        momentum: Share of the accumulated score that a layer's own score does not replace; 0.5 in
            the released code.
    """

    kind: Literal["information-flow"] = "information-flow"
    momentum: float = Field(default=0.5, ge=0, lt=1)


class TokenMatching(Part):
    """ToMe: tokens merge inside the vision tower, the same number after each layer.

    Tokens are split alternately in two sets; each of the first finds the most similar key of the
    second, and the most similar pairs merge. Attention counts a merged token as often as patches
    are in it (proportional attention). The released code merges between a layer's attention and
    its feed-forward part, here it is after both.

    Attributes:
        kind: Name of the scorer in files.
    """

    kind: Literal["token-matching"] = "token-matching"


class Downsampling(Part):
    """A control: the image is made smaller before the vision tower, until it has so few patches.

    The grid is as square as can be: h x h or h x (h + 1) patches, at most as many as asked for.
    Pixels are resized with antialiasing, position embeddings interpolated.

    Attributes:
        kind: Name of the scorer in files.
    """

    kind: Literal["downsampling"] = "downsampling"


TowerScorer = InformationFlow | TokenMatching | Downsampling
"""Scorers whose tokens leave inside the vision tower; they stand at layer 0."""

VisionScorer = ClsAttention | SimilarityFusion | QuestionRelevance
"""Scorers that read the vision tower; they stand anywhere."""

QuestionReader = SimilarityFusion | QuestionRelevance
"""Scorers that compare the image with the question, which a text tower reads for them."""

DecoderScorer = LastTokenAttention | RaterAttention
"""Scorers that read text in the decoder; they stand above layer 0."""

Scorer = Annotated[
    VisionScorer | DecoderScorer | TowerScorer | VisualSelfAttention | KeyNorm | Uniform | Random,
    Field(discriminator="kind"),
]
