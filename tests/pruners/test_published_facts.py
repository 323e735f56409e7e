"""What published methods are made of, against a table typed off their papers and released code."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import pytest

from pruners import published
from pruners.methods import METHODS
from pruners.reads import window_layer
from pruners.selectors import LocalWindows

CLIP = "openai/clip-vit-large-patch14-336"
TOP: dict[str, Any] = {"kind": "top-scores"}
NOTHING_MERGED: dict[str, Any] = {"kind": "none"}
STRIDED_REFERENCES = {"kind": "nearest-reference", "combine": "sum"}


@dataclass(frozen=True)
class Fact:
    """One stage of a method, every option spelled out; boundaries are those of 32 layers."""

    layer: int
    scorer: dict[str, Any]
    merge: dict[str, Any]
    selector: dict[str, Any]
    features: str = "vision"


def fact(
    layer: int,
    scorer: dict[str, Any],
    merge: dict[str, Any] = NOTHING_MERGED,
    selector: dict[str, Any] = TOP,
    features: str = "vision",
) -> Fact:
    return Fact(layer, scorer, merge, selector, features)


def cls_attention(keep_cls: bool) -> dict[str, Any]:
    """The CLS row of `attentions[-2]`, layer 22 of 0..23: the layer that feeds the projector."""
    return {"kind": "cls-attention", "layer": -2, "keep_cls": keep_cls}


def last_token(reads: str) -> dict[str, Any]:
    return {"kind": "last-token-attention", "reads": reads}


VISIONDROP_DECODER = {"kind": "visual-self-attention", "mean": "causal"}
RATERS = {"kind": "rater-attention", "reads": "previous"}
RECYCLING = {"kind": "density-peaks", "recycled": 0.3}

FACTS: dict[str, tuple[str, str, tuple[Fact, ...]]] = {
    # CLS token among the dominant ones; sum of a reference and the mean of its candidates; in the
    # decoder the next layer's weights, with the causal mask; positions re-indexed from 0.
    "visiondrop": (
        "AAAI 2026, arXiv 2506.22283",
        "compact",
        (
            fact(0, cls_attention(keep_cls=True), STRIDED_REFERENCES),
            fact(8, VISIONDROP_DECODER, STRIDED_REFERENCES),
            fact(16, VISIONDROP_DECODER, STRIDED_REFERENCES),
            fact(24, VISIONDROP_DECODER, STRIDED_REFERENCES),
        ),
    ),
    # Half of the budget each, lambda 0.1, query-query attention, saliency of the last layer.
    "desap": (
        "arXiv 2604.11240",
        "compact",
        (
            fact(
                0,
                {
                    "kind": "similarity-fusion",
                    "weight": 0.5,
                    "text_tower": CLIP,
                    "temperature": 0.1,
                    "encoding": "qq",
                    "alignment": True,
                    "saliency_layer": -1,
                    "order": "similarity-first",
                    "text": "question",
                    "clamp_negative": False,
                    "keep_cls": False,
                },
                {"kind": "cluster-average"},
            ),
        ),
    ),
    # Before layer K = 2, attention of layer K - 1; original position ids kept.
    "fastv": (
        "ECCV 2024, arXiv 2403.06764",
        "original",
        (fact(2, last_token("previous")),),
    ),
    # After 8, 16 and 24 layers, by VisionDrop's code path: the layer after the boundary.
    "pyramiddrop": (
        "CVPR 2025, arXiv 2410.17247",
        "compact",
        tuple(fact(layer, last_token("next")) for layer in (8, 16, 24)),
    ),
    # On the output of layers 2, 6 and 15, by the attention of those very layers; version 1.
    "sparsevlm": (
        "ICML 2025, arXiv 2410.04417",
        "compact",
        tuple(fact(layer, RATERS, RECYCLING) for layer in (3, 7, 16)),
    ),
    "visionzip": (
        "CVPR 2025, arXiv 2412.04467",
        "compact",
        (fact(0, cls_attention(keep_cls=True), STRIDED_REFERENCES),),
    ),
    # Half important; the rest by layer -2 features, at most 8 at a time; no merging.
    "vispruner": (
        "ICCV 2025, arXiv 2412.01818",
        "compact",
        (
            fact(
                0,
                cls_attention(keep_cls=False),
                selector={"kind": "deduplicated", "share": 0.5, "step": 8},
            ),
        ),
    ),
    # Negated relevance to the question; similarities of projected features.
    "cdpruner": (
        "NeurIPS 2025, arXiv 2506.10967",
        "compact",
        (
            fact(
                0,
                {
                    "kind": "question-relevance",
                    "text_tower": CLIP,
                    "sign": "negative",
                    "text": "question",
                },
                selector={"kind": "determinantal"},
                features="projected",
            ),
        ),
    ),
    # Half from 16 windows by vision layer 5 of 24; dropped tokens join kept ones on projected
    # features; PyramidDrop's routine once at layer 16.
    "vscan": (
        "TMLR 2026, arXiv 2505.22654",
        "compact",
        (
            fact(
                0,
                cls_attention(keep_cls=False),
                {"kind": "cluster-average"},
                {"kind": "local-windows", "share": 0.5, "windows": 4, "depth": 5 / 24},
                "projected",
            ),
            fact(16, last_token("next")),
        ),
    ),
    # Running score 0.5 / 0.5; no merge.
    "flowcut": (
        "NeurIPS 2025, arXiv 2505.19536",
        "compact",
        (fact(0, {"kind": "information-flow", "momentum": 0.5}),),
    ),
    # Keys of the layer before layer 2, four image and four text pivots, original positions.
    "dart": (
        "EMNLP 2025, arXiv 2502.11494",
        "original",
        (
            fact(
                2,
                {"kind": "key-norm", "reads": "previous"},
                selector={"kind": "least-duplication", "image_pivots": 4, "text_pivots": 4},
            ),
        ),
    ),
    "divprune": (
        "CVPR 2025, arXiv 2503.02175",
        "compact",
        (
            fact(
                0,
                {"kind": "uniform"},
                selector={"kind": "max-min-distance"},
                features="projected",
            ),
        ),
    ),
    "tome": (
        "ICLR 2023, arXiv 2210.09461",
        "compact",
        (fact(0, {"kind": "token-matching"}, {"kind": "bipartite-matching"}),),
    ),
    "random": ("control", "compact", (fact(0, {"kind": "random", "seed": 0}),)),
    "downsampling": ("control", "compact", (fact(0, {"kind": "downsampling"}),)),
}


def test_every_method_is_in_the_table() -> None:
    assert set(FACTS) == set(METHODS)


@pytest.mark.parametrize("name", FACTS)
def test_a_method_is_what_its_authors_published(name: str) -> None:
    source, positions, facts = FACTS[name]
    schedule = published(name, tokens=192)
    assert schedule.positions == positions
    found = [
        Fact(
            stage.layer,
            stage.scorer.model_dump(),
            stage.merge.model_dump(),
            stage.selector.model_dump(),
            stage.features,
        )
        for stage in schedule.stages
    ]
    assert found == list(facts)
    assert METHODS[name].source == source
    assert schedule.provenance is not None
    assert schedule.provenance.origin == f"published: {name}, 192 tokens"


@pytest.mark.parametrize("name", [name for name in METHODS if not METHODS[name].control])
def test_a_methods_module_cites_its_source(name: str) -> None:
    method = METHODS[name]
    module = inspect.getmodule(method.schedule)
    assert module is not None
    heading = (module.__doc__ or "").splitlines()[0]
    assert heading.startswith(method.label)
    assert heading.endswith(f" ({method.source}).")


def test_vscans_windows_are_judged_by_vision_layer_5_of_24() -> None:
    selector = published("vscan", tokens=64).stages[0].selector
    assert isinstance(selector, LocalWindows)
    assert window_layer(selector, 24) == 5 - 24


@pytest.mark.parametrize(
    ("depth", "layers", "expected"),
    # 5 / 24 of 12 layers is 2.5, rounded up; of 4 layers 0.83; the last layer is the deepest.
    [(5 / 24, 12, 3), (5 / 24, 4, 1), (0.0, 24, 0), (0.5, 4, 2), (0.99, 4, 3), (0.0, 1, 0)],
)
def test_windows_are_judged_at_their_depth_of_the_tower(
    depth: float, layers: int, expected: int
) -> None:
    assert window_layer(LocalWindows(depth=depth), layers) == expected - layers
