"""A schedule of two stages that fits every family's tiny model, and what continues its calls."""

from __future__ import annotations

from typing import Any

import torch

from pruners import Schedule, Stage, VisualSelfAttention

FIRST = Stage(layer=0, retention=0.5, scorer=VisualSelfAttention())
SCHEDULE = Schedule(stages=(FIRST, Stage(layer=3, retention=0.25, scorer=VisualSelfAttention())))
GREEDY: dict[str, Any] = {"max_new_tokens": 5, "do_sample": False}
QUESTION = torch.tensor([[5, 12, 13, 6]])
