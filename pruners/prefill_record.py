"""What a prefill kept, for tests and users to look at."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class StageRecord:
    """What one stage kept.

    Attributes:
        layer: Its boundary.
        indices: For every visual token alive after it, in sequence order, which of the dense
            model's N visual tokens it is or was merged into; -1 is the CLS token. (batch, alive)
        contextual: Which of them are contextual, (batch, alive).
        positions: Position in the dense sequence of everything left in the sequence,
            (batch, length).
    """

    layer: int
    indices: Tensor
    contextual: Tensor
    positions: Tensor


@dataclass(frozen=True)
class PrefillRecord:
    """What a prefill kept.

    Attributes:
        stages: One record per stage that dropped tokens.
    """

    stages: tuple[StageRecord, ...]
