"""The hooks that make a stock model run a plan.

On the way of one call: `core` starts a prefill or a continuation; the encoder stage stands in front
of the projector; the decoder drops what the encoder stage did not keep; each decoder layer gets its
own stage's hidden states, positions and mask.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pruners.adapters import DecoderCall, ModelAdapter
from pruners.cache import CacheMemory
from pruners.continuation import Continuation
from pruners.errors import InputError
from pruners.per_thread import PerThread
from pruners.plan import Plan
from pruners.prefill import Prefill, padded
from pruners.prefill_record import PrefillRecord
from pruners.text_tower import QuestionOutputs, TextTower
from pruners.tower import TowerPruning
from pruners.vision import VisionRecorder
from pruners.vision_outputs import VisionOutputs, VisionParts

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


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
            parts: What stages read of images.
            text_tower: The text tower, if a stage reads one.
            questions: Finds a prefill's questions, where stages read them.
        """
        self.record: PrefillRecord | None = None
        self._adapter = adapter
        self._plan = plan
        self._questions = questions
        self._memory = CacheMemory()
        self._current: PerThread[Prefill | Continuation] = PerThread()
        self._signature = inspect.signature(adapter.model.forward)
        self._handles: list[Any] = []
        self._reads_images = plan.encoder is not None or parts != VisionParts()
        # Installed first, so that outputs are there when the hooks below look for them.
        if plan.encoder is not None and plan.in_tower:
            stage, counts = plan.encoder
            self._handles.append(TowerPruning(adapter, stage, counts.alive))
        elif self._reads_images:
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
                layer.register_forward_pre_hook(partial(self._enter_layer, index), with_kwargs=True)
            )
        if self._reads_images:
            self._handles += [
                adapter.vision_tower.register_forward_hook(self._leave_tower),
                adapter.projector.register_forward_pre_hook(self._enter_projector),
                adapter.projector.register_forward_hook(self._leave_projector),
            ]

    def remove(self) -> None:
        """Remove all hooks."""
        for handle in self._handles:
            handle.remove()

    @contextmanager
    def running(self, prefill: Prefill) -> Iterator[None]:
        """Run projector and decoder inside as parts of a prefill.

        Args:
            prefill: The prefill.
        """
        self._current.value = prefill
        try:
            yield
        finally:
            self._current.value = None
        self._finish(prefill)

    def project(self, vision: VisionOutputs) -> Tensor:
        """Project the vision features that reach the decoder.

        Args:
            vision: The vision outputs.

        Returns:
            Image features, (batch, N, width); in a prefill, zeros stand for what its encoder stage
            drops.
        """
        if self._plan.in_tower:
            assert vision.pixels is not None
            output = self._adapter.vision_tower(vision.pixels)
            tower = TowerPruning.recorded(output)
            assert tower is not None
            return self._projected(tower.tokens)
        skipped = 1 if self._adapter.class_token else 0
        return self._projected(vision.features[:, skipped:])

    def _projected(self, features: Tensor) -> Tensor:
        projected: Tensor = self._adapter.projector(features)
        return projected

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
        self._current.value = None
        call = self._adapter.read_call(args, kwargs)
        if call.has_images:
            self._current.value = self._start_prefill(call)
            return None
        pruned = self._memory.recall(call.cache)
        if pruned is None:
            return None
        step = Continuation(self._adapter, pruned, call.cache)
        self._current.value = step
        return (), step.new_tokens_only(call)

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
        prefill = Prefill(self._adapter, self._plan, image_mask, input_ids=call.input_ids)
        if self._reads_images and call.encoded_images is not None:
            self._take_encoded(prefill, call.encoded_images)
        return prefill

    def _take_encoded(self, prefill: Prefill, encoded: Any) -> None:
        """Run the encoder stage on images that were encoded before the call."""
        tower, vision = TowerPruning.recorded(encoded), VisionRecorder.recorded(encoded)
        images = tower.tokens if tower is not None else vision
        if images is None:
            raise InputError(
                "the images were encoded before the schedule was applied; pass pixel_values"
            )
        repeats, rest = divmod(prefill.image_mask.shape[0], len(images))
        if rest == 0:
            # Beam search repeats the decoder's inputs, but not what was recorded of the images.
            rows = torch.arange(len(images), device=prefill.image_mask.device)
            rows = rows.repeat_interleave(repeats)
            vision = None if vision is None else vision.select(rows)
            tower = None if tower is None else tower.select(rows)
        prefill.vision, prefill.tower = vision, tower
        self._current.value = prefill
        if tower is not None:
            self._projected(tower.tokens)
        elif vision is not None:
            self.project(vision)

    def _end(self, module: nn.Module, args: Any, output: Any) -> None:
        call = self._current.value
        self._current.value = None
        if isinstance(call, Prefill) and output is not None:  # None: the model raised an error.
            self._finish(call)

    def _finish(self, prefill: Prefill) -> None:
        self.record, cache, held = prefill.finish()
        if held is not None:
            self._memory.remember(cache, held)

    # The encoder stage, in front of the projector.

    def _leave_tower(self, module: nn.Module, args: Any, output: Any) -> None:
        call = self._current.value
        if isinstance(call, Prefill):
            if self._plan.in_tower:
                call.tower = TowerPruning.recorded(output)
            else:
                call.vision = VisionRecorder.recorded(output)

    def _enter_projector(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Tensor] | None:
        call = self._current.value
        if not isinstance(call, Prefill):
            return None
        call.questions = self._questions(call)
        features = call.enter_projector()
        return None if features is None else (features,)

    def _leave_projector(self, module: nn.Module, args: Any, output: Tensor) -> Tensor | None:
        call = self._current.value
        if isinstance(call, Prefill):
            return call.leave_projector(output)
        # Images encoded ahead of a call: the model counts them against the prompt's placeholders.
        return padded(output, self._adapter.visual_tokens) if self._plan.in_tower else None

    # The decoder and its layers.

    def _enter_decoder(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Arguments | None:
        call = self._current.value
        return None if call is None else (args, call.enter_decoder(kwargs))

    def _enter_layer(
        self, index: int, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Arguments | None:
        call = self._current.value
        if call is None:
            return None
        hidden, *rest = args
        hidden, kwargs = call.enter_layer(index, hidden, kwargs)
        return (hidden, *rest), kwargs
