"""Loading a model, its processor and its schedule for benchmarks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForImageTextToText,
    AutoProcessor,
)

from pruners import PrunedModel, Schedule, Shape, apply_schedule, load_schedule
from pruners.adapters import FAMILIES
from pruners.errors import (
    ModelError,
    ScheduleMismatchError,
    SettingsError,
    UnsupportedModelError,
    shown,
)
from pruners.loading_errors import LOADING_ERRORS
from pruners.missing_weights import check_whole

_DTYPES = ("auto", "float32", "float16", "bfloat16")
_HASH_START = 8
"""Fewest characters of a schedule's hash that count as naming it."""


@dataclass(frozen=True)
class ModelSettings:
    """Which model answers, and how.

    Attributes:
        pretrained: Folder or hub name of the model and its processor.
        schedule: File of the schedule; None for the dense model.
        schedule_hash: Start of the content hash that the schedule must have, 8 characters or more;
            None for any.
        text_tower: Folder or hub name of the CLIP checkpoint to use instead of the one that the
            schedule names.
        revision: Revision on the hub, of the model and its processor.
        device: Device to run on, such as ``"cpu"`` or ``"cuda:1"``.
        dtype: Floating-point type, one of ``"auto"`` (the checkpoint's own), ``"float32"``,
            ``"float16"`` and ``"bfloat16"``.
        attn_implementation: Attention implementation, by transformers' names; None for its choice.
        image_backend: Backend of the image processor, ``"pil"`` or ``"torchvision"``, which differ
            a little in their pixels; None for transformers' choice.
    """

    pretrained: str
    schedule: str | None = None
    schedule_hash: str | None = None
    text_tower: str | None = None
    revision: str = "main"
    device: str = "cpu"
    dtype: str = "auto"
    attn_implementation: str | None = None
    image_backend: str | None = None


@dataclass(frozen=True)
class LoadedModel:
    """A model that is ready to answer.

    Attributes:
        model: The model, on its device, with the schedule applied to it.
        processor: Its processor.
        handle: Handle of the schedule; None for the dense model.
        schedule_hash: Content hash of the schedule as its file has it; None for the dense model.
        notes: What a reader of the results should know, in sentences.
    """

    model: Any
    processor: Any
    handle: PrunedModel | None = None
    schedule_hash: str | None = None
    notes: tuple[str, ...] = ()


def load(settings: ModelSettings) -> LoadedModel:
    """Load a model with its schedule.

    The schedule is read and held against the model's configuration first, which takes milliseconds.

    Args:
        settings: Which model, and how.

    Returns:
        The model.

    Raises:
        ScheduleError: The schedule's file cannot be read, or is no schedule.
        ScheduleMismatchError: The schedule does not fit the model.
        UnsupportedModelError: Schedules cannot be applied to the model's family.
        ModelError: The model, its processor or the text tower cannot be loaded.
        SettingsError: A setting has a wrong value.
    """
    if settings.dtype not in _DTYPES:
        raise SettingsError(f"dtype={settings.dtype}: expected one of {', '.join(_DTYPES)}")
    given = None if settings.schedule is None else _read_schedule(settings)
    config = _from_pretrained(AutoConfig, settings, "configuration")
    schedule, notes = (None, ()) if given is None else _fitted(given, config, settings)
    processor = _from_pretrained(AutoProcessor, settings, "processor")
    if settings.image_backend:  # not for videos, which have the one backend of torchvision
        processor.image_processor = _from_pretrained(
            AutoImageProcessor, settings, "image processor", backend=settings.image_backend
        )
    if not getattr(processor, "chat_template", None):
        raise ModelError(
            f"the processor of {settings.pretrained} has no chat template, which writes the "
            "prompts; save one with it as chat_template.jinja"
        )
    tokenizer = processor.tokenizer
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    model, report = _from_pretrained(
        AutoModelForImageTextToText,
        settings,
        "model",
        output_loading_info=True,
        dtype=settings.dtype if settings.dtype == "auto" else getattr(torch, settings.dtype),
        attn_implementation=settings.attn_implementation,
    )
    check_whole(f"the model of pretrained={settings.pretrained}", report["missing_keys"])
    model = model.eval().to(settings.device)
    if given is None or schedule is None:
        return LoadedModel(model, processor)
    handle = _apply(model, schedule, processor, settings)
    return LoadedModel(model, processor, handle, given.content_hash, notes)


