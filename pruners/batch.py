"""A batch at some depth of the decoder, whose samples may have different numbers of tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from pruners.groups import Group
from pruners.sequence import Layout, resize
from pruners.transfer import send


@dataclass(frozen=True, eq=False)
class Batch:
    """The sequences of a batch, group by group, all of one length.

    Attributes:
        groups: The groups.
        layouts: Their sequences.
        padding: Padding that each group's samples have on the padding side, at least.
        side: On which side sequences are padded.
    """

    groups: tuple[Group, ...]
    layouts: tuple[Layout, ...]
    padding: tuple[int, ...]
    side: Literal["left", "right"]

    @property
    def source(self) -> Tensor:
        """Where each position comes from in the dense sequence, -1 for padding that was added."""
        return self._joined([layout.source for layout in self.layouts])

    @property
    def position_ids(self) -> Tensor:
        """Positions, (batch, length) or (axes, batch, length)."""
        return self._joined([layout.position_ids for layout in self.layouts], dim=-2)

    @property
    def mask(self) -> Tensor | None:
        """True for tokens, False for padding, (batch, length); None without padding."""
        if all(layout.mask is None for layout in self.layouts):
            return None
        return self._joined(
            [
                torch.ones_like(layout.source, dtype=torch.bool)
                if layout.mask is None
                else layout.mask
                for layout in self.layouts
            ]
        )

    def changed(
        self, hidden: Tensor, change: Callable[[int, Tensor], tuple[Tensor, Layout]]
    ) -> tuple[Tensor, Batch]:
        """Change the sequences of groups, and pad or cut them to one length again.

        Args:
            hidden: Hidden states, (batch, length, width).
            change: Takes a group's number and hidden states, and returns what they become and
                their layout.

        Returns:
            Hidden states of the whole batch, and the batch. With one group nothing is padded or
            cut; with several, as long as the longest needs to be.
        """
        changed = [change(number, group.of(hidden)) for number, group in enumerate(self.groups)]
        if len(changed) == 1:
            return changed[0][0], Batch(self.groups, (changed[0][1],), self.padding, self.side)
        lengths = [layout.length for _, layout in changed]
        target = max(length - own for length, own in zip(lengths, self.padding, strict=True))
        parts = [resize(part.mT, target, self.side).mT for part, _ in changed]
        layouts = tuple(layout.resized(target, self.side) for _, layout in changed)
        padding = tuple(
            own + target - length for own, length in zip(self.padding, lengths, strict=True)
        )
        return self._joined(parts), Batch(self.groups, layouts, padding, self.side)

    def mapped(self, hidden: Tensor, change: Callable[[int, Tensor], Tensor]) -> Tensor:
        """Change the hidden states of each group, but not their number.

        Args:
            hidden: Hidden states, (batch, length, width).
            change: Takes a group's number and hidden states, and returns what they become.

        Returns:
            Hidden states of the whole batch.
        """
        return self._joined(
            [change(number, group.of(hidden)) for number, group in enumerate(self.groups)]
        )

    def to(self, device: torch.device) -> Batch:
        """Move the layouts to a device, for models that are spread over several."""
        layouts = tuple(layout.to(device) for layout in self.layouts)
        return Batch(self.groups, layouts, self.padding, self.side)

    def _joined(self, parts: Sequence[Tensor], dim: int = 0) -> Tensor:
        """Put the samples of all groups in the order of the batch."""
        if len(parts) == 1:
            return parts[0]
        rows = [row for group in self.groups for row in group.rows]
        order = send(torch.tensor(rows, device="cpu").argsort(), parts[0].device)
        return torch.cat(list(parts), dim=dim).index_select(dim, order)
