"""The scorers, merge rules and stages that schedules are made of."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ClsAttention(_Part):
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


class SimilarityFusion(_Part):
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


class VisualSelfAttention(_Part):
    """Decoder saliency: the mean attention that a visual token receives from visual tokens.

    VisionDrop's decoder score: the next layer's queries and keys, softmax over all keys, mean over
    heads, then over the queries of all visual tokens.

    Attributes:
        kind: Name of the scorer in files.
        mean: How causality enters the mean over queries. ``"causal"`` is the released code: queries
            before a token cannot see it and count as zeros, which favours early tokens.
            ``"attending-queries"`` divides by the number of queries that can see the token.
            ``"bidirectional"`` is the paper's equation: attention among visual tokens, unmasked.
    """

    kind: Literal["visual-self-attention"] = "visual-self-attention"
    mean: Literal["causal", "attending-queries", "bidirectional"] = "causal"


class NoMerge(_Part):
    """Dropped tokens are lost.

    Attributes:
        kind: Name of the rule in files.
    """

    kind: Literal["none"] = "none"


class NearestReference(_Part):
    """Contextual merging of VisionDrop and VisionZip: dropped tokens join strided references.

    Attributes:
        kind: Name of the rule in files.
        combine: ``"sum"`` is the released code: reference plus the mean of the tokens assigned to
            it, which about doubles its norm. ``"mean"`` is the papers' average, reference included.
    """

    kind: Literal["nearest-reference"] = "nearest-reference"
    combine: Literal["sum", "mean"] = "sum"


class ClusterAverage(_Part):
    """Merging of DeSAP: each dropped token joins its most similar kept one; clusters are averaged.

    Attributes:
        kind: Name of the rule in files.
    """

    kind: Literal["cluster-average"] = "cluster-average"


EncoderScorer = ClsAttention | SimilarityFusion
Scorer = Annotated[EncoderScorer | VisualSelfAttention, Field(discriminator="kind")]
Merge = Annotated[NoMerge | NearestReference | ClusterAverage, Field(discriminator="kind")]


class Stage(_Part):
    """One boundary with its retention, scorer and merge rule.

    Attributes:
        layer: Boundary: decoder layer before which tokens are dropped; 0 is the encoder's output,
            before the projector.
        retention: Visual tokens alive after the stage as a share of the dense model's, in (0, 1],
            or 0 at boundaries above 0.
        contextual: Share of the alive tokens that are made by merging dropped ones, in [0, 1).
        scorer: What decides which tokens stay.
        merge: What becomes of the dropped ones.
    """

    layer: int = Field(ge=0)
    retention: float = Field(ge=0, le=1)
    contextual: float = Field(default=0.0, ge=0, lt=1)
    scorer: Scorer
    merge: Merge = NoMerge()

    @model_validator(mode="after")
    def _check_parts_fit(self) -> Self:
        encoder_scorer = isinstance(self.scorer, EncoderScorer)
        if encoder_scorer and self.layer > 0:
            raise ValueError(
                f"scorer {self.scorer.kind!r} reads the vision tower and belongs to layer 0, "
                f"not to layer {self.layer}"
            )
        if not encoder_scorer and self.layer == 0:
            raise ValueError(
                f"scorer {self.scorer.kind!r} reads a decoder layer and needs a layer above 0"
            )
        if self.layer == 0 and self.retention == 0:
            raise ValueError("retention 0 at layer 0 would leave the decoder without an image")
        if self.contextual > 0 and not isinstance(self.merge, NearestReference):
            raise ValueError(
                f"contextual is {self.contextual:g}, but only merge rule 'nearest-reference' makes "
                f"contextual tokens; {self.merge.kind!r} needs contextual 0"
            )
        return self
