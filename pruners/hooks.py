"""The hooks that make a stock model run a plan.

On the way of one call: `core` starts a prefill or a continuation; images and videos are encoded,
where the projector is left out if it is to run on what a stage keeps; the decoder drops what the
encoder stage does not keep; each decoder layer gets its own stage's hidden states, positions and
mask.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor, nn
from transformers.utils.generic import ModelOutput

from pruners.adapters import DecoderCall, ModelAdapter
from pruners.compiling import forget_compiled, uncompiled
from pruners.continuation import Continuation
from pruners.continuous_batching import NoContinuousBatching
from pruners.encoded_media import EncodedMedia, MediaRecorder
from pruners.errors import InputError, ModelError
from pruners.media import Kind
from pruners.noted_cache import lock, recall, remember, remember_padding, unlock
from pruners.per_thread import PerThread, UnderWay
from pruners.plan import Plan
from pruners.prefill import Prefill, projects_later
from pruners.prefill_record import PrefillRecord
from pruners.prompt import Prompt
from pruners.spared_projector import SparedProjector
from pruners.text_tower import QuestionOutputs, TextTower
from pruners.tower import TowerPruning
from pruners.vision import VisionRecorder
from pruners.vision_outputs import VisionParts
from pruners.vision_towers import VisionTower
from pruners.vision_towers.batched import BatchedTower

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


class _Given(NamedTuple):
    """What only the outermost call is told.

    Attributes:
        encoded: What is known of images and videos that it was given encoded, by kind.
        checked: Tokens at its end that are only checked.
    """

    encoded: Mapping[Kind, EncodedMedia | None] = {}
    checked: int = 0


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
        questions: Callable[[Prompt], QuestionOutputs | None],
    ) -> None:
        """Install the hooks; a plan that drops nothing needs none.

        Args:
            adapter: The model.
            plan: The plan.
            parts: What stages read of images.
            text_tower: The text tower, if a stage reads one.
            questions: Finds the questions of prompts, where stages read them.
        """
        self.record: PrefillRecord | None = None
        self._adapter = adapter
        self._plan = plan
        self._questions = questions
        self._current: UnderWay[Prefill | Continuation] = UnderWay()
        self._signature = inspect.signature(adapter.model.forward)
        self._handles: list[Any] = []
        self._given: PerThread[_Given] = PerThread()
        try:
            if plan.prunes:
                self._install(parts, text_tower)
                forget_compiled()
        except BaseException:
            self.remove()
            raise

    def _install(self, parts: VisionParts, text_tower: TextTower | None) -> None:
        adapter, plan = self._adapter, self._plan
        # Installed first, so that outputs are there when the hooks below look for them.
        for tower in _distinct(adapter):
            if plan.in_tower:
                assert plan.encoder is not None
                assert isinstance(tower, BatchedTower)
                alive = plan.schedule.tile_counts(tower.patches).alive
                self._handles.append(TowerPruning(tower, plan.encoder, alive))
            elif parts != VisionParts() or projects_later(plan, adapter):
                self._handles.append(VisionRecorder(tower, parts, text_tower))
        self._handles += [
            NoContinuousBatching(adapter.model),
            MediaRecorder(adapter, self._forget_interrupted, self._take),
            adapter.model.register_forward_pre_hook(self._check_call, with_kwargs=True),
            adapter.core.register_forward_pre_hook(self._start, with_kwargs=True),
            adapter.core.register_forward_hook(self._end, always_call=True),
            adapter.decoder.register_forward_pre_hook(self._enter_decoder, with_kwargs=True),
        ]
        for index, layer in enumerate(adapter.decoder_layers):
            self._handles.append(
                layer.register_forward_pre_hook(partial(self._enter_layer, index), with_kwargs=True)
            )
        if projects_later(plan, adapter):
            self._handles.append(SparedProjector(adapter, self._current, in_tower=plan.in_tower))

    def remove(self) -> None:
        """Remove all hooks.

        Raises:
            ModelError: A call is under way in another thread; it would go on half pruned.
        """
        if self._current.elsewhere:
            raise ModelError(
                "the schedule cannot be removed while another thread runs the model; wait until "
                "its call has returned"
            )
        for handle in self._handles:
            handle.remove()
        if self._handles:
            forget_compiled()
        self._handles.clear()

    @contextmanager
    def running(self, prefill: Prefill) -> Iterator[None]:
        """Run projector and decoder inside as parts of a prefill.

        Args:
            prefill: The prefill.
        """
        self._current.enter(prefill)
        try:
            yield
        finally:
            self._current.leave()
        self._finish(prefill)

    # The outermost call: arguments whose meaning depends on the sequence's length.

    @uncompiled
    def _check_call(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._given.value = None
        given = self._signature.bind_partial(*args, **kwargs).arguments
        if not any(given.get(name) is not None for name in _MEDIA):
            return
        if given.get("labels") is not None:
            raise InputError(
                "labels were given, but a pruned model returns logits only for the tokens that are "
                "left; compute the loss from those, or remove the schedule"
            )
        asked = given.get("logits_to_keep")
        if isinstance(asked, Tensor):
            raise InputError(
                "logits_to_keep is a tensor of positions, which pruning moves; pass a number of "
                "positions at the end instead"
            )
        # Looked at here: accelerate makes new outputs of them inside, which nothing is attached to.
        encoded = kwargs.get("mm_encoder_outputs") or {}
        self._given.value = _Given(
            encoded={kind: MediaRecorder.recorded(encoded[kind]) for kind in encoded},
            # Assisted generation asks for the logits of the prompt's last token and its guesses.
            checked=asked - 1 if asked else 0,
        )

    # The core: where a prefill or a continuation starts and ends.

    @uncompiled
    def _start(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Arguments | None:
        self._current.leave()
        # Taken first, so that nothing is left of a call that is refused.
        given, self._given.value = self._given.value or _Given(), None
        call = self._adapter.read_call(args, kwargs)
        pruned = recall(call.cache)
        if call.has_images:
            prefill = self._start_prefill(call, given.checked)
            self._current.enter(prefill)
            _take_encoded(prefill, call, given.encoded)
            return None
        if pruned is None:
            return None
        step = Continuation(self._adapter, pruned, call.cache)
        options = step.new_tokens_only(call)
        self._current.enter(step)
        unlock(call.cache)
        return (), options

    def _start_prefill(self, call: DecoderCall, checked: int) -> Prefill:
        if call.cache is not None:
            if getattr(call.cache, "is_compileable", False):
                raise InputError(
                    f"{type(call.cache).__name__} has one length for all layers, but pruned layers "
                    "hold different ones; use the default cache"
                )
            if call.cache.get_seq_length(0) > 0:
                raise InputError(
                    "an image was given with a cache that is already filled; pruning supports "
                    "images in the first call only, any number of them"
                )
        prompt = Prompt.of_call(self._adapter, call).before(checked)
        return Prefill(self._adapter, self._plan, prompt, questions=self._questions(prompt))

    def _forget_interrupted(self) -> None:
        """Forget a call that an interrupt (Ctrl-C) has ended, for which torch calls no hook.

        No call that is under way encodes images once its decoder runs.
        """
        call = self._current.value
        if not isinstance(call, Prefill) or call.batch is not None:
            self._current.leave()

    def _take(self, kind: Kind, media: EncodedMedia) -> None:
        call = self._current.value
        if isinstance(call, Prefill):
            call.encoded[kind] = media

    @uncompiled
    def _end(self, module: nn.Module, args: Any, output: Any) -> Any:
        call = self._current.leave()
        if isinstance(call, Continuation):
            lock(call.cache)
        if output is None:  # The model raised an error.
            return None
        if isinstance(call, Prefill):
            self._finish(call)
            if call.spared and isinstance(output, ModelOutput):
                # Zeros, which nobody is to take for features.
                return type(output)(**{**output, "image_hidden_states": None})
        elif isinstance(call, Continuation):
            remember_padding(call.cache, padded=call.padded)
        return None

    def _finish(self, prefill: Prefill) -> None:
        if prefill.batch is None:  # Nothing prunes, so the decoder's hooks are not there.
            return
        self.record, cache, held = prefill.finish()
        if held is not None:
            remember(cache, held)

    # The decoder and its layers.

    @uncompiled
    def _enter_decoder(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Arguments | None:
        call = self._current.value
        return None if call is None else (args, call.enter_decoder(kwargs))

    @uncompiled
    def _enter_layer(
        self, index: int, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Arguments | None:
        call = self._current.value
        if call is None:
            return None
        hidden, *rest = args
        hidden, kwargs = call.enter_layer(index, hidden, kwargs)
        return (hidden, *rest), kwargs


_MEDIA = ("pixel_values", "pixel_values_images", "pixel_values_videos", "mm_encoder_outputs")


def _take_encoded(
    prefill: Prefill, call: DecoderCall, known: Mapping[Kind, EncodedMedia | None]
) -> None:
    """Take images and videos that were encoded before the call, or are known from outside it."""
    for kind, features in call.encoded.items():
        media = MediaRecorder.recorded(features) or known.get(kind)
        if media is None:
            raise InputError(
                f"the {kind}s were encoded before the schedule was applied, or cut into chunks "
                "by prefill_chunk_size; pass pixel values, without prefill_chunk_size"
            )
        prefill.encoded[kind] = media


def _distinct(adapter: ModelAdapter) -> list[VisionTower]:
    """List the vision towers of a model, one that images and videos share only once."""
    towers = {id(tower.module): tower for tower in adapter.towers.values()}
    return list(towers.values())
