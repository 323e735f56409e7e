"""Any scorer, at any place that it may stand, with any selector and any merge rule."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch

from pruners import Schedule, Stage, apply_schedule
from pruners.merges import (
    BipartiteMatching,
    ClusterAverage,
    ContextualMerge,
    DensityPeaks,
    Merge,
    NearestReference,
    NoMerge,
    SimilarityWeighted,
)
from pruners.scorers import (
    ClsAttention,
    KeyNorm,
    LastTokenAttention,
    QuestionRelevance,
    Random,
    RaterAttention,
    Scorer,
    SimilarityFusion,
    Uniform,
    VisualSelfAttention,
)
from pruners.selectors import (
    Deduplicated,
    Determinantal,
    LeastDuplication,
    LocalWindows,
    MaxMinDistance,
    Selector,
    TopScores,
)

QUESTIONS = ("w1 w2 w3", "w4")
ANYWHERE: tuple[Scorer, ...] = (
    ClsAttention(keep_cls=False),
    SimilarityFusion(text_tower="paired"),
    QuestionRelevance(text_tower="paired"),
    VisualSelfAttention(),
    KeyNorm(),
    Uniform(),
    Random(),
)
IN_DECODER: tuple[Scorer, ...] = (
    LastTokenAttention(reads="previous"),
    LastTokenAttention(reads="next"),
    RaterAttention(),
    KeyNorm(reads="next"),
)
SELECTORS: tuple[Selector, ...] = (
    TopScores(),
    Deduplicated(step=3),
    Determinantal(),
    MaxMinDistance(),
    LeastDuplication(image_pivots=2, text_pivots=0),
)
MERGES: tuple[Merge, ...] = (
    NoMerge(),
    NearestReference(),
    DensityPeaks(),
    ClusterAverage(),
    SimilarityWeighted(),
    BipartiteMatching(),
)


def check(tiny: Any, stage: Stage) -> None:
    """Exact counts, no token twice, and a batch that equals its samples."""
    inputs = tiny.inputs(QUESTIONS)
    schedule = Schedule(stages=(stage,))
    count = schedule.counts(tiny.visual_tokens)[0]
    with apply_schedule(
        tiny.model, schedule, processor=tiny.tokenizer, text_tower=tiny.text_tower
    ) as handle:
        with torch.no_grad():
            together = tiny.model(**inputs).logits[:, -1]
        record = handle.last_prefill.stages[0]  # type: ignore[union-attr]
        assert record.indices.shape == (len(QUESTIONS), count.alive)
        assert record.contextual.sum(dim=1).tolist() == [count.contextual] * len(QUESTIONS)
        for row, indices in enumerate(record.indices.tolist()):
            assert len(set(indices)) == count.alive
            real = inputs["attention_mask"][row].bool()
            with torch.no_grad():
                alone = tiny.model(
                    input_ids=inputs["input_ids"][row][real][None],
                    attention_mask=inputs["attention_mask"][row][real][None],
                    pixel_values=inputs["pixel_values"][row][None],
                ).logits[0, -1]
            torch.testing.assert_close(together[row], alone, atol=2e-5, rtol=1e-5)


def fits(scorer: Scorer, selector: Selector) -> bool:
    return not isinstance(scorer, SimilarityFusion) or isinstance(selector, TopScores)


def contextual_share(merge: Merge) -> float:
    return 0.25 if isinstance(merge, ContextualMerge) else 0.0


@pytest.mark.parametrize("features", ["vision", "projected"])
@pytest.mark.parametrize("scorer", ANYWHERE, ids=lambda scorer: scorer.kind)
def test_conformance_encoder_stages_take_any_parts(
    tiny: Any, scorer: Scorer, features: Any
) -> None:
    for selector, merge in product((*SELECTORS, LocalWindows(windows=2)), MERGES):
        if fits(scorer, selector):
            stage = Stage(
                layer=0,
                retention=0.4,
                contextual=contextual_share(merge),
                scorer=scorer,
                selector=selector,
                features=features,
                merge=merge,
            )
            check(tiny, stage)


@pytest.mark.parametrize(
    "scorer",
    [*ANYWHERE, *IN_DECODER],
    ids=lambda scorer: "-".join([scorer.kind, getattr(scorer, "reads", "")]),
)
def test_conformance_decoder_stages_take_any_parts(tiny: Any, scorer: Scorer) -> None:
    selectors = (*SELECTORS, LeastDuplication(image_pivots=2, text_pivots=3))
    for selector, merge in product(selectors, MERGES):
        if fits(scorer, selector):
            stage = Stage(
                layer=2,
                retention=0.4,
                contextual=contextual_share(merge),
                scorer=scorer,
                selector=selector,
                merge=merge,
            )
            check(tiny, stage)
