"""The one model that all schedules are measured on."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pruners.errors import ModelError
from pruners.loading_errors import LOADING_ERRORS
from pruners.missing_weights import check_whole
from search.quietening import show_no_progress_bars
from search.tasks.hub import check_access
from search.tasks.settings import DType

if TYPE_CHECKING:
    import torch

_HASHED_WHOLE = 32 * 1024**2
"""Bytes up to which a file counts by its whole content."""
_SAMPLE = 64 * 1024
"""Bytes that are read at a time of larger files: weights that were trained on differ in each."""
_DISTANCE = 4 * 1024**2
"""Bytes from one of these to the next, fewer than a weight matrix of large models has."""


@dataclass(frozen=True)
class LiveModel:
    """A loaded model and what prepares its inputs.

    Attributes:
        model: The model, in evaluation mode.
        processor: Its processor, which pads on the left.
    """

    model: Any
    processor: Any

    @property
    def device(self) -> torch.device:
        """Device of the model's first weights."""
        device: torch.device = self.model.device
        return device

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the weights."""
        dtype: torch.dtype = self.model.dtype
        return dtype

    def processing(self) -> str:
        """Describe the processor, for keys of caches."""
        parts = [
            type(self.processor).__name__,
            json.dumps(self.processor.to_dict(), sort_keys=True, default=str),
            str(getattr(self.processor, "chat_template", "")),
            type(getattr(self.processor, "image_processor", None)).__name__,
        ]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


_UNLOADABLE = (*LOADING_ERRORS, ImportError, AssertionError)
"""With what is raised over a library or a device that is not there."""


def load_live_model(name: str, *, device: str | None, dtype: DType) -> LiveModel:
    """Load a model and its processor.

    Args:
        name: Folder or hub name.
        device: Device that torch names; None takes the accelerator that is there, else the CPU.
        dtype: Floating-point type; ``"auto"`` is that of the weights on an accelerator and float32
            on the CPU.

    Returns:
        The model.

    Raises:
        ModelError: It cannot be loaded, lacks weights, does not fit the device, or has no chat
            template.
    """
    import torch
    from transformers import AutoModelForImageTextToText

    accelerator = torch.accelerator.current_accelerator() if device is None else None
    try:
        place = torch.device(device) if device is not None else accelerator or torch.device("cpu")
    except RuntimeError as error:
        raise ModelError(
            f"--device {device}: torch knows no such device ({error}); use cpu, or cuda:0"
        ) from error
    if place.type == "meta":
        raise ModelError(f"--device {device} holds shapes and no weights; use cpu, or cuda:0")
    if dtype == "auto":
        wanted: Any = torch.float32 if place.type == "cpu" else "auto"
    else:
        wanted = getattr(torch, dtype)
    show_no_progress_bars()
    try:
        processor = load_processor(name)  # first, as its files are small
        _check_chat_template(name, processor)
        loaded, report = AutoModelForImageTextToText.from_pretrained(
            name, dtype=wanted, trust_remote_code=False, output_loading_info=True
        )
        check_whole(f"--model {name}", report["missing_keys"])
        model = loaded.to(place).eval()
    except _UNLOADABLE as error:
        raise ModelError(
            f"--model {name} cannot be loaded on {place} ({error}); pass a folder or hub name of a "
            "vision-language model with its processor"
        ) from error
    return LiveModel(model, processor)


def _check_chat_template(name: str, processor: Any) -> None:
    if not getattr(processor, "chat_template", None):
        raise ModelError(
            f"the processor of {name} has no chat template, so that prompts would be guessed; save "
            "one beside it as chat_template.jinja"
        )


def load_processor(name: str) -> Any:
    """Load a processor that pads on the left, as generation needs it.

    Args:
        name: Folder or hub name.

    Returns:
        The processor. Images go through PIL whether torchvision is there or not: its resizing
        moves pixels, and scores, a little.

    Raises:
        OSError: There is none, or the hub cannot be reached.
        ValueError: Its files are of no known kind.
        ImportError: It takes videos, which needs torchvision.
    """
    from transformers import AutoImageProcessor, AutoProcessor

    processor = AutoProcessor.from_pretrained(name, trust_remote_code=False)
    # Not for the whole processor: its videos, if it takes them, have no backend of that name.
    processor.image_processor = AutoImageProcessor.from_pretrained(
        name, backend="pil", trust_remote_code=False
    )
    tokenizer = getattr(processor, "tokenizer", processor)
    tokenizer.padding_side = "left"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return processor


def model_fingerprint(name: str) -> str:
    """Hash what a model is, before it is loaded.

    Args:
        name: Folder or hub name.

    Returns:
        For a folder, a hash of its files (of large ones, of samples all through them); on the hub,
        the commit.

    Raises:
        ModelError: The hub cannot be reached, or refuses access.
    """
    folder = Path(name)
    if not folder.is_dir():
        return check_access(name, "model", "A folder with the model can be given as --model") or (
            _downloaded_commit(name)
        )
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if path.is_file() and not any(part.startswith(".") for part in inside.parts):
            digest.update(inside.as_posix().encode())
            digest.update(_file_hash(path))
    return digest.hexdigest()


def _file_hash(path: Path) -> bytes:
    size = path.stat().st_size
    with path.open("rb") as file:
        if size <= _HASHED_WHOLE:
            return hashlib.file_digest(file, "sha256").digest()
        digest = hashlib.sha256(str(size).encode())
        for start in (*range(0, size - _SAMPLE, _DISTANCE), size - _SAMPLE):
            file.seek(start)
            digest.update(file.read(_SAMPLE))
    return digest.digest()


def _downloaded_commit(name: str) -> str:
    """Name the commit of a model that was downloaded before: its files lie in a folder of it."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name, "config.json")
    if not isinstance(found, str):
        raise ModelError(
            f"--model {name} has not been downloaded, and HF_HUB_OFFLINE forbids doing so; unset "
            "it, or pass a folder"
        )
    return Path(found).parent.name
