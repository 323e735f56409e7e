"""What a prefill kept, for tests and users to look at."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from pruners.errors import InputError


@dataclass(frozen=True)
class StageRecord:
    """What one stage kept of samples with visual tokens alike.

    Attributes:
        layer: Its boundary.
        indices: For every visual token alive after it, in sequence order, which of the dense
            model's N visual tokens it is or was merged into; ``-1 - i`` is the CLS token of the
            tile whose first visual token is i. (samples, alive)
        contextual: Which of them are contextual, (samples, alive).
        positions: Position in the dense sequence of everything left in the sequence, -1 for
            padding that was added, (samples, length).
    """

    layer: int
    indices: Tensor
    contextual: Tensor
    positions: Tensor


@dataclass(frozen=True)
class GroupRecord:
    """What was kept of samples with visual tokens alike.

    Attributes:
        rows: Which samples of the batch they are.
        visual: Where the dense model's N visual tokens are in the prompt, (samples, N).
        stages: One record per stage that dropped tokens of them.
    """

    rows: tuple[int, ...]
    visual: Tensor
    stages: tuple[StageRecord, ...]


@dataclass(frozen=True)
class PrefillRecord:
    """What a prefill kept.

    Attributes:
        groups: What was kept, group by group.
    """

    groups: tuple[GroupRecord, ...]

    @property
    def stages(self) -> tuple[StageRecord, ...]:
        """One record per stage that dropped tokens, where all samples have visual tokens alike.

        Raises:
            InputError: They have not.
        """
        if len(self.groups) != 1:
            raise InputError(
                f"the samples have visual tokens of {len(self.groups)} kinds; read `groups`"
            )
        return self.groups[0].stages
