"""The hooks that make a stock model run a plan.

On the way of one call: `core` starts a prefill or a continuation; the encoder stage stands in front
of the projector; the decoder drops what the encoder stage did not keep; each decoder layer gets its
own stage's hidden states, positions and mask.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from pruners.adapters import DecoderCall, ModelAdapter
from pruners.cache import CachedStage, CacheMemory, PrunedCache
from pruners.calls import Continuation, Plan, Prefill, PrefillRecord, StageRecord
from pruners.decoder_stage import run_decoder_stage
from pruners.encoder_stage import run_encoder_stage
from pruners.errors import InputError
from pruners.sequence import Layout
from pruners.text_tower import QuestionOutputs, TextTower
from pruners.vision import VisionOutputs, VisionParts, VisionRecorder

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


class _CurrentCall(threading.local):
    """The call that is under way in each thread."""

    call: Prefill | Continuation | None = None


class PruningHooks:
    """Hooks on one model that run one plan.

    Attributes:
        record: What the newest prefill kept, or None before the first.
    """

    def __init__(
        self,
        adapter: ModelAdapter,
        plan: Plan,
        parts: VisionParts,
        text_tower: TextTower | None,
        questions: Callable[[Prefill], QuestionOutputs | None],
    ) -> None:
        """Install the hooks; a plan that drops nothing needs none.

        Args:
            adapter: The model.
            plan: The plan.
            parts: What the encoder stage reads of images.
            text_tower: The text tower, if it reads one.
            questions: Called when the encoder stage needs a prefill's questions.
        """
        self.record: PrefillRecord | None = None
        self._adapter = adapter
        self._plan = plan
        self._questions = questions
        self._memory = CacheMemory()
        self._current = _CurrentCall()
        self._signature = inspect.signature(adapter.model.forward)
        self._handles: list[Any] = []
        if plan.encoder is not None:
            # Installed first, so that its outputs are there when the hooks below look for them.
            self._handles.append(VisionRecorder(adapter, parts, text_tower))
        try:
            if plan.prunes:
                self._install()
        except BaseException:
            self.remove()
            raise

    def _install(self) -> None:
        adapter = self._adapter
        self._handles += [
            adapter.model.register_forward_pre_hook(self._check_call, with_kwargs=True),
            adapter.core.register_forward_pre_hook(self._start, with_kwargs=True),
            adapter.core.register_forward_hook(self._end, always_call=True),
            adapter.decoder.register_forward_pre_hook(self._enter_decoder, with_kwargs=True),
        ]
        for index, layer in enumerate(adapter.decoder_layers):
            self._handles.append(
                layer.register_forward_pre_hook(self._enter_layer(index), with_kwargs=True)
            )
        if self._plan.encoder is not None:
            self._handles += [
                adapter.vision_tower.register_forward_hook(self._leave_tower),
                adapter.projector.register_forward_pre_hook(self._enter_projector),
                adapter.projector.register_forward_hook(self._leave_projector),
            ]

    def remove(self) -> None:
        """Remove all hooks."""
        for handle in self._handles:
            handle.remove()

    def run_prefill(self, prefill: Prefill, run: Callable[[], Tensor]) -> tuple[Tensor, Tensor]:
        """Run a prefill whose vision outputs are known.

        Args:
            prefill: The prefill.
            run: Runs projector and decoder.

        Returns:
            What `run` returned, (batch, length, width), and the padding mask of that sequence.
        """
        self._current.call = prefill
        try:
            hidden = run()
        finally:
            self._current.call = None
        self._finish(prefill)
        length = hidden.shape[1]
        mask = None if prefill.layout is None else prefill.layout.mask
        if mask is None:
            mask = torch.ones(hidden.shape[0], length, dtype=torch.bool, device=hidden.device)
        return hidden, mask

    # The outermost call: arguments whose meaning depends on the sequence's length.

    def _check_call(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = self._signature.bind_partial(*args, **kwargs).arguments
        if given.get("pixel_values") is None and given.get("mm_encoder_outputs") is None:
            return
        if given.get("labels") is not None:
            raise InputError(
                "labels were given, but a pruned model returns logits only for the tokens that are "
                "left; compute the loss from those, or remove the schedule"
            )
        if isinstance(given.get("logits_to_keep"), Tensor):
            raise InputError(
                "logits_to_keep is a tensor of positions, which pruning moves; pass a number of "
                "positions at the end instead"
            )

    # The core: where a prefill or a continuation starts and ends.

    def _start(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Arguments | None:
        self._current.call = None
        call = self._adapter.read_call(args, kwargs)
        if call.has_images:
            self._current.call = self._start_prefill(call)
            return None
        pruned = self._memory.recall(call.cache)
        if pruned is None:
            return None
        self._current.call = Continuation(pruned, call.cache)
        return (), pruned.new_tokens_only(call)

    def _start_prefill(self, call: DecoderCall) -> Prefill:
        if call.cache is not None:
            if getattr(call.cache, "is_compileable", False):
                raise InputError(
                    f"{type(call.cache).__name__} has one length for all layers, but pruned layers "
                    "hold different ones; use the default cache"
                )
            if call.cache.get_seq_length(0) > 0:
                raise InputError(
                    "an image was given with a cache that is already filled; pruning supports one "
                    "image per sample, in the first call"
                )
        image_mask = self._adapter.image_mask(call)
        self.check_images(image_mask)
        prefill = Prefill(image_mask, call.input_ids)
        if self._plan.encoder is not None and call.encoded_images is not None:
            vision = VisionRecorder.recorded(call.encoded_images)
            if vision is None:
                raise InputError(
                    "the images were encoded before the schedule was applied; pass pixel_values"
                )
            # Beam search repeats the decoder's inputs, not the recorded outputs.
            repeats = call.rows // len(vision)
            rows = torch.arange(len(vision), device=vision.features.device)
            prefill.vision = vision.select(rows.repeat_interleave(repeats))
            self._current.call = prefill
            self.project(prefill.vision)
        return prefill

    def check_images(self, image_mask: Tensor) -> None:
        """Check that every sample has the placeholders of exactly one image.

        Args:
            image_mask: True where an image placeholder is, (batch, length).

        Raises:
            InputError: A sample has another number of placeholders.
        """
        found = image_mask.sum(dim=1).tolist()
        expected = self._adapter.visual_tokens
        if any(count != expected for count in found):
            raise InputError(
                f"the samples have {found} image placeholders, but pruning supports exactly one "
                f"image per sample, which has {expected}; split the batch or remove the schedule"
            )

    def _end(self, module: nn.Module, args: Any, output: Any) -> None:
        call = self._current.call
        self._current.call = None
        if isinstance(call, Prefill) and output is not None:  # None: the model raised an error.
            self._finish(call)

    def _finish(self, prefill: Prefill) -> None:
        self.record = PrefillRecord(tuple(prefill.records))
        dense = prefill.dense
        if prefill.cache is None or dense is None:
            return
        compact = self._plan.compact
        first, *stages = (
            CachedStage.after(layer, layout, dense, compact=compact)
            for layer, layout in prefill.held.items()
        )
        prompt = dense.source.shape[1]
        self._memory.remember(prefill.cache, PrunedCache(prompt, first, tuple(stages)))

    # The encoder stage, in front of the projector.

    def _leave_tower(self, module: nn.Module, args: Any, output: Any) -> None:
        call = self._current.call
        if isinstance(call, Prefill):
            call.vision = VisionRecorder.recorded(output)

    def project(self, vision: VisionOutputs) -> Tensor:
        """Project the vision features that reach the decoder.

        Args:
            vision: The vision outputs.

        Returns:
            Image features, (batch, N, width); with an encoder stage, zeros stand for what it drops.
        """
        skipped = 1 if self._adapter.class_token else 0
        features: Tensor = self._adapter.projector(vision.features[:, skipped:])
        return features

    def _enter_projector(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Tensor] | None:
        call = self._current.call
        if not isinstance(call, Prefill) or call.vision is None or self._plan.encoder is None:
            return None
        rows = call.image_mask.shape[0]
        if len(call.vision) != rows:
            raise InputError(
                f"{len(call.vision)} images were given for {rows} samples; pruning supports "
                "exactly one image per sample"
            )
        stage, counts = self._plan.encoder
        call.selection = run_encoder_stage(stage, counts, call.vision, self._questions(call))
        return (call.selection.tokens,)

    def _leave_projector(self, module: nn.Module, args: Any, output: Tensor) -> Tensor | None:
        call = self._current.call
        if not isinstance(call, Prefill) or call.selection is None:
            return None
        call.selection = replace(call.selection, tokens=output)
        return pad(output, (0, 0, 0, self._adapter.visual_tokens - output.shape[1]))

    # The decoder, in front of its first layer.

    def _enter_decoder(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Arguments | None:
        call = self._current.call
        if isinstance(call, Prefill):
            return args, self._shorten_prompt(call, kwargs)
        if isinstance(call, Continuation):
            return args, self._shift_step(call, kwargs)
        return None

    def _shorten_prompt(self, prefill: Prefill, kwargs: dict[str, Any]) -> dict[str, Any]:
        mask = kwargs.get("attention_mask")
        if mask is not None and mask.ndim != 2:
            raise InputError(
                f"the attention mask has {mask.ndim} dimensions; pruning needs a padding mask of "
                "shape (batch, length)"
            )
        prefill.dense = Layout.dense(
            prefill.image_mask, self._adapter.visual_tokens, kwargs.get("position_ids"), mask
        )
        prefill.layout = prefill.dense
        if self._plan.encoder is not None:
            assert prefill.selection is not None
            hidden, layout = prefill.dense.drop(
                kwargs["inputs_embeds"], prefill.selection, compact=self._plan.compact
            )
            # An explicit mask, because positions with gaps alone would be read as packed sequences.
            shorter = torch.ones_like(layout.source) if layout.mask is None else layout.mask
            kwargs = {
                **kwargs,
                "inputs_embeds": hidden,
                "position_ids": layout.position_ids,
                "attention_mask": shorter if mask is None else shorter.to(mask.dtype),
            }
            prefill.layout = layout
            prefill.records.append(StageRecord.of(0, layout))
        prefill.held[0] = prefill.layout
        return kwargs

    def _shift_step(self, step: Continuation, kwargs: dict[str, Any]) -> dict[str, Any]:
        rows, new = kwargs["inputs_embeds"].shape[:2]
        start = step.pruned.dense_length(step.cache)
        step.mask = kwargs.get("attention_mask")
        step.pruned.check(rows, step.mask, start + new)
        position_ids = kwargs.get("position_ids")
        if position_ids is None:
            position_ids = start + torch.arange(new, device=kwargs["inputs_embeds"].device)[None]
        step.position_ids = position_ids
        first = step.pruned.first
        return {
            **kwargs,
            "position_ids": position_ids + first.shift.to(position_ids.device),
            "attention_mask": first.mask(step.mask, step.pruned.prompt),
        }

    # The decoder's layers.

    def _enter_layer(self, index: int) -> Callable[..., Arguments | None]:
        def enter(
            module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
        ) -> Arguments | None:
            call = self._current.call
            if call is None:
                return None
            hidden: Tensor = args[0] if args else kwargs["hidden_states"]
            if isinstance(call, Prefill):
                hidden = self._run_stage(call, index, hidden, kwargs)
            else:
                self._continue_stage(call, index, hidden)
            # Flash attention would read positions with gaps as packed sequences; the rotary
            # embedding, which is all that positions are for, is passed beside them.
            kwargs = {**kwargs, "position_ids": None}
            if call.rotation is not None:
                kwargs["position_embeddings"] = call.rotation
                kwargs["attention_mask"] = call.attention_mask
            if args:
                return (hidden, *args[1:]), kwargs
            return args, {**kwargs, "hidden_states": hidden}

        return enter

    def _run_stage(
        self, prefill: Prefill, index: int, hidden: Tensor, kwargs: dict[str, Any]
    ) -> Tensor:
        prefill.cache = kwargs.get("past_key_values")
        if index not in self._plan.decoder:
            return hidden
        stage, counts = self._plan.decoder[index]
        layer = self._adapter.decoder_layer(index)
        # With a model spread over several devices, the layer's inputs are moved after this hook.
        device = next(self._adapter.decoder_layers[index].parameters()).device
        assert prefill.layout is not None
        hidden, layout = hidden.to(device), prefill.layout.to(device)
        cos, sin = prefill.rotation or kwargs["position_embeddings"]
        rotation = cos.to(device), sin.to(device)
        selection = run_decoder_stage(stage, counts, layer, hidden, rotation, layout)
        hidden, layout = layout.drop(hidden, selection, compact=self._plan.compact)
        prefill.layout = layout
        prefill.rotation = self._adapter.rotation(hidden, layout.position_ids)
        prefill.attention_mask = self._adapter.causal_mask(
            hidden, layout.mask, prefill.cache, index
        )
        prefill.held[index] = layout
        prefill.records.append(StageRecord.of(index, layout))
        return hidden

    def _continue_stage(self, step: Continuation, index: int, hidden: Tensor) -> None:
        stage = next((stage for stage in step.pruned.stages if stage.layer == index), None)
        if stage is None:
            return
        assert step.position_ids is not None
        position_ids = step.position_ids.to(hidden.device) + stage.shift.to(hidden.device)
        mask = stage.mask(step.mask, step.pruned.prompt)
        step.rotation = self._adapter.rotation(hidden, position_ids)
        step.attention_mask = self._adapter.causal_mask(hidden, mask, step.cache, index)
