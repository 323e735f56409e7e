"""Token counts and sizes of every family, against transformers' processors and configurations."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import (
    AutoConfig,
    CLIPVisionConfig,
    InternVLConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaNextConfig,
    LlavaNextProcessor,
    LlavaOnevisionConfig,
    LlavaOnevisionProcessor,
    MistralConfig,
    Qwen2_5_VLConfig,
    Qwen2Config,
    Qwen2VLImageProcessorPil,
    Qwen3VLConfig,
    SiglipVisionConfig,
    VideoLlavaConfig,
)

from pruners.errors import UnsupportedModelError
from pruners.reference_shapes import (
    INTERNVL3_8B,
    LLAVA_NEXT_7B,
    LLAVA_ONEVISION_7B,
    QWEN2_5_VL_7B,
    QWEN3_VL_8B,
    VIDEO_LLAVA_7B,
)
from pruners.shape import SUPPORTED_FAMILIES, Shape

sizes = st.tuples(st.integers(60, 2500), st.integers(60, 2500))


def processor(kind: type, config: Any, **attributes: Any) -> Any:
    """A processor that can do nothing but count: it has no tokenizer, which counting never uses."""
    counter = kind.__new__(kind)
    side = config.vision_config.image_size
    counter.image_processor = SimpleNamespace(
        image_grid_pinpoints=config.image_grid_pinpoints, size={"shortest_edge": side}
    )
    counter.patch_size = config.vision_config.patch_size
    for name, value in attributes.items():
        setattr(counter, name, value)
    return counter


LLAVA_NEXT = LlavaNextConfig()
LLAVA_ONEVISION = LlavaOnevisionConfig()


@given(size=sizes)
def test_llava_next_counts_like_its_processor(size: tuple[int, int]) -> None:
    counter = processor(LlavaNextProcessor, LLAVA_NEXT, num_additional_image_tokens=0)
    expected = counter._get_number_of_features(*size, 336, 336)
    shape = Shape.from_config(LLAVA_NEXT, image_size=size)
    assert shape.visual_tokens + shape.newline_tokens == expected
    tokens = shape.tokens_per_tile
    assert (sum(tokens), len(tokens)) == (shape.visual_tokens, shape.tiles)
    assert tokens[0] == max(tokens) == 576
    assert shape.projector_tokens == 576 * shape.tiles


@given(size=sizes)
def test_llava_onevision_counts_like_its_processor(size: tuple[int, int]) -> None:
    counter = processor(
        LlavaOnevisionProcessor,
        LLAVA_ONEVISION,
        num_image_tokens=729,
        vision_aspect_ratio="anyres_max_9",
    )
    expected = counter._get_number_of_features(*size, 384, 384)
    shape = Shape.from_config(LLAVA_ONEVISION, image_size=size)
    assert shape.visual_tokens + shape.newline_tokens == expected
    assert sum(shape.tokens_per_tile) == shape.visual_tokens
    assert shape.projector_tokens == 729 * shape.tiles


def test_llava_onevision_videos_count_like_its_processor() -> None:
    counter = processor(LlavaOnevisionProcessor, LLAVA_ONEVISION, num_image_tokens=729)
    for frames in (1, 8, 32):
        expected = counter._get_num_multimodal_tokens(video_sizes=[(frames, 384, 384)])
        shape = Shape.from_config(LLAVA_ONEVISION, frames=frames)
        assert [shape.visual_tokens + shape.newline_tokens] == expected.num_video_tokens
        assert (shape.tiles, shape.newline_tokens) == (frames, 1)


def test_several_images_of_llava_onevision_are_not_cut_into_tiles() -> None:
    shape = Shape.from_config(LLAVA_ONEVISION, images=3, image_size=(900, 900))
    assert (shape.visual_tokens, shape.newline_tokens, shape.tiles) == (3 * 729, 3, 3)


@pytest.mark.parametrize(("config", "patch"), [(Qwen2_5_VLConfig(), 14), (Qwen3VLConfig(), 16)])
@given(size=st.tuples(st.integers(100, 1200), st.integers(100, 1200)))
def test_qwen_counts_like_its_processor(config: Any, patch: int, size: tuple[int, int]) -> None:
    # Images that need neither be enlarged nor shrunk.
    bounds = {"shortest_edge": 1, "longest_edge": 10**9}
    counter = Qwen2VLImageProcessorPil(patch_size=patch, size=bounds)
    patches = counter.get_number_of_image_patches(*size)
    shape = Shape.from_config(config, image_size=size, images=2)
    assert shape.vision.patches == patches
    assert shape.visual_tokens == 2 * (patches // 4)
    # Frames go in pairs; the last one of an odd number is repeated.
    video = Shape.from_config(config, image_size=size, frames=5)
    assert (video.tiles, video.visual_tokens) == (3, 3 * (patches // 4))


def test_internvl_counts_tiles_and_frames() -> None:
    config = InternVLConfig()
    for arguments, tiles in (({}, 1), ({"tiles": 7}, 7), ({"images": 2, "tiles": 3}, 6)):
        shape = Shape.from_config(config, **arguments)
        assert (shape.tiles, shape.visual_tokens) == (tiles, tiles * config.image_seq_length)
    assert Shape.from_config(config, frames=8).visual_tokens == 8 * config.image_seq_length


def test_video_llava_frames_keep_their_cls_token_as_a_separator() -> None:
    config = VideoLlavaConfig()
    image, video = Shape.from_config(config), Shape.from_config(config, frames=8)
    assert (image.visual_tokens, image.newline_tokens) == (config.image_seq_length, 0)
    assert (video.visual_tokens, video.newline_tokens) == (2048, 8)
    assert video.visual_tokens + video.newline_tokens == config.video_seq_length


CLIP = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "patch_size": 14,
    "projection_dim": 768,
}
VICUNA = LlamaConfig(vocab_size=32000)
QWEN2_7B = {
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
}
REFERENCES = [
    (
        LLAVA_NEXT_7B,
        LlavaNextConfig(text_config=VICUNA, vision_config=CLIPVisionConfig(**CLIP, image_size=336)),
        {},
    ),
    (
        LLAVA_ONEVISION_7B,
        LlavaOnevisionConfig(text_config=Qwen2Config(**QWEN2_7B, vocab_size=152128)),
        {},
    ),
    (
        VIDEO_LLAVA_7B,
        VideoLlavaConfig(
            text_config=VICUNA, vision_config=CLIPVisionConfig(**CLIP, image_size=224)
        ),
        {"frames": 8},
    ),
    (
        QWEN2_5_VL_7B,
        Qwen2_5_VLConfig(
            text_config={**QWEN2_7B, "vocab_size": 152064},
            vision_config={
                "depth": 32,
                "hidden_size": 1280,
                "intermediate_size": 3420,
                "num_heads": 16,
                "window_size": 112,
                "fullatt_block_indexes": [7, 15, 23, 31],
                "out_hidden_size": 3584,
            },
        ),
        {},
    ),
    (
        QWEN3_VL_8B,
        Qwen3VLConfig(
            text_config={
                "hidden_size": 4096,
                "intermediate_size": 12288,
                "num_hidden_layers": 36,
                "num_attention_heads": 32,
                "num_key_value_heads": 8,
                "head_dim": 128,
                "vocab_size": 151936,
            },
            vision_config={"depth": 27, "deepstack_visual_indexes": [8, 16, 24]},
        ),
        {},
    ),
    (
        INTERNVL3_8B,
        InternVLConfig(text_config=Qwen2Config(**QWEN2_7B, vocab_size=151674)),
        {"tiles": 5},
    ),
]


@pytest.mark.parametrize(
    ("reference", "config", "inputs"), REFERENCES, ids=[case[0].name for case in REFERENCES]
)
def test_reference_shapes_are_those_of_real_configurations(
    reference: Shape, config: Any, inputs: dict[str, Any]
) -> None:
    shape = Shape.from_config(config, text_tower=reference.text_tower, **inputs)
    assert shape.model_copy(update={"name": reference.name}) == reference


@pytest.mark.parametrize("model_type", SUPPORTED_FAMILIES)
def test_files_that_leave_defaults_out_read_like_the_configuration(model_type: str) -> None:
    config = AutoConfig.for_model(model_type)
    values = config.to_diff_dict()
    parts = {"text_config": config.text_config, "vision_config": config.vision_config}
    for name, part in parts.items():
        values[name] = {**part.to_diff_dict(), "model_type": part.model_type}
    assert Shape.from_config(values) == Shape.from_config(config)


def test_older_files_of_qwen_name_the_decoder_outside() -> None:
    values = {
        "model_type": "qwen2_5_vl",
        "vocab_size": 152064,
        **QWEN2_7B,
        "torch_dtype": "bfloat16",
        "vision_config": {"hidden_size": 1280, "in_chans": 3, "spatial_patch_size": 14},
    }
    assert Shape.from_config(values, name="qwen2.5-vl-7b") == QWEN2_5_VL_7B


def test_a_mistral_decoder_has_its_own_defaults() -> None:
    values = LLAVA_NEXT.to_dict() | {"text_config": {"model_type": "mistral", "vocab_size": 32064}}
    expected = Shape.from_config(LlavaNextConfig(text_config=MistralConfig(vocab_size=32064)))
    assert Shape.from_config(values) == expected
    assert (expected.key_value_heads, expected.sliding_window) == (8, 4096)
    switched_off = {"model_type": "mistral", "sliding_window": None}
    assert Shape.from_config(values | {"text_config": switched_off}).sliding_window is None


def test_qwen_decoders_switch_their_window_on() -> None:
    for on in (False, True):
        decoder = Qwen2Config(use_sliding_window=on, sliding_window=1024)
        config = LlavaOnevisionConfig(text_config=decoder)
        assert Shape.from_config(config).sliding_window == (1024 if on else None)
    values = {"model_type": "qwen2", "sliding_window": 131072}  # as their files say
    config = LlavaOnevisionConfig().to_dict() | {"text_config": values}
    assert Shape.from_config(config).sliding_window is None


@pytest.mark.parametrize(
    ("config", "inputs", "says"),
    [
        (LLAVA_NEXT, {"frames": 4}, "frames is 4, but llava_next takes no videos"),
        (LLAVA_NEXT, {"tiles": 4}, "tiles is 4, but llava_next works them out; pass image_size"),
        (LLAVA_ONEVISION, {"frames": 4, "images": 2}, "frames is 4 and images is 2"),
        (LLAVA_ONEVISION, {"image_size": (0, 30)}, "image_size's height is 0; expected at least 1"),
        (InternVLConfig(), {"tiles": 0}, "tiles is 0; expected at least 1"),
    ],
)
def test_inputs_that_a_family_does_not_take_are_refused(
    config: Any, inputs: dict[str, Any], says: str
) -> None:
    with pytest.raises(UnsupportedModelError, match=says):
        Shape.from_config(config, **inputs)


def test_siglip_towers_say_whether_they_run_their_head() -> None:
    for head in (True, False):
        tower = SiglipVisionConfig(vision_use_head=head)
        shape = Shape.from_config(LlavaOnevisionConfig(vision_config=tower))
        assert (shape.vision.class_token, shape.vision.pooling_head) == (False, head)


@pytest.mark.parametrize(
    ("config", "changes", "says"),
    [
        (LlavaConfig(), {"vision_feature_layer": [-2, -5]}, r"layer is \[-2, -5\]; .* one layer"),
        (InternVLConfig(), {"vision_feature_layer": [-1]}, r"layer is \[-1\]; .* one layer"),
        (LlavaConfig(), {"vision_feature_select_strategy": "full"}, "'full', .* needs 'default'"),
        (VideoLlavaConfig(), {"vision_feature_select_strategy": "full"}, "needs 'default'"),
        (InternVLConfig(), {"vision_feature_select_strategy": "full"}, "needs 'default'"),
        (LLAVA_ONEVISION, {"vision_feature_select_strategy": "default"}, "needs 'full'"),
    ],
)
def test_models_that_no_schedule_can_be_applied_to_have_no_shape(
    config: Any, changes: dict[str, Any], says: str
) -> None:
    # The runtime refuses them in the same words, after the search: see test_applying.
    assert Shape.from_config(config).visual_tokens > 0
    with pytest.raises(UnsupportedModelError, match=says):
        Shape.from_config(config.to_dict() | changes)


def test_tile_tokens_must_add_up() -> None:
    values = LLAVA_NEXT_7B.model_dump() | {"tile_tokens": (576, 576)}
    with pytest.raises(ValueError, match=r"2 tiles of 1152 tokens together; expected 5 tiles"):
        Shape.model_validate(values)
