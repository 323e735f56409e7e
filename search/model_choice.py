"""Which model is measured, why, and what schedules are priced for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from pruners.errors import ModelError
from pruners.shape import LLAVA_1_5_7B, Shape
from search.analytic import AnalyticEvaluator
from search.evaluators import Evaluator
from space.shapes import PRESETS, preset, shape_from_pretrained

EMBEDDED = "embedded"
ANALYTIC = "analytic"

DEFAULT_TARGET = LLAVA_1_5_7B.name
"""What schedules are priced for by default, so that 2 TFLOPs are the papers' 2 TFLOPs."""

DEFAULT_GPU_MODEL = "llava-hf/llava-1.5-7b-hf"
DEFAULT_GPU_MODEL_BYTES = 16 * 1024**3
"""Memory that `DEFAULT_GPU_MODEL` needs: 14 GB of weights in half precision, and a cache."""

HOW_TO_CHOOSE = "choose with --model embedded, a hub name or a folder"


@dataclass(frozen=True)
class ModelChoice:
    """The model to measure.

    Attributes:
        name: ``"embedded"`` or ``"analytic"``.
        chosen_by_user: Whether the user named it.
    """

    name: str
    chosen_by_user: bool


def choose_model(model: str | None) -> ModelChoice:
    """Choose the model to measure; nothing is loaded.

    Args:
        model: What the user named: ``"embedded"``, ``"analytic"`` (a synthetic problem), a hub
            name or a folder; None for no choice.

    Returns:
        The choice.

    Raises:
        ModelError: The model has no tasks to measure on, or the folder does not exist.
    """
    if model is None:
        return ModelChoice(EMBEDDED, chosen_by_user=False)
    if model in (EMBEDDED, ANALYTIC):
        return ModelChoice(model, chosen_by_user=True)
    if not _is_hub_name(model) and not Path(model).is_dir():
        raise ModelError(
            f"--model {model}: there is no such folder; pass 'embedded', a hub name such as "
            f"{DEFAULT_GPU_MODEL}, or a folder with a model"
        )
    raise ModelError(
        f"--model {model}: this release has no benchmark tasks for it. Pass --model embedded to "
        f"search on the embedded model, with --target {model} to write and price the schedule "
        "for yours"
    )


def explain_choice(choice: ModelChoice) -> str:
    """Say in one line which model is measured, why, and how to choose.

    Args:
        choice: The choice. When the user made none, a CUDA device is looked for, which imports
            torch.

    Returns:
        The line.
    """
    if choice.chosen_by_user:
        return f"Model: {choice.name}, as --model says"
    if _cuda_device_holds(DEFAULT_GPU_MODEL_BYTES):
        reason = (
            f"a CUDA device could hold {DEFAULT_GPU_MODEL}, but this release has no benchmark "
            "tasks for it"
        )
    else:
        reason = f"no CUDA device here can hold {DEFAULT_GPU_MODEL}"
    return f"Model: {choice.name}, because {reason}; {HOW_TO_CHOOSE}"


def make_evaluator(choice: ModelChoice) -> Evaluator:
    """Make what measures the chosen model; weights are loaded with the first score.

    Args:
        choice: The choice.

    Returns:
        The evaluator.

    Raises:
        ModelError: The model's files are missing.
    """
    if choice.name == ANALYTIC:
        return AnalyticEvaluator()
    from search.embedded_evaluator import EmbeddedEvaluator

    return EmbeddedEvaluator()


def target_shape(target: str | None, evaluator: Evaluator) -> Shape:
    """Find the shape that schedules are written and priced for.

    Args:
        target: Preset, folder, hub name, or ``"embedded"`` for the measured model's own shape;
            None for LLaVA-1.5-7B.

    Returns:
        The shape, with a text tower.

    Raises:
        ModelError: The folder or hub name has no readable configuration.
        UnsupportedModelError: The model's family has no adapter.
    """
    if target is None:
        return preset(DEFAULT_TARGET)
    if target in (EMBEDDED, evaluator.name):
        return evaluator.shape
    if target in PRESETS:
        return preset(target)
    if not _is_hub_name(target) and not Path(target).is_dir():
        raise ModelError(
            f"--target {target}: there is no such preset or folder; pass one of "
            f"{', '.join(PRESETS)}, 'embedded', a hub name such as {DEFAULT_GPU_MODEL}, or a "
            "folder with a model"
        )
    # CLIP ViT-L/14-336 is the tower of every model of this family, and the text tower is its pair.
    return shape_from_pretrained(target, text_tower=LLAVA_1_5_7B.text_tower)


def _is_hub_name(name: str) -> bool:
    """Whether a name has the form of a hub name, owner/model; asking the hub can take long."""
    return re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", name) is not None


def _cuda_device_holds(needed: int) -> bool:
    import torch

    return torch.cuda.is_available() and any(
        torch.cuda.get_device_properties(device).total_memory >= needed
        for device in range(torch.cuda.device_count())
    )
