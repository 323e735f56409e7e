"""Where the visual tokens are in a sequence, and what is left of it when some are dropped."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pruners.selection import gather_tokens


@dataclass(frozen=True)
class Selection:
    """What one stage makes of the visual tokens.

    Attributes:
        tokens: Vectors of the tokens alive, dominant before contextual, (batch, alive, width).
        indices: For each, which visual token of before it is, or was merged into; -1 is the CLS
            token. (batch, alive)
        contextual: How many, at the end, are contextual.
        sizes: Patches in each token, (batch, alive); None where these are what they were.
    """

    tokens: Tensor
    indices: Tensor
    contextual: int = 0
    sizes: Tensor | None = None

    def behind_cls(self, cls_token: Tensor) -> Selection:
        """Put the CLS token in front.

        Args:
            cls_token: Its vector, (batch, 1, width).

        Returns:
            The longer selection; the CLS token counts as one patch.
        """
        sizes = self.sizes
        if sizes is not None:
            sizes = torch.cat([torch.ones_like(cls_token[..., 0], dtype=sizes.dtype), sizes], dim=1)
        index = self.indices.new_full((len(self.indices), 1), -1)
        return Selection(
            torch.cat([cls_token, self.tokens], dim=1),
            torch.cat([index, self.indices], dim=1),
            self.contextual,
            sizes,
        )

    def select(self, rows: Tensor) -> Selection:
        """Pick samples.

        Args:
            rows: Indices of samples, (count,).

        Returns:
            The picked samples, in that order.
        """
        sizes = None if self.sizes is None else self.sizes[rows]
        return Selection(self.tokens[rows], self.indices[rows], self.contextual, sizes)


@dataclass(frozen=True)
class Layout:
    """A sequence at some depth of the decoder.

    Attributes:
        visual: Where the visual tokens are, rising, (batch, visual).
        origin: Which of the dense model's N visual tokens each is or was merged into; -1 is the
            CLS token. (batch, visual)
        contextual: Which of them are contextual, (batch, visual).
        source: Where each position comes from in the dense sequence, (batch, length).
        position_ids: Positions for the rotary embedding, (batch, length).
        mask: True for tokens, False for padding, (batch, length); None without padding.
        patches: Visual tokens of the dense model (N).
        sizes: Patches in each visual token, (batch, visual); None for one each.
    """

    visual: Tensor
    origin: Tensor
    contextual: Tensor
    source: Tensor
    position_ids: Tensor
    mask: Tensor | None
    patches: int
    sizes: Tensor | None = None

    @classmethod
    def dense(
        cls,
        image_mask: Tensor,
        visual_tokens: int,
        position_ids: Tensor | None,
        mask: Tensor | None,
    ) -> Layout:
        """Describe a sequence that nothing has been dropped from.

        Args:
            image_mask: True where an image placeholder is; `visual_tokens` per row.
                (batch, length)
            visual_tokens: Visual tokens per sample.
            position_ids: Positions, (batch or 1, length); None counts from 0.
            mask: Nonzero for tokens, 0 for padding, (batch, length); None without padding.

        Returns:
            The layout.
        """
        batch, length = image_mask.shape
        device = image_mask.device
        placeholders = image_mask.to(torch.uint8).argsort(dim=-1, descending=True, stable=True)
        visual = placeholders[:, :visual_tokens]
        source = torch.arange(length, device=device).expand(batch, -1)
        return cls(
            visual=visual,
            origin=torch.arange(visual_tokens, device=device).expand(batch, -1),
            contextual=torch.zeros_like(visual, dtype=torch.bool),
            source=source,
            position_ids=source if position_ids is None else position_ids.expand(batch, -1),
            mask=None if mask is None else mask.bool(),
            patches=visual_tokens,
        )

    @property
    def last_token(self) -> Tensor:
        """Where each sample's last token is that is no padding, (batch, 1)."""
        if self.mask is None:
            return torch.full_like(self.source[:, :1], self.source.shape[1] - 1)
        places = torch.arange(self.mask.shape[1], device=self.mask.device)
        return (places * self.mask).amax(dim=-1, keepdim=True)

    @property
    def text(self) -> Tensor:
        """Where everything is that is no visual token, rising, (batch, length - visual)."""
        visual = torch.zeros_like(self.source, dtype=torch.uint8).scatter(1, self.visual, 1)
        order = visual.argsort(dim=-1, stable=True)
        return order[:, : self.source.shape[1] - self.visual.shape[1]]

    def is_question(self, places: Tensor) -> Tensor:
        """Say which places lie behind the image and are no padding.

        Args:
            places: Places in the sequence, (batch, count).

        Returns:
            True for such places, (batch, count).
        """
        behind = places > self.visual[:, -1:]
        return behind if self.mask is None else behind & self.mask.gather(1, places)

    def to(self, device: torch.device) -> Layout:
        """Move to a device, for models that are spread over several."""
        if device == self.visual.device:
            return self
        return Layout(
            visual=self.visual.to(device),
            origin=self.origin.to(device),
            contextual=self.contextual.to(device),
            source=self.source.to(device),
            position_ids=self.position_ids.to(device),
            mask=None if self.mask is None else self.mask.to(device),
            patches=self.patches,
            sizes=None if self.sizes is None else self.sizes.to(device),
        )

    def drop(self, hidden: Tensor, selection: Selection, *, compact: bool) -> tuple[Tensor, Layout]:
        """Replace the visual tokens by those that a stage keeps.

        They move to the first places of the visual tokens, in the stage's order; the places left
        over leave the sequence. Each keeps the position of the token it is or was merged into (the
        CLS token takes the first patch's), unless positions are compacted.

        Args:
            hidden: Hidden states of the sequence, (batch, length, width).
            selection: What the stage keeps.
            compact: Whether positions are then counted anew from 0, over tokens without padding.

        Returns:
            The shorter hidden states, and their layout.
        """
        alive = selection.indices.shape[1]
        places, removed = self.visual[:, :alive], self.visual[:, alive:]
        stays = torch.ones_like(self.source, dtype=torch.bool).scatter(1, removed, False)
        length = stays.shape[1] - removed.shape[1]
        order = (~stays).to(torch.uint8).argsort(dim=-1, stable=True)[:, :length]
        chosen = selection.indices.clamp(min=0)

        def rearrange(values: Tensor) -> Tensor:
            moved = values.gather(1, self.visual).gather(1, chosen)
            return values.scatter(1, places, moved).gather(1, order)

        width = selection.tokens.shape[-1]
        tokens = selection.tokens.to(hidden.dtype)
        hidden = hidden.scatter(1, places.unsqueeze(-1).expand(-1, -1, width), tokens)
        mask = None if self.mask is None else self.mask.gather(1, order)
        made = torch.zeros_like(chosen, dtype=torch.bool)
        made[:, alive - selection.contextual :] = True
        layout = Layout(
            visual=places,
            origin=self.origin.gather(1, chosen).where(selection.indices >= 0, -1),
            contextual=self.contextual.gather(1, chosen) | made,
            source=rearrange(self.source),
            position_ids=compact_positions(order, mask)
            if compact
            else rearrange(self.position_ids),
            mask=mask,
            patches=self.patches,
            sizes=self._sizes_after(selection),
        )
        return gather_tokens(hidden, order), layout

    def _sizes_after(self, selection: Selection) -> Tensor | None:
        if selection.sizes is not None or self.sizes is None:
            return selection.sizes
        return self.sizes.gather(1, selection.indices.clamp(min=0))


