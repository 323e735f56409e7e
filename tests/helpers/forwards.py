"""One forward of a model."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def logits_of(model: Any, inputs: dict[str, Any], **settings: Any) -> Tensor:
    """Return the logits of one forward without gradients, (batch, tokens that are left, words)."""
    with torch.no_grad():
        logits: Tensor = model(**inputs, **settings).logits
    return logits
