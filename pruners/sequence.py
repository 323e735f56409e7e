"""Where the visual tokens are in a sequence, and what is left of it when some are dropped."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from pruners.positions import compact_positions
from pruners.selection import gather_tokens


@dataclass(frozen=True)
class Selection:
    """What one stage makes of the visual tokens.

    Attributes:
        tokens: Vectors of the tokens alive, dominant before contextual, (batch, alive, width).
        indices: For each, which visual token of before it is, or was merged into; ``-1 - i`` is the
            CLS token of the tile whose first visual token is i. (batch, alive)
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
        origin: Which of the dense model's N visual tokens each is or was merged into; ``-1 - i`` is
            the CLS token of the tile whose first token is i. (batch, visual)
        contextual: Which of them are contextual, (batch, visual).
        source: Where each position comes from in the dense sequence, -1 for padding that was added,
            (batch, length).
        position_ids: Positions for the rotary embedding, (batch, length), or (axes, batch, length)
            where it has several axes.
        mask: True for tokens, False for padding, (batch, length); None without padding.
        patches: Visual tokens of the dense model (N).
        in_one_piece: Whether the visual tokens are one tile without anything in between; else each
            stays where it is, between whatever else is there.
        sizes: Patches in each visual token, (batch, visual); None for one each.
        end: Dense position from which on text takes no part in choosing; None for none.
    """

    visual: Tensor
    origin: Tensor
    contextual: Tensor
    source: Tensor
    position_ids: Tensor
    mask: Tensor | None
    patches: int
    in_one_piece: bool = True
    sizes: Tensor | None = None
    end: int | None = None

    @classmethod
    def dense(
        cls,
        visual: Tensor,
        length: int,
        position_ids: Tensor | None,
        mask: Tensor | None,
        *,
        in_one_piece: bool = True,
        end: int | None = None,
    ) -> Layout:
        """Describe a sequence that nothing has been dropped from.

        Args:
            visual: Where the visual tokens are, rising, (batch, N).
            length: Length of the sequence.
            position_ids: Positions, (batch or 1, length), or (axes, batch, length); None counts
                from 0.
            mask: Nonzero for tokens, 0 for padding, (batch, length); None without padding.
            in_one_piece: Whether the visual tokens are one tile without anything in between.
            end: Position from which on text takes no part in choosing; None for none.

        Returns:
            The layout.
        """
        batch, patches = visual.shape
        source = torch.arange(length, device=visual.device).expand(batch, -1)
        if position_ids is None:
            position_ids = source
        return cls(
            visual=visual,
            origin=torch.arange(patches, device=visual.device).expand(batch, -1),
            contextual=torch.zeros_like(visual, dtype=torch.bool),
            source=source,
            position_ids=position_ids.expand(*position_ids.shape[:-2], batch, -1),
            mask=None if mask is None else mask.bool(),
            patches=patches,
            in_one_piece=in_one_piece,
            end=end,
        )

    @property
    def length(self) -> int:
        """Length of the sequence."""
        return self.source.shape[1]

    @property
    def last_token(self) -> Tensor:
        """Where each sample's last token is that is no padding and may choose, (batch, 1)."""
        places = torch.arange(self.length, device=self.source.device).expand_as(self.source)
        return (places * self._may_choose(places)).amax(dim=-1, keepdim=True)

    @property
    def text(self) -> Tensor:
        """Where everything is that is no visual token, rising, (batch, length - visual)."""
        visual = torch.zeros_like(self.source, dtype=torch.uint8).scatter(1, self.visual, 1)
        order = visual.argsort(dim=-1, stable=True)
        return order[:, : self.length - self.visual.shape[1]]

    def is_question(self, places: Tensor) -> Tensor:
        """Say which places lie behind the image, are no padding, and may choose.

        Args:
            places: Places in the sequence, (batch, count).

        Returns:
            True for such places, (batch, count).
        """
        return self._may_choose(places) & (places > self.visual[:, -1:])

    def _may_choose(self, places: Tensor) -> Tensor:
        real = places >= 0 if self.mask is None else self.mask.gather(1, places)
        return real if self.end is None else real & (self.source.gather(1, places) < self.end)

    def to(self, device: torch.device) -> Layout:
        """Move to a device, for models that are spread over several."""
        if device == self.visual.device:
            return self
        return replace(
            self,
            visual=self.visual.to(device),
            origin=self.origin.to(device),
            contextual=self.contextual.to(device),
            source=self.source.to(device),
            position_ids=self.position_ids.to(device),
            mask=None if self.mask is None else self.mask.to(device),
            sizes=None if self.sizes is None else self.sizes.to(device),
        )

    def drop(self, hidden: Tensor, selection: Selection, *, compact: bool) -> tuple[Tensor, Layout]:
        """Replace the visual tokens by those that a stage keeps.

        Tokens in one piece move to the first places of the visual tokens, in the stage's order.
        Others, of several tiles or with separators or text in between, stand where the token
        stood that they are or were merged into, a CLS token before the first token of its tile.
        The places left over leave the sequence. Each keeps the position of that token (the CLS
        token takes the first one's), unless positions are compacted.

        Args:
            hidden: Hidden states of the sequence, (batch, length, width).
            selection: What the stage keeps.
            compact: Whether positions are then counted anew from 0, over tokens without padding.

        Returns:
            The shorter hidden states, and their layout.
        """
        alive = selection.indices.shape[1]
        made = torch.zeros_like(selection.indices, dtype=torch.bool)
        made[:, alive - selection.contextual :] = True
        if not self.in_one_piece:
            selection, made = _in_order(selection, made)
        indices = selection.indices
        chosen = indices.where(indices >= 0, -1 - indices)
        stood = self.visual.gather(1, chosen)
        others = self.text
        # Twice the place, so that a CLS token has room before the first token of its tile.
        in_place = 2 * stood - (indices < 0).long()
        keys = 2 * self.visual[:, :alive] if self.in_one_piece else in_place
        order = torch.cat([2 * others, keys], dim=1).argsort(dim=1)
        places = order.argsort(dim=1)[:, others.shape[1] :]
        kept = torch.cat([others, stood], dim=1).gather(1, order)
        mask = None if self.mask is None else self.mask.gather(1, kept)
        layout = replace(
            self,
            visual=places,
            origin=_origins(self.origin, indices),
            contextual=self.contextual.gather(1, chosen) | made,
            source=self.source.gather(1, kept),
            position_ids=compact_positions(kept, mask)
            if compact
            else _gather_last(self.position_ids, kept),
            mask=mask,
            sizes=self._sizes_after(selection),
        )
        rest = gather_tokens(hidden, others)
        tokens = selection.tokens.to(hidden.dtype)
        return gather_tokens(torch.cat([rest, tokens], dim=1), order), layout

    def resized(self, length: int, side: Literal["left", "right"]) -> Layout:
        """Add padding on one side, or cut it off there.

        Args:
            length: Length wanted; if shorter, what is cut off is padding.
            side: Where padding is.

        Returns:
            The layout of that length.
        """
        more = length - self.length
        if more == 0:
            return self
        mask = torch.ones_like(self.source, dtype=torch.bool) if self.mask is None else self.mask
        return replace(
            self,
            visual=self.visual + (more if side == "left" else 0),
            source=resize(self.source, length, side, value=-1),
            position_ids=resize(self.position_ids, length, side),
            mask=resize(mask, length, side),
        )

    def _sizes_after(self, selection: Selection) -> Tensor | None:
        if selection.sizes is not None or self.sizes is None:
            return selection.sizes
        indices = selection.indices
        return self.sizes.gather(1, indices.where(indices >= 0, -1 - indices))


