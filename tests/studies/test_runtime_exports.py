from __future__ import annotations

from typing import Any

import pytest
from transformers import Qwen2_5_VLConfig

from pruners import Schedule, published
from pruners.errors import RuntimeExportError
from pruners.merges import BipartiteMatching, NearestReference
from pruners.scorers import KeyNorm, SimilarityFusion, TokenMatching, Uniform, VisualSelfAttention
from pruners.selectors import Determinantal, LeastDuplication, TopScores
from pruners.shape import LLAVA_1_5_7B, Shape
from pruners.stages import Stage
from space import PRESETS
from studies.runtime_exports import RUNTIMES, export_to

IMAGE = PRESETS["qwen2.5-vl-7b"]
VIDEO = Shape.from_config(Qwen2_5_VLConfig(), frames=16, image_size=(280, 420))


def schedule(shape: Shape | None, positions: Any = "original", **stage: Any) -> Schedule:
    values: dict[str, Any] = {"layer": 0, "retention": 0.25, "scorer": Uniform()} | stage
    return Schedule(stages=(Stage(**values),), shape=shape, positions=positions)


def kept_by_evs(tokens_per_frame: int, frames: int, rate: float) -> int:
    """The rule of vllm/multimodal/evs.py."""
    return max(tokens_per_frame, int(tokens_per_frame * frames * (1 - rate)))


@pytest.mark.parametrize("retention", [0.126, 0.2, 1 / 3, 0.5, 0.77, 0.999, 1.0])
def test_vllm_keeps_as_many_tokens_of_a_video(retention: float) -> None:
    given = schedule(
        VIDEO,
        retention=retention,
        scorer=VisualSelfAttention(),
        scope="global",
        positions="compact",
    )
    settings = export_to("vllm", given)
    flag, rate = settings.arguments
    assert flag == "--video-pruning-rate"
    wanted = given.counts(VIDEO.visual_tokens, VIDEO.tokens_per_tile)[0].alive
    assert kept_by_evs(VIDEO.tokens_per_tile[0], VIDEO.tiles, float(rate)) == wanted
    assert settings.kept_tokens == wanted
    assert settings.options == {"video_pruning_rate": float(rate)}
    assert "visual-self-attention" in settings.differences[0]


@pytest.mark.parametrize("percent", [1, 30, 50, 70, 75, 99])
def test_openvino_drops_whole_percentages(percent: int) -> None:
    given = schedule(IMAGE, retention=1 - percent / 100, selector=Determinantal())
    settings = export_to("openvino-genai", given)
    assert settings.options == {"pruning_ratio": percent, "relevance_weight": 0.0}
    assert settings.environment == {"CDPRUNER_SPLIT_THRESHOLD": "0"}
    assert settings.differences == ()


def test_openvino_never_keeps_more_than_the_schedule() -> None:
    settings = export_to(
        "openvino-genai", schedule(IMAGE, retention=0.246, selector=Determinantal())
    )
    assert settings.options["pruning_ratio"] == 76
    assert "24 % of the tokens are kept instead of 24.6 %" in settings.differences[0]


