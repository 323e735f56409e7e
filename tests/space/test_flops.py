"""Costs against the published figures, and against a count of every matrix product."""

from __future__ import annotations

import csv
import random
from pathlib import Path

import pytest

from pruners import (
    BipartiteMatching,
    ClsAttention,
    ClusterAverage,
    Deduplicated,
    DensityPeaks,
    Determinantal,
    KeyNorm,
    LastTokenAttention,
    LeastDuplication,
    LocalWindows,
    MaxMinDistance,
    NearestReference,
    NoMerge,
    RaterAttention,
    Schedule,
    ScheduleMismatchError,
    Shape,
    SimilarityFusion,
    SimilarityWeighted,
    Stage,
    TopScores,
    Uniform,
    VisualSelfAttention,
    dense,
    published,
)
from pruners.errors import UnsupportedModelError
from pruners.shape import TextTowerShape, VisionShape
from space import PRESETS, breakdown, dense_cost, preset, price
from tests.space.matrix_products import matrix_products, summed

DATA = Path(__file__).parents[1] / "data"

PYRAMIDDROP = ((8, 288), (16, 144), (24, 72))
"""Its default: half of the tokens before layers 8, 16 and 24."""


def _decoder_stages(stages: tuple[tuple[int, int], ...], visual_tokens: int) -> Schedule:
    return Schedule(
        stages=tuple(
            Stage(layer=layer, retention=alive / visual_tokens, scorer=VisualSelfAttention())
            for layer, alive in stages
        )
    )


def _published_row(method: str, tokens: int, shape: Shape) -> Schedule:
    match method:
        case "pyramiddrop":
            return _decoder_stages(PYRAMIDDROP, shape.visual_tokens)
        case "uniform":
            retention = tokens / shape.visual_tokens
            return Schedule(stages=(Stage(layer=0, retention=retention, scorer=ClsAttention()),))
        case "dense":
            return dense(shape)
        case _:
            return published(method, tokens, shape)


def _published_figures() -> list[dict[str, str]]:
    lines = (DATA / "flops.csv").read_text().splitlines()
    return list(csv.DictReader(line for line in lines if not line.startswith("#")))


@pytest.mark.parametrize(
    "row", _published_figures(), ids=lambda row: f"{row['model']}-{row['method']}-{row['tokens']}"
)
def test_published_figure(row: dict[str, str]) -> None:
    shape = preset(row["model"]).model_copy(update={"text_tokens": int(row["text_tokens"])})
    assert (shape.tiles, shape.newline_tokens) == (int(row["tiles"]), int(row["newline_tokens"]))
    schedule = _published_row(row["method"], int(row["tokens"]), shape)
    cost = price(schedule, shape)
    predicted = cost.tflops if row["convention"] == "total" else cost.llm_macs
    if row["convention"] == "total" and not shape.prunes_before_projector:
        # In the authors' code the projector sees the kept tokens alone.
        spared = 1 - schedule.visual_tokens_per_layer(1, shape.visual_tokens)[0] / 2880
        predicted -= spared * cost.breakdown["projector"]
    assert predicted == pytest.approx(float(row["tera"]), rel=float(row["tolerance"]))
    if row["method"] in ("visiondrop", "desap", "pyramiddrop"):
        assert cost.mean_visual_tokens == pytest.approx(int(row["tokens"]), abs=0.5)


GROUPED_QUERY = Shape(
    name="grouped-query",
    decoder_layers=6,
    hidden_size=96,
    intermediate_size=200,
    attention_heads=6,
    key_value_heads=2,
    head_size=24,
    vocabulary_size=300,
    visual_tokens=49,
    text_tokens=11,
    dtype_bytes=4,
    vision=VisionShape(
        layers=3,
        hidden_size=32,
        intermediate_size=80,
        attention_heads=2,
        patches=49,
        patch_size=7,
        projection_size=16,
    ),
    text_tower=TextTowerShape(
        layers=2,
        hidden_size=24,
        intermediate_size=48,
        attention_heads=3,
        projection_size=16,
        tokens=9,
    ),
)


def _random_schedule(rng: random.Random, shape: Shape) -> Schedule:
    merges = [
        NoMerge(),
        NearestReference(),
        ClusterAverage(),
        SimilarityWeighted(),
        DensityPeaks(),
        BipartiteMatching(),
    ]
    selectors = [TopScores(), Deduplicated(), Determinantal(), MaxMinDistance()]
    layers = sorted(rng.sample(range(shape.decoder_layers), rng.randint(1, 4)))
    retention, stages = 1.0, []
    for layer in layers:
        # Rounded now and then, so that some stages do nothing and some drop everything.
        retention *= rng.choice([rng.random(), rng.random(), 1.0])
        if layer > 0 and rng.random() < 0.1:
            retention = 0.0
        reads = rng.choice(["previous", "next"])
        scorer = rng.choice(
            [
                VisualSelfAttention(mean=rng.choice(["causal", "bidirectional"])),
                LastTokenAttention(reads=reads),
                RaterAttention(reads=reads),
                KeyNorm(reads=reads),
                Uniform(),
            ]
        )
        pivots = LeastDuplication(text_pivots=0 if layer == 0 else rng.choice([0, 4]))
        selector = rng.choice([*selectors, pivots])
        if layer == 0:
            scorer = rng.choice(
                [
                    ClsAttention(),
                    SimilarityFusion(
                        text_tower="any",
                        weight=rng.choice([0, 0.01, 0.3, 0.99, 1]),
                        encoding=rng.choice(["qq", "qk", "vv", "kk"]),
                        alignment=rng.choice([True, False]),
                    ),
                ]
            )
        merge = rng.choice(merges)
        makes_tokens = isinstance(merge, NearestReference | DensityPeaks)
        stages.append(
            Stage(
                layer=layer,
                retention=retention,
                contextual=rng.choice([0, 0.2]) if makes_tokens else 0,
                scorer=scorer,
                selector=TopScores() if isinstance(scorer, SimilarityFusion) else selector,
                merge=merge,
            )
        )
    return Schedule(stages=tuple(stages))


