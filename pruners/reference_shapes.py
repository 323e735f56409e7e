"""Shapes of well-known checkpoints, read off the sizes in their public ``config.json`` files.

Sources, on the Hugging Face hub: llava-hf/llava-v1.6-vicuna-7b-hf,
llava-hf/llava-onevision-qwen2-7b-ov-hf, LanguageBind/Video-LLaVA-7B-hf,
Qwen/Qwen2.5-VL-7B-Instruct, Qwen/Qwen3-VL-8B-Instruct and OpenGVLab/InternVL3-8B-hf. Only
`LLAVA_NEXT_7B` and `pruners.shape.LLAVA_1_5_7B` have published costs to be held against.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pruners.shape import LLAVA_1_5_7B, Shape

# Vicuna's own vocabulary, as in the published figures; the checkpoints pad it to 32,064.
_VICUNA_7B = {"model_type": "llama", "vocab_size": 32000}

_QWEN2_7B = {
    "model_type": "qwen2",
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
}

_CLIP_LARGE = {
    "model_type": "clip_vision_model",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "patch_size": 14,
    "projection_dim": 768,
}


def _read(name: str, config: Mapping[str, Any], **inputs: Any) -> Shape:
    return Shape.from_config({**config, "dtype": "bfloat16"}, name=name, **inputs)


LLAVA_NEXT_7B = _read(
    "llava-next-7b",
    {
        "model_type": "llava_next",
        "text_config": _VICUNA_7B,
        "vision_config": {**_CLIP_LARGE, "image_size": 336},
    },
    text_tower=LLAVA_1_5_7B.text_tower,
)
"""LLaVA-NeXT-7B (Vicuna) on a square image of five tiles: the shape of the papers."""

LLAVA_ONEVISION_7B = _read(
    "llava-onevision-7b",
    {
        "model_type": "llava_onevision",
        "text_config": {**_QWEN2_7B, "vocab_size": 152128},
        "vision_config": {
            "model_type": "siglip_vision_model",
            "hidden_size": 1152,
            "intermediate_size": 4304,
            "num_hidden_layers": 26,
            "num_attention_heads": 16,
            "image_size": 384,
            "patch_size": 14,
            "vision_use_head": False,
        },
    },
)
"""LLaVA-OneVision-7B (Qwen2, SigLIP) on a square image of five tiles."""

VIDEO_LLAVA_7B = _read(
    "video-llava-7b",
    {
        "model_type": "video_llava",
        "text_config": _VICUNA_7B,
        "vision_config": {**_CLIP_LARGE, "image_size": 224},
    },
    frames=8,
)
"""Video-LLaVA-7B on eight frames: 2,048 visual tokens, as in DeSAP's comparison."""

QWEN2_5_VL_7B = _read(
    "qwen2.5-vl-7b",
    {
        "model_type": "qwen2_5_vl",
        "text_config": {**_QWEN2_7B, "model_type": "qwen2_5_vl_text", "vocab_size": 152064},
        "vision_config": {"hidden_size": 1280},
    },
)
"""Qwen2.5-VL-7B on an image of 672 x 672 pixels: 576 visual tokens."""

QWEN3_VL_8B = _read(
    "qwen3-vl-8b",
    {
        "model_type": "qwen3_vl",
        "text_config": {
            "model_type": "qwen3_vl_text",
            "vocab_size": 151936,
            "hidden_size": 4096,
            "intermediate_size": 12288,
            "num_hidden_layers": 36,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 128,
        },
        "vision_config": {},
    },
)
"""Qwen3-VL-8B on an image of 768 x 768 pixels: 576 visual tokens."""

INTERNVL3_8B = _read(
    "internvl3-8b",
    {
        "model_type": "internvl",
        "text_config": {**_QWEN2_7B, "vocab_size": 151674},
        "vision_config": {},
    },
    tiles=5,
)
"""InternVL3-8B on a square image of five tiles, the thumbnail among them: 1,280 visual tokens."""