def resize(
    values: Tensor, length: int, side: Literal["left", "right"], *, value: int = 0
) -> Tensor:
    """Pad the last dimension on one side, or cut it off there.

    Args:
        values: Values, (..., present length).
        length: Length wanted.
        side: Which side.
        value: What to pad with.

    Returns:
        Values, (..., length).
    """
    more = length - values.shape[-1]
    return pad(values, (more, 0) if side == "left" else (0, more), value=value)


def _gather_last(values: Tensor, places: Tensor) -> Tensor:
    """Gather along the last dimension, for each leading axis alike."""
    return values.gather(-1, places.expand(*values.shape[:-2], *places.shape))


def _origins(origin: Tensor, indices: Tensor) -> Tensor:
    """Say which dense tokens those are that `indices` choose of the tokens from `origin`."""
    return origin.gather(1, indices.clamp(min=0)).where(indices >= 0, indices)


def _in_order(selection: Selection, made: Tensor) -> tuple[Selection, Tensor]:
    """Sort a selection by where its tokens stand, a CLS token before the first of its tile."""
    indices = selection.indices
    order = (2 * indices).where(indices >= 0, -3 - 2 * indices).argsort(dim=1, stable=True)
    sizes = None if selection.sizes is None else selection.sizes.gather(1, order)
    tokens = gather_tokens(selection.tokens, order)
    return Selection(tokens, indices.gather(1, order), 0, sizes), made.gather(1, order)
