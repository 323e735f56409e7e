"""PyTorch's counter of FLOPs, told of the one kernel that it does not know."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    """Both products of attention, from the shapes of queries, keys and values."""
    batch, heads, rows, size = query
    return 2 * batch * heads * rows * key[-2] * (size + value[-1])


def flop_counter(depth: int | None = 2) -> FlopCounterMode:
    """Make a counter that also counts the CPU's fused attention, in full where it is causal."""
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    return FlopCounterMode(display=False, depth=depth, custom_mapping={kernel: _attention})
