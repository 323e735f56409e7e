"""Applying a schedule to a Hugging Face model, and taking it off again."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPooling

from pruners.adapters import ModelAdapter, adapter_for
from pruners.encoded_media import EncodedMedia, MediaRecorder
from pruners.errors import InputError, ModelError
from pruners.fitting import check_depth, check_encoder_stage, paired_text_tower
from pruners.hooks import PruningHooks
from pruners.media import whole_images
from pruners.per_thread import PerThread
from pruners.plan import Plan
from pruners.prefill import Prefill
from pruners.prefill_record import PrefillRecord
from pruners.prompt import Prompt
from pruners.questions import PromptReader
from pruners.reads import vision_parts
from pruners.schedule import Schedule
from pruners.text_tower import QuestionOutputs, TextTower
from pruners.tower import TowerPruning
from pruners.transfer import send_numbers
from pruners.vision import check_layers
from pruners.vision_outputs import VisionOutputs
from pruners.vision_towers import TowerOutputs
from pruners.vision_towers.batched import BatchedTower

_HANDLE = "_prunetune_handle"


class PrunedModel:
    """The handle of a model that a schedule is applied to; also a context manager that removes it.

    Attributes:
        schedule: The schedule.
    """

    def __init__(
        self,
        adapter: ModelAdapter,
        schedule: Schedule,
        plan: Plan,
        text_tower: TextTower | None,
        reader: PromptReader,
    ) -> None:
        """Install the hooks; use `apply_schedule`, which checks that everything fits.

        Args:
            adapter: The model.
            schedule: The schedule.
            plan: The schedule on this model.
            text_tower: The text tower, if a stage reads one.
            reader: Reads questions from prompts.
        """
        self.schedule = schedule
        self._adapter = adapter
        self._plan = plan
        self._text_tower = text_tower
        self._reader = reader
        self._given: PerThread[QuestionOutputs] = PerThread()
        self._parts = vision_parts(plan, adapter)
        self._hooks = PruningHooks(adapter, plan, self._parts, text_tower, self._questions_of)
        setattr(adapter.core, _HANDLE, self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def remove(self) -> None:
        """Restore the model exactly as it was; a second call does nothing.

        Raises:
            ModelError: A call is under way in another thread.
        """
        self._hooks.remove()
        if getattr(self._adapter.core, _HANDLE, None) is self:
            delattr(self._adapter.core, _HANDLE)

    @property
    def last_prefill(self) -> PrefillRecord | None:
        """What the newest prefill of any thread kept; None before the first."""
        return self._hooks.record

    @contextmanager
    def questions(self, questions: Sequence[str]) -> Iterator[None]:
        """Give the questions of the calls inside, instead of reading them from the prompts.

        They are those of this thread alone; calls in others go on reading their prompts.

        Args:
            questions: One text per sample of the batch.

        Raises:
            InputError: The schedule reads no question.
        """
        if self._text_tower is None:
            raise InputError(
                "questions were given, but the schedule compares none with the image; call the "
                "model without them"
            )
        before, self._given.value = self._given.value, self._encode(questions)
        try:
            yield
        finally:
            self._given.value = before

    @torch.no_grad()
    def prefill(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        vision: VisionOutputs,
        questions: QuestionOutputs | None = None,
    ) -> Tensor:
        """Run a prompt on images that have been encoded before, without the vision tower.

        Args:
            input_ids: Token ids with one image's placeholders per sample, (batch, length).
            attention_mask: Nonzero for tokens, 0 for padding, (batch, length); None without
                padding.
            vision: What `encode_images` returned, one image per sample.
            questions: What `TextTower.encode` returned, one question per sample; by default they
                are read from the prompts when the schedule needs them.

        Returns:
            Logits at each sample's last token that is no padding, (batch, vocabulary).

        Raises:
            InputError: A sample has not exactly one image, the numbers of samples differ, `vision`
                lacks what the schedule reads, or the schedule has been removed.
        """
        adapter = self._adapter
        self._check_applied()
        input_ids = input_ids.to(adapter.device)
        if attention_mask is not None:
            attention_mask = attention_mask.to(adapter.device)
        prompt = Prompt.of_ids(adapter, input_ids, attention_mask)
        for name, given in (("images", vision), ("questions", questions)):
            if given is not None and len(given) != input_ids.shape[0]:
                raise InputError(
                    f"{len(given)} {name} were given for {input_ids.shape[0]} prompts; pass one "
                    "per prompt"
                )
        encoded = self._encoded_media(vision)
        if questions is None:
            questions = self._questions_of(prompt)
        prefill = Prefill(adapter, self._plan, prompt, questions=questions)
        prefill.encoded["image"] = encoded
        with self._hooks.running(prefill):
            embeds = adapter.embed(input_ids)
            if not prefill.skips_projector:
                placeholders = (input_ids == adapter.placeholder_ids()["image"]).unsqueeze(-1)
                features = self._projected(vision).to(embeds.dtype)
                embeds = embeds.masked_scatter(placeholders, features)
            output = adapter.decoder(
                inputs_embeds=embeds, attention_mask=attention_mask, use_cache=False
            )
        hidden: Tensor = output.last_hidden_state
        mask = attention_mask if prefill.batch is None else prefill.batch.mask
        if mask is None:
            last = hidden[:, -1]
        else:
            positions = torch.arange(mask.shape[1], device=hidden.device)
            ends = (positions * mask.bool()).amax(dim=1)
            last = hidden[torch.arange(len(ends), device=ends.device), ends]
        return adapter.head(last)

    @torch.no_grad()
    def encoded_images(self, vision: VisionOutputs) -> dict[str, Any]:
        """Make the arguments that take the pixels' place in a call of the model, or of `generate`.

        Args:
            vision: What `encode_images` returned, the images in the order of their placeholders.

        Returns:
            Keyword arguments for the model; the vision tower will not run.

        Raises:
            InputError: `vision` lacks what the schedule reads, the schedule prunes inside the
                vision tower, or it has been removed.
        """
        self._check_applied()
        if self._plan.in_tower:
            raise InputError(
                "the schedule drops tokens inside the vision tower, so that images cannot be "
                "encoded before; pass pixel values"
            )
        output = BaseModelOutputWithPooling(pooler_output=list(self._projected(vision)))
        MediaRecorder.attach(output, self._encoded_media(vision))
        return {"mm_encoder_outputs": {"image": output}}

    @property
    def prunes_in_tower(self) -> bool:
        """Whether tokens are dropped inside the vision tower, which then runs for each schedule."""
        return self._plan.in_tower

    def _check_applied(self) -> None:
        if getattr(self._adapter.core, _HANDLE, None) is not self:
            raise InputError("the schedule has been removed from the model; apply it again")

    def _encoded_media(self, vision: VisionOutputs) -> EncodedMedia:
        """Describe images that `encode_images` has encoded."""
        vision.check(self._parts)
        tower = self._adapter.towers["image"]
        assert isinstance(tower, BatchedTower)
        side = math.isqrt(tower.patches)
        left = None
        if self._plan.in_tower:
            assert vision.pixels is not None
            left = TowerPruning.recorded(tower.module(vision.pixels))
        return EncodedMedia(whole_images(len(vision), (side, side)), TowerOutputs((vision,)), left)

    def _projected(self, vision: VisionOutputs) -> Tensor:
        """Project all patches of images: (images, visual, decoder's width)."""
        tower = self._adapter.towers["image"]
        assert isinstance(tower, BatchedTower)
        assert self._adapter.projector is not None
        assert vision.features is not None
        patches = vision.features[:, 1:] if tower.class_token else vision.features
        features: Tensor = self._adapter.projector(patches)
        return features

    def _questions_of(self, prompt: Prompt) -> QuestionOutputs | None:
        """Find the questions of prompts: given before the call, or read from the prompts."""
        if not self._parts.need_text_tower:
            return None
        rows = len(prompt)
        given = self._given.value
        if given is not None:
            if rows % len(given):
                raise InputError(
                    f"{len(given)} questions were given for {rows} samples; pass one per sample"
                )
            # Beam search and several returned sequences repeat each sample.
            indices = torch.arange(len(given), device=given.tokens.device)
            return given.select(indices.repeat_interleave(rows // len(given)))
        if prompt.ids is None or self._text_tower is None:
            return None
        scorer = self._plan.question_scorer
        assert scorer is not None
        texts = self._reader.read(prompt.ids, scorer.text)
        distinct = list(dict.fromkeys(texts))
        encoded = self._encode(distinct)
        chosen = [distinct.index(text) for text in texts]
        return encoded.select(send_numbers(chosen, encoded.tokens.device))

    def _encode(self, questions: Sequence[str]) -> QuestionOutputs:
        """Encode questions where the model is now, which may have been moved."""
        assert self._text_tower is not None
        adapter = self._adapter
        return self._text_tower.to(adapter.device, adapter.dtype).encode(questions)


def apply_schedule(
    model: nn.Module,
    schedule: Schedule,
    *,
    processor: Any = None,
    text_tower: TextTower | str | os.PathLike[str] | None = None,
) -> PrunedModel:
    """Make a model prune its visual tokens by a schedule, in every call with images or videos.

    Hooks are installed on this instance; its class and weights are untouched. `model(...)` returns
    logits for the tokens that are left, `model.generate(...)` works as before, and calls without
    images are not changed. (Where stages at layer 0 work before the projector, as in LLaVA-1.5,
    `generate` projects the images before it knows the prompt, so that there the projector runs on
    all visual tokens once more; no other part does.)

    Args:
        model: A stock model of one of the families of `pruners.adapters.FAMILIES`, as
            `AutoModelForImageTextToText.from_pretrained` loads it.
        schedule: The schedule, for a decoder of this depth.
        processor: The model's processor, which reads the question back from the prompt; by default
            it is loaded from where the model came from when first needed.
        text_tower: Text tower, or folder or hub name of a CLIP checkpoint, to use instead of the
            one that the schedule names. It must be paired with the model's vision tower.

    Returns:
        The handle; `remove` restores the model.

    Raises:
        UnsupportedModelError: The model's family has no adapter, or its configuration cannot be
            pruned.
        ScheduleMismatchError: The schedule does not fit the model, or reads what it has not: a CLS
            token, a paired text tower, a tower inside which tokens can leave.
        ModelError: The model already has a schedule, or the text tower cannot be loaded.
    """
    adapter = adapter_for(model)
    if getattr(adapter.core, _HANDLE, None) is not None:
        raise ModelError(
            "the model, or one that shares its parts, already has a schedule; call remove() on its "
            "handle before applying another"
        )
    check_depth(adapter, schedule)
    plan = Plan.of(schedule)
    check_encoder_stage(adapter, plan)
    parts = vision_parts(plan, adapter)
    check_layers(adapter, parts)
    tower = paired_text_tower(adapter, plan, text_tower) if parts.need_text_tower else None
    reader = PromptReader(
        processor, getattr(model, "name_or_path", ""), adapter.placeholder_ids().values()
    )
    return PrunedModel(adapter, schedule, plan, tower, reader)
