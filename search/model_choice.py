"""Which model is measured, why, and what schedules are priced for."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pruners.errors import ModelError, SettingsError
from pruners.paths import is_folder
from pruners.shape import LLAVA_1_5_7B, Shape
from search.analytic import AnalyticEvaluator
from search.evaluators import Evaluator
from search.tasks.evaluator import TaskEvaluator
from search.tasks.settings import TaskSettings
from space.shapes import PRESETS, preset, shape_from_pretrained

EMBEDDED = "embedded"
ANALYTIC = "analytic"

DEFAULT_TARGET = LLAVA_1_5_7B.name
"""What schedules are priced for by default, so that 2 TFLOPs are the papers' 2 TFLOPs."""

DEFAULT_GPU_MODEL = "llava-hf/llava-1.5-7b-hf"
DEFAULT_GPU_MODEL_BYTES = 16 * 1024**3
"""Memory that `DEFAULT_GPU_MODEL` needs: 14 GB of weights in half precision, and a cache."""

PAPER_TASKS = "gqa,pope,mmbench_en_dev_static,scienceqa_img,vqav2_val,textvqa_val"
"""Benchmarks of the papers that need no judge, as an example for messages."""

HOW_TO_CHOOSE = "choose with --model embedded, or a hub name or folder and --tasks"


NO_TASKS = TaskSettings()
"""No benchmarks: the models that ship with this program bring their own."""


@dataclass(frozen=True)
class ModelChoice:
    """The model to measure.

    Attributes:
        name: ``"embedded"``, ``"analytic"``, a hub name or a folder.
        chosen_by_user: Whether the user named it.
    """

    name: str
    chosen_by_user: bool


def choose_model(model: str | None, tasks: TaskSettings = NO_TASKS) -> ModelChoice:
    """Choose the model to measure; nothing is loaded.

    Args:
        model: What the user named: ``"embedded"``, ``"analytic"`` (a synthetic problem), a hub
            name or a folder; None for no choice.
        tasks: The benchmarks that the user named; by default none.

    Returns:
        The choice.

    Raises:
        ModelError: The folder does not exist.
        SettingsError: The model has no tasks to measure on, or it brings its own and settings for
            others are given.
    """
    if model is None and not tasks.names:
        _check_nothing_else_given(tasks)
        return ModelChoice(EMBEDDED, chosen_by_user=False)
    if model is None:
        raise SettingsError(
            f"--tasks {','.join(tasks.names)} needs a model; pass --model {DEFAULT_GPU_MODEL}, "
            "another hub name, or a folder"
        )
    if model in (EMBEDDED, ANALYTIC):
        if tasks.names:
            raise SettingsError(
                f"--model {model} has its own tasks; leave --tasks out, or pass --model with a hub "
                "name or a folder"
            )
        _check_nothing_else_given(tasks)
        return ModelChoice(model, chosen_by_user=True)
    if not _is_hub_name(model) and not is_folder(model):
        raise ModelError(
            f"--model {model}: there is no such folder; pass 'embedded', a hub name such as "
            f"{DEFAULT_GPU_MODEL}, or a folder with a model"
        )
    if not tasks.names:
        raise SettingsError(
            f"--model {model} needs benchmarks to be measured on; pass --tasks {PAPER_TASKS} or "
            f"some of them, or --model embedded with --target {model} to measure on the embedded "
            "model and only price schedules for this one"
        )
    return ModelChoice(model, chosen_by_user=True)


def _check_nothing_else_given(tasks: TaskSettings) -> None:
    """Refuse settings of benchmarks that a model with tasks of its own would not heed."""
    given = [name for name, value in tasks if value != getattr(NO_TASKS, name)]
    if given:
        options = ["--task-data" if name == "data" else f"--{name}" for name in given]
        raise SettingsError(
            f"{', '.join(options).replace('_', '-')}: only models that are measured with --tasks "
            "take this; pass --tasks and --model too, or leave it out"
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
            f"no tasks were named; a CUDA device could hold {DEFAULT_GPU_MODEL}, to be measured "
            f"with --tasks {PAPER_TASKS}"
        )
    else:
        reason = f"no CUDA device here can hold {DEFAULT_GPU_MODEL}"
    return f"Model: {choice.name}, because {reason}; {HOW_TO_CHOOSE}"


def make_evaluator(choice: ModelChoice, tasks: TaskSettings = NO_TASKS, seed: int = 0) -> Evaluator:
    """Make what measures the chosen model; weights are loaded with the first score.

    Args:
        choice: The choice.
        tasks: The benchmarks that the user named; by default none.
        seed: Seed of their subsets; 0 by default.

    Returns:
        The evaluator.

    Raises:
        ModelError: The model's files are missing.
        SettingsError: A task is unknown or needs a judge, or lmms-eval is not installed.
    """
    if choice.name == ANALYTIC:
        return AnalyticEvaluator()
    if choice.name != EMBEDDED:
        return TaskEvaluator(choice.name, tasks, seed)
    from search.embedded_evaluator import EmbeddedEvaluator

    return EmbeddedEvaluator()


def target_shape(target: str | None, evaluator: Evaluator) -> Shape:
    """Find the shape that schedules are written and priced for.

    Args:
        target: Preset, folder, hub name, or ``"embedded"`` for the embedded model; None for the
            measured model itself, or LLaVA-1.5-7B where that one ships with this program.

    Returns:
        The shape, with a text tower.

    Raises:
        ModelError: The folder or hub name has no readable configuration.
        UnsupportedModelError: The model's family has no adapter.
    """
    if target is None and isinstance(evaluator, TaskEvaluator):
        return evaluator.shape
    if target is None:
        return preset(DEFAULT_TARGET)
    if target == evaluator.name:
        return evaluator.shape
    if target == EMBEDDED:
        from search.embedded_evaluator import EmbeddedEvaluator

        return EmbeddedEvaluator().shape
    if target in PRESETS:
        return preset(target)
    if not _is_hub_name(target) and not is_folder(target):
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
