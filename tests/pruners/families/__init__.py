"""Tiny checkpoints with random weights, one builder per model family."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from .internvl import build_internvl
from .llava import build_llava
from .llava_next import build_llava_next, build_llava_next_mistral
from .llava_onevision import build_llava_onevision
from .qwen import build_qwen2_5_vl, build_qwen3_vl
from .tiny import TinyModel
from .video_llava import build_video_llava

FAMILIES: dict[str, Callable[[Path], TinyModel]] = {
    "llava": build_llava,
    "llava-grouped-queries": partial(build_llava, key_value_heads=2),
    "llava_next": build_llava_next,
    "llava_next-mistral": build_llava_next_mistral,
    "llava_onevision": build_llava_onevision,
    "video_llava": build_video_llava,
    "qwen2_5_vl": build_qwen2_5_vl,
    "qwen3_vl": build_qwen3_vl,
    "internvl": build_internvl,
}
"""A new family is one line here; the conformance tests then run on it."""

__all__ = ["FAMILIES", "TinyModel", "build_llava"]
