"""One prefill of a pruned model: the prompt's way through the stages."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from pruners.adapters import ModelAdapter
from pruners.attention_rows import LayerAttention
from pruners.cache import CachedStage, PrunedCache
from pruners.counting import StageCounts
from pruners.decoder_stage import DecoderReads, run_decoder_stage
from pruners.encoder_stage import run_encoder_stage
from pruners.errors import InputError
from pruners.layer_arguments import with_positions
from pruners.plan import Plan
from pruners.prefill_record import PrefillRecord, StageRecord
from pruners.reads import reads_previous_layer, reads_raters
from pruners.saliency import rater_mask
from pruners.scorers import VisionScorer
from pruners.scores import Scores
from pruners.selection import gather_tokens
from pruners.sequence import Layout, Selection, positions_from_zero
from pruners.stages import Stage
from pruners.text_tower import QuestionOutputs
from pruners.vision_outputs import VisionOutputs
from pruners.vision_scores import patch_scores


class Prefill:
    """A prefill under way; its methods are called in the order in which the model runs.

    Attributes:
        image_mask: True where an image placeholder is, (batch, length).
        input_ids: Token ids, to read the questions from, or None.
        questions: Questions, one per sample: those that were given with the call, or found before
            the first stage; None if there are none.
        vision: What is known of the images, once the vision tower has run.
        tower: What is left of the images, once they have gone through a tower that drops tokens.
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
        self.tower: Selection | None = None
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
        # What decoder stages read beside the sequence itself.
        self._raters: Tensor | None = None
        self._previous: LayerAttention | None = None

    def enter_projector(self) -> Tensor | None:
        """Run the encoder stage, if it works on vision features.

        Returns:
            The features that the projector gets, (batch, alive, width); None for all of them.

        Raises:
            InputError: There are not as many images as samples.
        """
        images = self.tower.tokens if self.tower is not None else self.vision
        rows = self.image_mask.shape[0]
        if images is not None and len(images) != rows:
            raise InputError(
                f"{len(images)} images were given for {rows} samples; pruning supports "
                "exactly one image per sample"
            )
        if self.tower is not None:
            self._selection = self.tower
        elif self._plan.encoder is not None and self.vision is not None:
            if self._plan.encoder[0].features == "projected":
                return None
            skipped = 1 if self._adapter.class_token else 0
            self._selection = self._choose(self.vision, self.vision.features[:, skipped:])
        return None if self._selection is None else self._selection.tokens

    def leave_projector(self, projected: Tensor) -> Tensor | None:
        """Take over the projected features, or run the encoder stage that works on them.

        Args:
            projected: The projector's output, (batch, alive or N, width).

        Returns:
            The features alive, padded with zeros to as many tokens as the prompt has placeholders;
            None without an encoder stage.
        """
        if self._selection is not None:
            self._selection = replace(self._selection, tokens=projected)
        elif self._plan.encoder is not None and self.vision is not None:
            self._selection = self._choose(self.vision, projected)
        else:
            return None
        return padded(self._selection.tokens, self._adapter.visual_tokens)

    def _choose(self, vision: VisionOutputs, patches: Tensor) -> Selection:
        assert self._plan.encoder is not None
        return run_encoder_stage(
            *self._plan.encoder,
            vision,
            self.questions,
            patches=patches,
            vision_layers=len(self._adapter.vision_layers),
        )

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
        if reads_raters(self._plan):
            self._raters = self._find_raters(self.layout, kwargs["inputs_embeds"])
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
        rotation = kwargs["position_embeddings"]
        if index in self._plan.decoder:
            hidden = self._run_stage(index, hidden, rotation)
        following = self._plan.decoder.get(index + 1)
        self._previous = None
        if following is not None and reads_previous_layer(following[0]):
            self._previous = self._attention(index, hidden, self._rotation or rotation)
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
        stage, counts = self._plan.decoder[index]
        previous = self._previous
        reads = DecoderReads(
            next=self._attention(index, hidden, self._rotation or rotation),
            previous=None if previous is None else previous.to(device),
            compared=lambda: adapter.decoder_norm(hidden),
            rotation_from_zero=lambda: adapter.rotation(hidden, positions_from_zero(layout)),
            patch_scores=self._patch_scores(stage, counts),
            raters=None if self._raters is None else self._raters.to(device),
        )
        selection = run_decoder_stage(stage, counts, hidden, layout, reads)
        hidden, layout = layout.drop(hidden, selection, compact=self._plan.compact)
        self._rotation = adapter.rotation(hidden, layout.position_ids)
        self._attention_mask = adapter.causal_mask(hidden, layout.mask, self._cache, index)
        self._layouts[index] = self.layout = layout
        return hidden

    def _attention(
        self, index: int, hidden: Tensor, rotation: tuple[Tensor, Tensor]
    ) -> LayerAttention:
        device = next(self._adapter.decoder_layers[index].parameters()).device
        cos, sin = rotation
        rotation = (cos.to(device), sin.to(device))
        return LayerAttention(self._adapter.decoder_layer(index), hidden.to(device), rotation)

    def _patch_scores(self, stage: Stage, counts: StageCounts) -> Scores | None:
        if counts.alive == 0 or not isinstance(stage.scorer, VisionScorer):
            return None  # a stage that drops all tokens chooses none
        assert self.vision is not None
        return patch_scores(stage, counts, self.vision, self.questions)

    def _find_raters(self, layout: Layout, embeds: Tensor) -> Tensor:
        """Find SparseVLM's raters among the text tokens: (batch, dense length)."""
        assert self._dense is not None
        text = layout.text
        visual = gather_tokens(embeds, layout.visual)
        raters = rater_mask(visual, gather_tokens(embeds, text), layout.is_question(text))
        nowhere = torch.zeros_like(self._dense.source, dtype=torch.bool)
        return nowhere.scatter(1, layout.source.gather(1, text), raters)


def padded(features: Tensor, count: int) -> Tensor:
    """Pad image features with zeros, for prompts with more placeholders.

    Args:
        features: Features, (batch, alive, width).
        count: Placeholders per prompt.

    Returns:
        Features, (batch, count, width).
    """
    return torch.nn.functional.pad(features, (0, 0, 0, count - features.shape[1]))


def _check_images(image_mask: Tensor, expected: int) -> None:
    found = image_mask.sum(dim=1).tolist()
    if any(count != expected for count in found):
        raise InputError(
            f"the samples have {found} image placeholders, but pruning supports exactly one image "
            f"per sample, which has {expected}; split the batch or remove the schedule"
        )