def compact_positions(like: Tensor, mask: Tensor | None) -> Tensor:
    """Count positions from 0 over the tokens that are no padding.

    Args:
        like: Any tensor of the sequence's shape, (batch, length).
        mask: True for tokens, False for padding, (batch, length); None without padding.

    Returns:
        Positions, (batch, length); padding on the left gets 0.
    """
    if mask is None:
        return torch.arange(like.shape[1], device=like.device).expand(like.shape[0], -1)
    return (mask.long().cumsum(dim=-1) - 1).clamp(min=0)


def positions_from_zero(layout: Layout) -> Tensor:
    """Shift each sample's positions so that its first token has position 0.

    Args:
        layout: The sequence.

    Returns:
        Positions, (batch, length); padding on the left gets whatever that leaves, at least 0.
    """
    positions = layout.position_ids
    if layout.mask is None:
        return positions - positions[:, :1]
    first = positions.masked_fill(~layout.mask, torch.iinfo(positions.dtype).max)
    return (positions - first.amin(dim=-1, keepdim=True)).clamp(min=0)


def last_position(layout: Layout) -> Tensor:
    """Find the highest position of each sample that is no padding.

    Args:
        layout: The sequence.

    Returns:
        Positions, (batch, 1).
    """
    positions = layout.position_ids
    if layout.mask is not None:
        positions = positions.masked_fill(~layout.mask, -1)
    return positions.amax(dim=-1, keepdim=True)
