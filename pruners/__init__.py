"""Pruning schedules, and the runtime that applies them to Hugging Face models.

Schedules load in milliseconds; torch and transformers are imported when the runtime is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pruners.errors import PrunetuneError, ScheduleError, ScheduleMismatchError
from pruners.files import json_schema, load_schedule, save_schedule
from pruners.merges import (
    BipartiteMatching,
    ClusterAverage,
    DensityPeaks,
    NearestReference,
    NoMerge,
    SimilarityWeighted,
)
from pruners.published import dense, published
from pruners.schedule import Cost, Evidence, Provenance, Schedule, SplitEvidence
from pruners.scorers import (
    ClsAttention,
    Downsampling,
    InformationFlow,
    KeyNorm,
    LastTokenAttention,
    QuestionRelevance,
    Random,
    RaterAttention,
    SimilarityFusion,
    TokenMatching,
    Uniform,
    VisualSelfAttention,
)
from pruners.selectors import (
    Deduplicated,
    Determinantal,
    LeastDuplication,
    LocalWindows,
    MaxMinDistance,
    TopScores,
)
from pruners.shape import Shape
from pruners.stages import Stage

if TYPE_CHECKING:
    from pruners.runtime import PrunedModel, apply_schedule
    from pruners.text_tower import TextTower
    from pruners.vision import encode_images

__all__ = [
    "BipartiteMatching",
    "ClsAttention",
    "ClusterAverage",
    "Cost",
    "Deduplicated",
    "DensityPeaks",
    "Determinantal",
    "Downsampling",
    "Evidence",
    "InformationFlow",
    "KeyNorm",
    "LastTokenAttention",
    "LeastDuplication",
    "LocalWindows",
    "MaxMinDistance",
    "NearestReference",
    "NoMerge",
    "Provenance",
    "PrunedModel",
    "PrunetuneError",
    "QuestionRelevance",
    "Random",
    "RaterAttention",
    "Schedule",
    "ScheduleError",
    "ScheduleMismatchError",
    "Shape",
    "SimilarityFusion",
    "SimilarityWeighted",
    "SplitEvidence",
    "Stage",
    "TextTower",
    "TokenMatching",
    "TopScores",
    "Uniform",
    "VisualSelfAttention",
    "apply_schedule",
    "dense",
    "encode_images",
    "json_schema",
    "load_schedule",
    "published",
    "save_schedule",
]

# The names that need torch, and the modules that hold them.
_RUNTIME = {
    "PrunedModel": "pruners.runtime",
    "apply_schedule": "pruners.runtime",
    "TextTower": "pruners.text_tower",
    "encode_images": "pruners.vision",
}


def __getattr__(name: str) -> Any:
    if name in _RUNTIME:
        return getattr(import_module(_RUNTIME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
