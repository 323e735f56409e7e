"""What the oracles ask, and what they read of the answers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from pruners import Schedule
from tests.helpers.forwards import logits_of
from tests.pruners.families import TinyModel

QUESTIONS = ("w1 w2 w3", "w4", "w5 w6 w7 w8 w9")


def last_logits(model: Any, inputs: dict[str, Tensor], padding: str) -> Tensor:
    """Logits at each sample's last token; what is padded on the right is never pruned."""
    logits = logits_of(model, inputs)
    if padding == "left":
        return logits[:, -1]
    padded = (inputs["attention_mask"] == 0).sum(dim=1)
    return logits[torch.arange(len(logits)), logits.shape[1] - 1 - padded]


def repeated(inputs: dict[str, Tensor], count: int) -> dict[str, Tensor]:
    """Make a batch of a prompt's copies, images included."""
    return {name: torch.cat([value] * count) for name, value in inputs.items()}


def continued(inputs: dict[str, Tensor], tokens: Tensor) -> dict[str, Tensor]:
    """Append tokens of text to a batch of prompts, (batch, tokens)."""
    more = {**inputs, "input_ids": torch.cat([inputs["input_ids"], tokens], dim=1)}
    for name, fill in (("attention_mask", 1), ("mm_token_type_ids", 0)):
        if name in inputs:
            more[name] = pad(inputs[name], (0, tokens.shape[1]), value=fill)
    return more


def counts_of(schedule: Schedule, family: TinyModel) -> Any:
    """Count what the stages leave of a standard image."""
    return schedule.counts(family.visual_tokens, family.shape.tokens_per_tile)
