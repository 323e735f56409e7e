"""Merge rules: what becomes of the tokens that a stage drops. Records in schedule files."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pruners.part import Part


class NoMerge(Part):
    """Dropped tokens are lost.

    Attributes:
        kind: Name of the rule in files.
    """

    kind: Literal["none"] = "none"


class NearestReference(Part):
    """Contextual merging of VisionDrop and VisionZip: dropped tokens join strided references.

    Attributes:
        kind: Name of the rule in files.
        combine: ``"sum"`` is the released code: reference plus the mean of the tokens assigned to
            it, which about doubles its norm. ``"mean"`` is the papers' average, reference included.
    """

    kind: Literal["nearest-reference"] = "nearest-reference"
    combine: Literal["sum", "mean"] = "sum"


class DensityPeaks(Part):
    """SparseVLM's recycling: the best of the dropped tokens are clustered into contextual ones.

    Cluster centres are tokens in dense neighbourhoods far from denser ones (density-peak
    clustering, Rodriguez and Laio 2014); clusters are averaged.

    Attributes:
        kind: Name of the rule in files.
        recycled: Share of the dropped tokens that is clustered, by falling score (rounded down,
            plus one); 0.3 in the released code. The rest is lost.
    """

    kind: Literal["density-peaks"] = "density-peaks"
    recycled: float = Field(default=0.3, gt=0, le=1)


class ClusterAverage(Part):
    """Merging of DeSAP: each dropped token joins its most similar kept one; clusters are averaged.

    Attributes:
        kind: Name of the rule in files.
    """

    kind: Literal["cluster-average"] = "cluster-average"


class SimilarityWeighted(Part):
    """Each dropped token joins its most similar kept one, with its similarity as its weight.

    The kept token weighs 1; negative similarities (cosine) count as 0.

    Attributes:
        kind: Name of the rule in files.
    """

    kind: Literal["similarity-weighted"] = "similarity-weighted"


class BipartiteMatching(Part):
    """ToMe's merging: each dropped token joins the kept one with the most similar key.

    Tokens weigh as many patches as are in them, over all stages that merge so.

    Attributes:
        kind: Name of the rule in files.
    """

    kind: Literal["bipartite-matching"] = "bipartite-matching"


ContextualMerge = NearestReference | DensityPeaks
"""Merge rules that make contextual tokens; the others change the kept ones or nothing."""

Merge = Annotated[
    NoMerge | ContextualMerge | ClusterAverage | SimilarityWeighted | BipartiteMatching,
    Field(discriminator="kind"),
]
