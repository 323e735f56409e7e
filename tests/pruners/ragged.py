"""What samples with different numbers of visual tokens must come to, retold by plain loops."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from pruners.prefill_record import PrefillRecord


def visual_places(record: PrefillRecord, row: int) -> list[int]:
    """Where a sample's visual tokens are in the dense prompt, without separators."""
    for group in record.groups:
        if row in group.rows:
            return group.visual[group.rows.index(row)].tolist()
    raise AssertionError(f"no group has sample {row}")


def kept(record: PrefillRecord, row: int) -> dict[int, list[int]]:
    """Which of a sample's visual tokens are left after each stage, by layer."""
    for group in record.groups:
        if row in group.rows:
            place = group.rows.index(row)
            return {stage.layer: stage.indices[place].tolist() for stage in group.stages}
    raise AssertionError(f"no group has sample {row}")


def dropped(record: PrefillRecord, row: int, layer: int) -> set[int]:
    """Which places of the dense prompt a decoder layer does not see any more."""
    places = visual_places(record, row)
    left = set(range(len(places)))
    for boundary, indices in kept(record, row).items():
        if boundary <= layer:
            assert set(indices) <= left
            left = set(indices)
    return {place for index, place in enumerate(places) if index not in left}


@contextmanager
def masked_out(model: Any, record: PrefillRecord, mask: Tensor) -> Iterator[None]:
    """Keep the dense model's layers from each boundary on from seeing what was dropped.

    Args:
        model: The model, without a schedule.
        record: What was kept of the prompts.
        mask: 1 for tokens, 0 for padding, of the whole sequence, (batch, length).
    """
    hooks = []
    causal = torch.ones(mask.shape[1], mask.shape[1], dtype=torch.bool).tril()
    for index, layer in enumerate(model.model.language_model.layers):
        visible = mask.bool().clone()
        for row in range(len(mask)):
            visible[row, sorted(dropped(record, row, index))] = False
        allowed = causal & visible[:, None, None, :]
        bias = torch.zeros(allowed.shape).masked_fill(~allowed, torch.finfo(torch.float32).min)

        def mask_out(module: Any, args: Any, kwargs: Any, bias: Tensor = bias) -> Any:
            return args, {**kwargs, "attention_mask": bias}

        hooks.append(layer.register_forward_pre_hook(mask_out, with_kwargs=True))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def places_left(record: PrefillRecord, mask: Tensor, row: int, layers: int) -> list[int]:
    """Which places of a sample's dense prompt are left in the end, without padding."""
    gone = dropped(record, row, layers)
    return [place for place in mask[row].nonzero()[:, 0].tolist() if place not in gone]


def without_padding(logits: Tensor, row: int, length: int, padding: str) -> Tensor:
    """Cut the padding of a sample off: (length, vocabulary)."""
    own = logits[row]
    return own[len(own) - length :] if padding == "left" else own[:length]
