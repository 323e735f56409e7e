"""From a question to a model's inputs: once per sample, then joined to batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from pruners.errors import DataError
from search.tasks.live_model import LiveModel
from search.tasks.requests import Request

Inputs = Mapping[str, Tensor]
"""A sample's inputs by the model's argument, each with a batch dimension of 1 where it has one."""

_PER_TOKEN = ("input_ids", "attention_mask", "mm_token_type_ids", "token_type_ids")
"""Inputs with an entry per token of the prompt, (1, length)."""


def prepare(live: LiveModel, request: Request) -> dict[str, Tensor]:
    """Make a model's inputs from a question.

    Args:
        live: The model.
        request: The question; its images stand before its text, as in the papers' prompts.

    Returns:
        The inputs, on the CPU.

    Raises:
        DataError: The processor cannot prepare it; the message names the sample.
    """
    content: list[dict[str, Any]] = [{"type": "image"} for _ in request.images]
    content.append({"type": "text", "text": request.text})
    try:
        prompt = live.processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )
        start = live.processor.tokenizer.bos_token
        # The chat template of some families has written the start token already.
        options = {"add_special_tokens": False} if start and prompt.startswith(start) else {}
        inputs = live.processor(
            text=[prompt], images=list(request.images) or None, return_tensors="pt", **options
        )
    except Exception as error:
        raise DataError(
            f"sample {request.identifier} cannot be prepared for the model "
            f"({type(error).__name__}: {error}); check its image, or leave the task out"
        ) from error
    return {name: value for name, value in inputs.items() if isinstance(value, Tensor)}


def join(samples: Sequence[Inputs], pad_token: int) -> dict[str, Tensor]:
    """Join samples to a batch: prompts are padded on the left, tiles of images at the end.

    Args:
        samples: The samples' inputs.
        pad_token: Token id of padding.

    Returns:
        The batch, as the processor would have made it of all samples together.
    """
    names = {name: None for sample in samples for name in sample}
    length = max(sample["input_ids"].shape[1] for sample in samples)
    batch = {}
    for name in names:
        values = [sample[name] for sample in samples if name in sample]
        if name in _PER_TOKEN:
            filler = pad_token if name == "input_ids" else 0
            values = [
                torch.nn.functional.pad(value, (length - value.shape[1], 0), value=filler)
                for value in values
            ]
        elif name == "pixel_values" and values[0].ndim == 5:  # (images, tiles, channels, h, w)
            tiles = max(value.shape[1] for value in values)
            values = [
                torch.nn.functional.pad(value, (0, 0) * 3 + (0, tiles - value.shape[1]))
                for value in values
            ]
        batch[name] = torch.cat(values)
    return batch
