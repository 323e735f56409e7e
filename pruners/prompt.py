"""A batch of prompts as the host sees it, read once when a call starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from pruners.adapters import DecoderCall, ModelAdapter
from pruners.errors import InputError
from pruners.media import Kind


@dataclass(frozen=True)
class Prompt:
    """Prompts on the CPU.

    Whatever the host must know of them is read before the device is given any work, so that
    nothing later waits for it.

    Attributes:
        length: Length of the batch, padding included.
        places: Where the placeholders of each kind are, rising, one tensor per prompt.
        real: True for tokens, False for padding, (batch, length); None without padding.
        ids: Token ids, or None where embeddings were given.
        end: Position from which on text takes no part in choosing; None for none.
    """

    length: int
    places: Mapping[Kind, tuple[Tensor, ...]]
    real: Tensor | None
    ids: tuple[tuple[int, ...], ...] | None
    end: int | None = None

    @classmethod
    def of_call(cls, adapter: ModelAdapter, call: DecoderCall) -> Prompt:
        """Read the prompts of a call.

        Args:
            adapter: The model.
            call: The call.

        Returns:
            The prompts.

        Raises:
            InputError: The attention mask is no padding mask.
        """
        if call.input_ids is not None:
            return cls.of_ids(adapter, call.input_ids, call.attention_mask)
        assert call.inputs_embeds is not None
        embeds = call.inputs_embeds
        marks = {}
        for kind, identifier in adapter.placeholder_ids().items():
            # Without ids, placeholders are recognised by their embedding, as the model itself does.
            token = torch.tensor([identifier], device=embeds.device)
            marks[kind] = (embeds == adapter.embed(token)).all(dim=-1).cpu()
        return cls._of_marks(marks, call.attention_mask, embeds.shape[:2], None)

    @classmethod
    def of_ids(
        cls, adapter: ModelAdapter, input_ids: Tensor, attention_mask: Tensor | None
    ) -> Prompt:
        """Read prompts off their token ids.

        Args:
            adapter: The model.
            input_ids: Token ids with placeholders, (batch, length).
            attention_mask: Nonzero for tokens, 0 for padding, (batch, length), or None.

        Returns:
            The prompts.

        Raises:
            InputError: The attention mask is no padding mask.
        """
        ids = input_ids.cpu()
        marks = {kind: ids == own for kind, own in adapter.placeholder_ids().items()}
        identifiers = tuple(map(tuple, ids.tolist()))
        return cls._of_marks(marks, attention_mask, ids.shape, identifiers)

    @classmethod
    def _of_marks(
        cls,
        marks: Mapping[Kind, Tensor],
        attention_mask: Tensor | None,
        shape: tuple[int, ...],
        ids: tuple[tuple[int, ...], ...] | None,
    ) -> Prompt:
        real = None
        if attention_mask is not None:
            if not isinstance(attention_mask, Tensor):
                raise InputError(
                    f"the attention mask is a {type(attention_mask).__name__}; pruning needs a "
                    f"padding mask, a tensor of shape {tuple(shape)}: (batch, length)"
                )
            if tuple(attention_mask.shape) != tuple(shape):
                raise InputError(
                    f"the attention mask has shape {tuple(attention_mask.shape)}; pruning needs a "
                    f"padding mask of shape {tuple(shape)}: (batch, length)"
                )
            real = attention_mask.cpu().bool()
        places = {kind: tuple(row.nonzero()[:, 0] for row in mark) for kind, mark in marks.items()}
        return cls(shape[1], places, None if real is None or real.all() else real, ids)

    def before(self, checked: int) -> Prompt:
        """Keep the last tokens from taking part in choosing.

        Args:
            checked: Tokens that stand behind the prompt only to be checked: guesses of assisted
                generation, or an answer whose probability is wanted.

        Returns:
            The prompts; unchanged where some of these are images'.
        """
        end = self.length - checked
        images = [int(own[-1]) for rows in self.places.values() for own in rows if len(own)]
        return replace(self, end=end) if checked and max(images, default=0) < end else self

    def __len__(self) -> int:
        return len(next(iter(self.places.values())))

    @property
    def padding_side(self) -> Literal["left", "right"]:
        """On which side prompts are padded; left where none is."""
        if self.real is None or bool(self.real[:, -1].all()):
            return "left"
        return "right"

    def padding(self, row: int) -> int:
        """Count the padding of a prompt on the padding side."""
        if self.real is None:
            return 0
        real = self.real[row] if self.padding_side == "left" else self.real[row].flip(0)
        return int(real.to(torch.uint8).argmax())
