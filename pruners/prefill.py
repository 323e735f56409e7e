"""One prefill of a pruned model: the prompt's way through the stages."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from pruners.adapters import ModelAdapter
from pruners.cache import CachedStage, PrunedCache
from pruners.decoder_stage import run_decoder_stage
from pruners.encoder_stage import run_encoder_stage
from pruners.errors import InputError
from pruners.plan import Plan
from pruners.sequence import Layout, Selection
from pruners.text_tower import QuestionOutputs
from pruners.vision import VisionOutputs


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


class Prefill:
    """A prefill under way; its methods are called in the order in which the model runs.

    Attributes:
        image_mask: True where an image placeholder is, (batch, length).
        input_ids: Token ids, to read the questions from, or None.
        questions: Questions that were given with the call, one per sample, or None.
        vision: What is known of the images, once the vision tower has run.
        layout: The sequence as it is; None before the decoder.
    """

    def __init__(
        self,
        adapter: ModelAdapter,
        plan: Plan,
        image_mask: Tensor,
        *,
        input_ids: Tensor | None = None,
        questions: QuestionOutputs | None = None,
        vision: VisionOutputs | None = None,
    ) -> None:
        """Start a prefill.

        Args:
            adapter: The model.
            plan: The plan.
            image_mask: True where an image placeholder is, (batch, length).
            input_ids: Token ids, (batch, length), or None.
            questions: Questions, one per sample, or None.
            vision: Vision outputs, one image per sample, or None if the tower is still to run.

        Raises:
            InputError: A sample has not the placeholders of exactly one image.
        """
        _check_images(image_mask, adapter.visual_tokens)
        self.image_mask = image_mask
        self.input_ids = input_ids
        self.questions = questions
        self.vision = vision
        self.layout: Layout | None = None
        self._adapter = adapter
        self._plan = plan
        self._selection: Selection | None = None
        self._dense: Layout | None = None
        # Layouts by boundary; those of the layers before the first decoder boundary are at 0.
        self._layouts: dict[int, Layout] = {}
        self._cache: Any = None
        self._rotation: tuple[Tensor, Tensor] | None = None
        self._attention_mask: Any = None

    def select(self, questions: QuestionOutputs | None) -> Tensor | None:
        """Run the encoder stage.

        Args:
            questions: Questions, one per sample, if the stage compares them with the images.

        Returns:
            The features that the projector gets, (batch, alive, width); None without such a stage.

        Raises:
            InputError: There are not as many images as samples.
        """
        if self._plan.encoder is None or self.vision is None:
            return None
        rows = self.image_mask.shape[0]
        if len(self.vision) != rows:
            raise InputError(
                f"{len(self.vision)} images were given for {rows} samples; pruning supports "
                "exactly one image per sample"
            )
        self._selection = run_encoder_stage(*self._plan.encoder, self.vision, questions)
        return self._selection.tokens

    def keep_projected(self, projected: Tensor) -> Tensor | None:
        """Take over what the projector made of the encoder stage's features.

        Args:
            projected: The projector's output, (batch, alive, width).

        Returns:
            The same, padded with zeros to as many tokens as the prompt has placeholders; None
            without an encoder stage.
        """
        if self._selection is None:
            return None
        self._selection = replace(self._selection, tokens=projected)
        missing = self._adapter.visual_tokens - projected.shape[1]
        return torch.nn.functional.pad(projected, (0, 0, 0, missing))

    def enter_decoder(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Drop from the prompt what the encoder stage did not keep.

        Args:
            kwargs: Arguments of the decoder.

        Returns:
            Its arguments for the shorter prompt.

        Raises:
            InputError: The attention mask is no padding mask.
        """
        mask = kwargs.get("attention_mask")
        if mask is not None and mask.ndim != 2:
            raise InputError(
                f"the attention mask has {mask.ndim} dimensions; pruning needs a padding mask of "
                "shape (batch, length)"
            )
        count, position_ids = self._adapter.visual_tokens, kwargs.get("position_ids")
        self._dense = self.layout = Layout.dense(self.image_mask, count, position_ids, mask)
        if self._selection is not None:
            hidden, self.layout = self._dense.drop(
                kwargs["inputs_embeds"], self._selection, compact=self._plan.compact
            )
            # An explicit mask, because positions with gaps alone would be read as packed sequences.
            shorter = self.layout.mask
            if shorter is None:
                shorter = torch.ones_like(self.layout.source)
            kwargs = {
                **kwargs,
                "inputs_embeds": hidden,
                "position_ids": self.layout.position_ids,
                "attention_mask": shorter if mask is None else shorter.to(mask.dtype),
            }
        self._layouts[0] = self.layout
        return kwargs

    def enter_layer(
        self, index: int, hidden: Tensor, kwargs: dict[str, Any]
    ) -> tuple[Tensor, dict[str, Any]]:
        """Run a decoder layer's stage, if it has one.

        Args:
            index: The layer.
            hidden: Its input, (batch, length, width).
            kwargs: Its other arguments.

        Returns:
            What the layer gets instead.
        """
        self._cache = kwargs.get("past_key_values")
        if index in self._plan.decoder:
            hidden = self._run_stage(index, hidden, kwargs["position_embeddings"])
        return hidden, with_positions(kwargs, self._rotation, self._attention_mask)

    def finish(self) -> tuple[PrefillRecord, Any, PrunedCache | None]:
        """Say what was kept.

        Returns:
            The record, the key-value cache that was filled, and what it holds; both None without
            a cache.
        """
        active = [0] if self._selection is not None else []
        active += [layer for layer in self._layouts if layer > 0]
        records = (
            StageRecord(layer, layout.origin, layout.contextual, layout.source)
            for layer in active
            if (layout := self._layouts[layer])
        )
        record = PrefillRecord(tuple(records))
        if self._cache is None or self._dense is None:
            return record, None, None
        first, *stages = (
            CachedStage.after(layer, layout, self._dense, compact=self._plan.compact)
            for layer, layout in self._layouts.items()
        )
        prompt = self._dense.source.shape[1]
        return record, self._cache, PrunedCache(prompt, first, tuple(stages))

    def _run_stage(self, index: int, hidden: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
        assert self.layout is not None
        adapter = self._adapter
        # With a model spread over several devices, the layer's inputs are moved after this hook.
        device = next(adapter.decoder_layers[index].parameters()).device
        hidden, layout = hidden.to(device), self.layout.to(device)
        cos, sin = self._rotation or rotation
        selection = run_decoder_stage(
            *self._plan.decoder[index],
            adapter.decoder_layer(index),
            hidden,
            (cos.to(device), sin.to(device)),
            layout,
        )
        hidden, layout = layout.drop(hidden, selection, compact=self._plan.compact)
        self._rotation = adapter.rotation(hidden, layout.position_ids)
        self._attention_mask = adapter.causal_mask(hidden, layout.mask, self._cache, index)
        self._layouts[index] = self.layout = layout
        return hidden


def with_positions(
    kwargs: dict[str, Any], rotation: tuple[Tensor, Tensor] | None, attention_mask: Any
) -> dict[str, Any]:
    """Give a decoder layer its own stage's positions and mask.

    Args:
        kwargs: Arguments of the layer.
        rotation: Cosines and sines at the stage's positions; None before the first decoder stage.
        attention_mask: What the stage's attention gets.

    Returns:
        The arguments. Position ids are left out: rotations are all that they are for, and flash
        attention would read ids with gaps as packed sequences.
    """
    kwargs = {**kwargs, "position_ids": None}
    if rotation is not None:
        kwargs["position_embeddings"] = rotation
        kwargs["attention_mask"] = attention_mask
    return kwargs


def _check_images(image_mask: Tensor, expected: int) -> None:
    found = image_mask.sum(dim=1).tolist()
    if any(count != expected for count in found):
        raise InputError(
            f"the samples have {found} image placeholders, but pruning supports exactly one image "
            f"per sample, which has {expected}; split the batch or remove the schedule"
        )
