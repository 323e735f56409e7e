"""One prefill of a pruned model: the prompts' way through the stages."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from pruners.adapters import ModelAdapter
from pruners.added_features import AddedFeatures
from pruners.attention_rows import LayerAttention
from pruners.batch import Batch
from pruners.cache import CachedStage, PrunedCache, positions_ahead
from pruners.decoder_stage import DecoderReads, find_raters, run_decoder_stage
from pruners.dense_batch import dense_batch
from pruners.devices import device_of
from pruners.encoded_media import EncodedMedia
from pruners.encoder_stage import run_encoder_stage, sample_patch_scores
from pruners.groups import Group, GroupReader, groups_of
from pruners.layer_arguments import with_positions
from pruners.media import Kind
from pruners.plan import Plan
from pruners.positions import positions_from_zero
from pruners.prefill_record import GroupRecord, PrefillRecord, StageRecord
from pruners.prompt import Prompt
from pruners.reads import reads_previous_layer, reads_raters
from pruners.samples import samples_of
from pruners.scorers import VisionScorer
from pruners.scores import Scores
from pruners.selection import gather_tokens
from pruners.sequence import Layout
from pruners.stages import Stage
from pruners.text_tower import QuestionOutputs


class Prefill:
    """A prefill under way; its methods are called in the order in which the model runs.

    Attributes:
        prompt: The prompts.
        encoded: Its images and videos, as far as they have been encoded.
        questions: Questions, one per sample, or None; needed before the decoder runs.
        batch: The sequences as they are; None before the decoder.
        spared: Whether zeros have stood for the images that the projector has not run on.
    """

    def __init__(
        self,
        adapter: ModelAdapter,
        plan: Plan,
        prompt: Prompt,
        *,
        questions: QuestionOutputs | None = None,
    ) -> None:
        """Start a prefill.

        Args:
            adapter: The model.
            plan: The plan.
            prompt: The prompts.
            questions: Questions, one per sample, or None.
        """
        self.prompt = prompt
        self.encoded: dict[Kind, EncodedMedia] = {}
        self.questions = questions
        self.batch: Batch | None = None
        self.spared = False
        self._adapter = adapter
        self._plan = plan
        # An image takes as many positions with M-RoPE as its longer side has tokens, however many
        # are left, so there is nothing to compact.
        self._compact = plan.compact and adapter.position_axes == 1
        self._readers: tuple[GroupReader, ...] = ()
        self._dense: Batch | None = None
        # Batches by boundary; those of the layers before the first decoder boundary are at 0.
        self._batches: dict[int, Batch] = {}
        self._cache: Any = None
        self._rotation: tuple[Tensor, Tensor] | None = None
        self._masks: dict[str, Any] = {}
        # What decoder stages read beside the sequences themselves.
        self._raters: list[Tensor | None] = []
        self._previous: list[LayerAttention | None] = []
        self._added: AddedFeatures | None = None

    @property
    def skips_projector(self) -> bool:
        """Whether the projector is still to run, on what a stage keeps."""
        return self.batch is None and projects_later(self._plan, self._adapter)

    def enter_decoder(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Drop from the prompts what the encoder stage does not keep.

        Args:
            kwargs: Arguments of the decoder.

        Returns:
            Its arguments for the shorter prompts.

        Raises:
            InputError: Prompts and media do not fit each other, or a question is missing.
        """
        added, kwargs = self._adapter.take_added_features(kwargs)
        embeds = kwargs["inputs_embeds"]
        samples = samples_of(self.prompt, self.encoded)
        groups = groups_of(samples, self._plan, embeds.device)
        self._readers = tuple(GroupReader(group, self.encoded, self.questions) for group in groups)
        self.batch = self._dense = dense_batch(
            groups, self.prompt, kwargs, self._adapter.position_axes
        )
        self._added = AddedFeatures(added, self._dense)
        later = projects_later(self._plan, self._adapter)
        if any(0 in group.counts or (later and group.classes) for group in groups):
            embeds, self.batch = self.batch.changed(embeds, self._run_encoder_stage)
            # The decoder's own positions and masks are not used: every layer gets its batch's.
            kwargs = {**kwargs, "position_ids": None, "attention_mask": None}
            kwargs["inputs_embeds"] = embeds
            self._rotation = self._adapter.rotation(embeds, self.batch.position_ids)
        self._batches[0] = self.batch
        if reads_raters(self._plan):
            self._raters = [
                find_raters(layout, group.of(embeds), self.prompt.length) if group.counts else None
                for group, layout in zip(groups, self.batch.layouts, strict=True)
            ]
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
        assert self.batch is not None
        self._cache = kwargs.get("past_key_values")
        rotation = kwargs["position_embeddings"]
        if self._added is not None:
            hidden = self._added.add(index - 1, hidden, self.batch)
        if index > 0 and any(index in group.counts for group in self.batch.groups):
            hidden = self._run_stage(index, hidden, self._rotation or rotation)
        following = self._plan.decoder.get(index + 1)
        self._previous = []
        if following is not None and reads_previous_layer(following):
            on_device = hidden.to(self._device(index))
            self._previous = [
                self._attention(index, group, group.of(on_device), self._rotation or rotation)
                if index + 1 in group.counts
                else None
                for group in self.batch.groups
            ]
        if self._rotation is None:
            return hidden, with_positions(kwargs, None, None)
        return hidden, with_positions(kwargs, self._rotation, self._mask(index, hidden))

    def finish(self) -> tuple[PrefillRecord, Any, PrunedCache | None]:
        """Say what was kept.

        Returns:
            The record, the key-value cache that was filled, and what it holds; both None without
            a cache.
        """
        assert self._dense is not None
        groups = self._dense.groups
        record = PrefillRecord(tuple(map(self._record, range(len(groups)), groups)))
        if self._cache is None:
            return record, None, None
        first, *stages = (
            CachedStage.after(layer, batch, self._dense, compact=self._compact)
            for layer, batch in self._batches.items()
        )
        padded = self.prompt.real is not None
        ahead = positions_ahead(self._dense) if self._adapter.position_axes > 1 else None
        dropped = any(group.stages for group in record.groups)
        held = PrunedCache(self.prompt.length, first, tuple(stages), padded, dropped, ahead)
        return record, self._cache, held

    def _record(self, number: int, group: Group) -> GroupRecord:
        records = []
        for layer, batch in self._batches.items():
            if layer not in group.counts:
                continue
            layout = batch.layouts[number]
            records.append(StageRecord(layer, layout.origin, layout.contextual, layout.source))
        return GroupRecord(group.rows, group.visual, tuple(records))

    def _run_encoder_stage(self, number: int, hidden: Tensor) -> tuple[Tensor, Layout]:
        assert self._dense is not None
        layout = self._dense.layouts[number]
        reader = self._readers[number]
        later = projects_later(self._plan, self._adapter)
        if not reader.group.classes or not (later or 0 in reader.group.counts):
            return hidden, layout
        features = None if later else gather_tokens(hidden, layout.visual)
        tower = self._adapter.towers[reader.group.classes[0].kind]
        selection = run_encoder_stage(self._plan, reader, features, tower)
        if later:
            assert self._adapter.projector is not None
            selection = replace(selection, tokens=self._adapter.projector(selection.tokens))
        return layout.drop(hidden, selection, compact=self._compact)

    def _run_stage(self, index: int, hidden: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
        assert self.batch is not None
        # With a model spread over several devices, the layer's inputs are moved after this hook.
        device = self._device(index)
        hidden, batch = hidden.to(device), self.batch.to(device)
        run = partial(self._run_group_stage, index, batch, rotation)
        hidden, batch = batch.changed(hidden, run)
        self._rotation = self._adapter.rotation(hidden, batch.position_ids)
        self._masks = {}
        self._batches[index] = self.batch = batch
        return hidden

    def _run_group_stage(
        self,
        index: int,
        batch: Batch,
        rotation: tuple[Tensor, Tensor],
        number: int,
        hidden: Tensor,
    ) -> tuple[Tensor, Layout]:
        group, layout = batch.groups[number], batch.layouts[number]
        counts = group.counts.get(index)
        if counts is None:
            return hidden, layout
        adapter, stage = self._adapter, self._plan.decoder[index]
        previous = self._previous_attention(index, number)
        raters = self._raters[number] if self._raters else None
        reads = DecoderReads(
            next=self._attention(index, group, hidden, rotation),
            previous=None if previous is None else previous.to(hidden.device),
            compared=lambda: adapter.decoder_norm(hidden),
            rotation_from_zero=lambda: adapter.rotation(
                hidden, positions_from_zero(layout.position_ids, layout.mask)
            ),
            patch_scores=self._patch_scores(stage, number),
            raters=None if raters is None else raters.to(hidden.device),
        )
        selection = run_decoder_stage(stage, counts, hidden, layout, reads)
        return layout.drop(hidden, selection, compact=self._compact)

    def _device(self, index: int) -> torch.device:
        return device_of(self._adapter.decoder_layers[index])

    def _previous_attention(self, index: int, number: int) -> LayerAttention | None:
        """Return the attention of the layer before a stage, with the keys that it has cached."""
        previous = self._previous[number] if self._previous else None
        if previous is None or self._cache is None or self.batch is None:
            return previous
        keys = self._cache.layers[index - 1].keys
        # A quantised cache holds none as they were, an offloaded one sends them away.
        if keys.ndim != 4 or keys.device != self._device(index - 1):
            return previous
        return previous.with_keys(self.batch.groups[number].of(keys))

    def _attention(
        self, index: int, group: Group, hidden: Tensor, rotation: tuple[Tensor, Tensor]
    ) -> LayerAttention:
        """Return a layer's attention over a group's sequences, given the whole batch's rotation."""
        cos, sin = (
            group.of(part.expand(len(self.prompt), -1, -1)).to(hidden.device) for part in rotation
        )
        return LayerAttention(self._adapter.decoder_layer(index), hidden, (cos, sin))

    def _mask(self, index: int, hidden: Tensor) -> Any:
        """Return what a layer's attention gets, made once for all layers of a kind."""
        assert self.batch is not None
        kind = self._adapter.attention_type(index)
        if kind not in self._masks:
            mask = self.batch.mask
            self._masks[kind] = self._adapter.causal_mask(hidden, mask, self._cache, index)
        return self._masks[kind]

    def _patch_scores(self, stage: Stage, number: int) -> Scores | None:
        counts = self._readers[number].group.counts[stage.layer]
        if counts.alive == 0 or not isinstance(stage.scorer, VisionScorer):
            return None  # a stage that drops all tokens chooses none
        return sample_patch_scores(stage, counts, self._readers[number])


def projects_later(plan: Plan, adapter: ModelAdapter) -> bool:
    """Say whether the projector runs on what a stage at layer 0 keeps, instead of on everything.

    Args:
        plan: The plan.
        adapter: The model.

    Returns:
        Whether the stage works on the vision tower's features.
    """
    encoder = plan.encoder
    return encoder is not None and adapter.projector is not None and encoder.features == "vision"