@pytest.mark.parametrize("shape", [GROUPED_QUERY, PRESETS["llava-1.5-7b"]], ids=lambda s: s.name)
def test_every_part_is_the_sum_of_its_matrix_products(shape: Shape) -> None:
    rng = random.Random(0)
    for _ in range(200):
        schedule = _random_schedule(rng, shape)
        cost = price(schedule, shape)
        expected = summed(matrix_products(schedule, shape))
        parts = breakdown(schedule, shape)
        found = {part: round(tera * 1e12) for part, tera in parts.in_tera().items() if tera}
        assert found == expected, schedule
        assert cost.tflops == pytest.approx(sum(expected.values()) / 1e12, rel=1e-12)
        assert cost.breakdown == parts.in_tera()


def test_tiles_multiply_the_vision_side_and_leave_the_text_tower_alone() -> None:
    shape = preset("llava-next-7b")
    stage = Stage(
        layer=0,
        retention=0.25,
        contextual=0.25,  # 720 tokens, 180 of them contextual: both divide into five tiles
        scorer=SimilarityFusion(text_tower="any"),
        merge=NearestReference(),
    )
    schedule = Schedule(stages=(stage,))
    found = {k: round(v * 1e12) for k, v in breakdown(schedule, shape).in_tera().items() if v}
    assert found == summed(matrix_products(schedule, shape))


def test_llm_macs_count_visual_tokens_in_the_decoder_alone() -> None:
    shape = preset("llava-1.5-7b")
    schedule = published("visiondrop", 64)
    per_layer = schedule.visual_tokens_per_layer(32, 576)
    expected = sum(4 * n * 4096**2 + 2 * n * n * 4096 + 3 * n * 4096 * 11008 for n in per_layer)
    parts = breakdown(schedule, shape, "llm-macs")
    assert parts.total == expected
    assert parts.total == parts.decoder_linear + parts.decoder_attention
    longer = shape.model_copy(update={"text_tokens": 500})
    assert price(schedule, longer).llm_macs == price(schedule, shape).llm_macs


def test_visual_tokens_and_key_value_cache() -> None:
    cost = price(_decoder_stages(((2, 20), (5, 0)), 49), GROUPED_QUERY)
    assert cost.visual_tokens_per_layer == (49, 49, 20, 20, 20, 0)
    assert cost.mean_visual_tokens == pytest.approx((2 * 49 + 3 * 20) / 6)
    # Keys and values, 2 heads of 24 floats of 4 bytes, for 158 visual and 6 x 11 text positions.
    assert cost.kv_bytes == 2 * 2 * 24 * 4 * (158 + 66)


def test_dense_cost_is_the_cost_of_no_stages() -> None:
    for shape in PRESETS.values():
        cost = dense_cost(shape)
        assert cost == price(Schedule(), shape)
        assert cost.tflops == cost.dense_tflops == pytest.approx(sum(cost.breakdown.values()))
        assert set(cost.visual_tokens_per_layer) == {shape.visual_tokens}


def test_similarity_needs_a_text_tower_only_when_it_has_weight() -> None:
    shape = GROUPED_QUERY.model_copy(update={"text_tower": None})

    def schedule(weight: float) -> Schedule:
        scorer = SimilarityFusion(text_tower="any", weight=weight)
        return Schedule(stages=(Stage(layer=0, retention=0.5, scorer=scorer),))

    assert price(schedule(0), shape).tflops == price(schedule(0), GROUPED_QUERY).tflops
    with pytest.raises(UnsupportedModelError, match="no text tower"):
        price(schedule(0.5), shape)


def test_what_windows_and_scores_both_read_is_computed_once() -> None:
    def scoring(layer: int, selector: LocalWindows | TopScores) -> int:
        stage = Stage(layer=0, retention=0.5, scorer=ClsAttention(layer=layer), selector=selector)
        return breakdown(Schedule(stages=(stage,)), GROUPED_QUERY).scoring

    once = scoring(-1, TopScores())
    # The middle of three layers, 1.5, is rounded to the last one.
    assert scoring(-1, LocalWindows(depth=0.5)) == once
    assert scoring(-2, LocalWindows(depth=0.5)) == 2 * once
    assert scoring(-1, LocalWindows(depth=0.99)) == once


def test_a_stage_beyond_the_decoder_is_refused() -> None:
    with pytest.raises(ScheduleMismatchError, match=r"layer 24.*6 decoder layers.*scaled_to"):
        price(_decoder_stages(PYRAMIDDROP, 576), GROUPED_QUERY)
