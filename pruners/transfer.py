"""Sending what the host works out to the device that computes with it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def send(values: Tensor, device: torch.device) -> Tensor:
    """Send values to a device without waiting for what it is doing.

    Args:
        values: Values on the host.
        device: Where they are wanted.

    Returns:
        The values there. A GPU gets them from pinned memory, in turn with its other work; from
        pageable memory the host would wait until that is done.
    """
    if device.type != "cuda":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


def send_numbers(numbers: Sequence[int], device: torch.device) -> Tensor:
    """Send whole numbers to a device, as `send` does.

    Args:
        numbers: The numbers.
        device: Where they are wanted.

    Returns:
        The same there, int64, (numbers,).
    """
    # Made on the host also where users have set another default device.
    return send(torch.tensor(numbers, dtype=torch.long, device="cpu"), device)


def send_together(parts: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """Send several tensors in one go.

    Args:
        parts: Tensors of whole numbers on the host.
        device: Where they are wanted.

    Returns:
        The same there, as int64.
    """
    sent = send(torch.cat([part.long().flatten() for part in parts]), device)
    flat = torch.split(sent, [part.numel() for part in parts])
    return [values.view(part.shape) for values, part in zip(flat, parts, strict=True)]