def _from_pretrained(loader: Any, settings: ModelSettings, what: str, **options: Any) -> Any:
    try:
        return loader.from_pretrained(
            settings.pretrained, revision=settings.revision, trust_remote_code=False, **options
        )
    except ImportError as error:
        # Processors of families with videos need torchvision, whatever the task shows.
        raise ModelError(
            f"the {what} of pretrained={settings.pretrained} needs a library that is not "
            f"installed; install it in the build for your torch: {' '.join(str(error).split())}"
        ) from error
    except LOADING_ERRORS as error:
        raise ModelError(
            f"the {what} of pretrained={settings.pretrained} cannot be loaded ({error}); pass the "
            "hub name or the folder of a vision-language model"
        ) from error


def _read_schedule(settings: ModelSettings) -> Schedule:
    assert settings.schedule is not None
    schedule = load_schedule(settings.schedule)
    wanted = settings.schedule_hash
    if wanted is not None:
        if len(wanted) < _HASH_START:
            raise SettingsError(
                f"schedule_hash={wanted}: expected {_HASH_START} characters or more of the "
                f"schedule's content hash, which is {schedule.content_hash}"
            )
        if not schedule.content_hash.startswith(wanted):
            raise SettingsError(
                f"schedule_hash={wanted}, but {settings.schedule} has the content hash "
                f"{schedule.content_hash}; pass another file, or that hash"
            )
    return schedule


def _fitted(
    schedule: Schedule, config: Any, settings: ModelSettings
) -> tuple[Schedule, tuple[str, ...]]:
    """Carry a schedule over to the model's depth, and say so."""
    family = getattr(config, "model_type", None)
    if family not in FAMILIES:
        raise UnsupportedModelError(
            f"{settings.schedule} cannot be applied to pretrained={settings.pretrained}, whose "
            f"model_type is {shown(family)}; supported model types: {', '.join(FAMILIES)}"
        )
    depth = config.get_text_config().num_hidden_layers
    written_for = schedule.shape
    if written_for is None and schedule.stages and schedule.stages[-1].layer >= depth:
        raise ScheduleMismatchError(
            f"{settings.schedule} has a stage before layer {schedule.stages[-1].layer}, but "
            f"pretrained={settings.pretrained} has {depth} decoder layers, and the schedule does "
            "not name the shape that it was made for; use one that does"
        )
    if written_for is None or not schedule.stages or written_for.decoder_layers == depth:
        return schedule, ()
    scaled = schedule.scaled_to(Shape.from_config(config, name=settings.pretrained))
    note = (
        f"{settings.schedule} is priced for {written_for.name} with {written_for.decoder_layers} "
        f"decoder layers; its stages before layers {_layers(schedule)} were moved to "
        f"{_layers(scaled)} of {settings.pretrained}, which has {depth}, and its cost does "
        "not hold there"
    )
    return scaled, (note,)


def _layers(schedule: Schedule) -> str:
    return ", ".join(str(stage.layer) for stage in schedule.stages)


def _apply(model: Any, schedule: Schedule, processor: Any, settings: ModelSettings) -> PrunedModel:
    try:
        return apply_schedule(model, schedule, processor=processor, text_tower=settings.text_tower)
    except ScheduleMismatchError as error:
        raise ScheduleMismatchError(
            f"{settings.schedule} does not fit pretrained={settings.pretrained}: {error}"
        ) from error
