"""What models are asked, and the schedule that they get."""

from __future__ import annotations

from pruners import Schedule, Stage, VisualSelfAttention

GREEDY = {"max_new_tokens": 6, "do_sample": False}
FIRST = Stage(layer=0, retention=0.5, scorer=VisualSelfAttention())
LATER = Stage(layer=3, retention=0.25, scorer=VisualSelfAttention())
PRUNING = Schedule(stages=(FIRST, LATER))