@pytest.mark.parametrize("shape", [IMAGE, VIDEO])
@pytest.mark.parametrize("retention", [0.1, 0.25, 1 / 3, 0.9])
def test_tensorrt_edge_llm_keeps_as_many_tokens_of_each_image(
    shape: Shape, retention: float
) -> None:
    selector = LeastDuplication(image_pivots=6, text_pivots=0)
    given = schedule(shape, retention=retention, scorer=KeyNorm(), selector=selector)
    settings = export_to("tensorrt-edge-llm", given)
    words = list(settings.arguments)
    ratio = float(words[words.index("--dartReductionRatio") + 1])
    per_image = shape.tokens_per_tile[0]
    # Its rule, in whole numbers: ceil(tokens * (1 - ratio)).
    kept = -(-per_image * round((1 - ratio) * 10**6) // 10**6)
    assert kept == given.tile_counts(per_image).alive
    assert settings.kept_tokens == kept * shape.tiles
    assert words[0] == "--visualPrune"
    assert words[words.index("--dartPivotImageTokens") + 1] == "6"
    assert words[words.index("--dartPivotTextTokens") + 1] == "0"


DUPLICATES = LeastDuplication(text_pivots=0)


@pytest.mark.parametrize(
    ("runtime", "given", "says"),
    [
        ("vllm", schedule(IMAGE), "videos only"),
        ("vllm", schedule(VIDEO, retention=0.1), "keeps the first frame whole, 150 tokens"),
        ("vllm", schedule(LLAVA_1_5_7B), "the schedule is for llava-1.5-7b"),
        ("vllm", schedule(None), "does not say which shape"),
        ("vllm", Schedule(shape=VIDEO), "prunes nothing"),
        ("sglang", schedule(VIDEO), "NemotronH_Nano_VL_V2 only"),
        ("sglang", schedule(None), "no family"),
        ("openvino-genai", schedule(IMAGE, selector=TopScores()), "selector is 'top-scores'"),
        (
            "openvino-genai",
            schedule(IMAGE, retention=0.001, selector=Determinantal()),
            "at most 99",
        ),
        (
            "openvino-genai",
            schedule(IMAGE, scorer=VisualSelfAttention(), selector=Determinantal()),
            "weighs it by 'visual-self-attention'",
        ),
        ("tensorrt-edge-llm", schedule(IMAGE), "selector is 'top-scores'"),
        (
            "tensorrt-edge-llm",
            schedule(IMAGE, "compact", selector=DUPLICATES),
            "positions 'compact'",
        ),
        (
            "tensorrt-edge-llm",
            schedule(VIDEO, scope="global", selector=DUPLICATES),
            "scope 'global'",
        ),
        ("tensorrt-edge-llm", schedule(IMAGE, retention=1.0, selector=DUPLICATES), "100 %"),
        (
            "tensorrt-edge-llm",
            schedule(IMAGE, selector=LeastDuplication(image_pivots=65, text_pivots=0)),
            "64 pivots",
        ),
        ("tensorrt-edge-llm", published("dart", 64, IMAGE), "drops some before layer"),
        (
            "openvino-genai",
            schedule(IMAGE, contextual=0.1, merge=NearestReference()),
            "merges none",
        ),
        (
            "vllm",
            schedule(VIDEO, scorer=SimilarityFusion(text_tower="c", keep_cls=True)),
            "CLS token",
        ),
        ("nothing", schedule(IMAGE), "vllm, sglang, openvino-genai, tensorrt-edge-llm"),
    ],
)
def test_what_cannot_be_said_there_is_refused_with_the_reason(
    runtime: str, given: Schedule, says: str
) -> None:
    with pytest.raises(RuntimeExportError, match=says):
        export_to(runtime, given)


def test_tokens_that_leave_inside_the_tower_are_refused() -> None:
    given = schedule(VIDEO, scorer=TokenMatching(), merge=BipartiteMatching())
    with pytest.raises(RuntimeExportError, match="merges none"):
        export_to("vllm", given)


@pytest.mark.parametrize(
    ("runtime", "given"),
    [
        ("vllm", schedule(VIDEO)),
        ("openvino-genai", schedule(IMAGE, selector=Determinantal())),
        ("tensorrt-edge-llm", schedule(IMAGE, selector=DUPLICATES)),
    ],
)
def test_every_export_says_what_was_read(runtime: str, given: Schedule) -> None:
    settings = export_to(runtime, given)
    assert settings.runtime == runtime
    assert settings.read
    assert type(settings).model_validate_json(settings.model_dump_json()) == settings


def test_the_runtimes_of_the_documentation_are_there() -> None:
    assert list(RUNTIMES) == ["vllm", "sglang", "openvino-genai", "tensorrt-edge-llm"]
