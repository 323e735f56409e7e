"""Timing dense and pruned calls by turns, in one process, for `prefill.py`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from prefill_models import Workload, cached_bytes
from torch import Tensor
from transformers.generation.streamers import BaseStreamer

from pruners import Schedule, apply_schedule


@dataclass(frozen=True)
class Variant:
    """What is timed: the dense model, or it under a schedule.

    Attributes:
        name: Name in the table, such as ``"visiondrop:64"``.
        schedule: The schedule; one without stages is the dense model.
    """

    name: str
    schedule: Schedule


@dataclass
class Timings:
    """What was measured of one variant; seconds, one value per round.

    Attributes:
        prefill: One call of the model: vision tower, text tower, decoder, head at every position.
        decoder: The decoder within that call, stages included, without the head.
        first_token: `generate`, until the first token is there.
        decode_token: `generate`, per further token.
        kv_bytes: What the prefill left in the key-value cache, over the batch.
        peak_bytes: Highest memory that a prefill allocates beyond what was there before; None where
            it is not counted.
    """

    prefill: list[float] = field(default_factory=list)
    decoder: list[float] = field(default_factory=list)
    first_token: list[float] = field(default_factory=list)
    decode_token: list[float] = field(default_factory=list)
    kv_bytes: int = 0
    peak_bytes: int | None = None


@contextmanager
def applied(workload: Workload, schedule: Schedule) -> Iterator[None]:
    """Apply a schedule inside; the dense model gets no hooks at all.

    Args:
        workload: The model.
        schedule: The schedule.
    """
    if not schedule.stages:
        yield
        return
    with apply_schedule(
        workload.model,
        schedule,
        processor=workload.tokenizer,
        text_tower=workload.text_tower,
    ):
        yield


def synchronize(device: torch.device) -> None:
    """Wait until a device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@torch.inference_mode()
def measure(
    workload: Workload,
    variants: Sequence[Variant],
    batch: int,
    *,
    repeats: int,
    warmup: int,
    new_tokens: int,
) -> list[Timings]:
    """Time variants by turns, so that whatever slows the machine down slows down all alike.

    Args:
        workload: The model.
        variants: What to time.
        batch: Samples per call.
        repeats: Rounds that count; each runs every variant once.
        warmup: Rounds before, whose times are thrown away.
        new_tokens: Tokens to decode after the first.

    Returns:
        Timings of each variant.
    """
    inputs = workload.inputs(batch)
    timings = [Timings() for _ in variants]
    clock = _DecoderClock(workload.model.model.language_model, workload.device)
    try:
        for variant, timing in zip(variants, timings, strict=True):
            with applied(workload, variant.schedule):
                _measure_memory(workload, inputs, timing)
        for number in range(warmup + repeats):
            for variant, timing in zip(variants, timings, strict=True):
                with applied(workload, variant.schedule):
                    kept = timing if number >= warmup else Timings()
                    _time_prefill(workload, inputs, clock, kept)
                    _time_generate(workload, inputs, new_tokens, kept)
    finally:
        clock.remove()
    return timings


def _measure_memory(workload: Workload, inputs: dict[str, Tensor], timing: Timings) -> None:
    device = workload.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
    output = workload.model(**inputs)
    timing.kv_bytes = cached_bytes(output.past_key_values)
    if device.type == "cuda":
        timing.peak_bytes = torch.cuda.max_memory_allocated(device) - before


def _time_prefill(
    workload: Workload, inputs: dict[str, Tensor], clock: _DecoderClock, timing: Timings
) -> None:
    synchronize(workload.device)
    started = time.perf_counter()
    workload.model(**inputs)
    synchronize(workload.device)
    timing.prefill.append(time.perf_counter() - started)
    timing.decoder.append(clock.seconds())


def _time_generate(
    workload: Workload, inputs: dict[str, Tensor], new_tokens: int, timing: Timings
) -> None:
    arrivals = _Arrivals()
    synchronize(workload.device)
    started = time.perf_counter()
    workload.model.generate(
        **inputs, do_sample=False, max_new_tokens=1 + new_tokens, streamer=arrivals
    )
    first, last = arrivals.times[0], arrivals.times[-1]
    timing.first_token.append(first - started)
    timing.decode_token.append((last - first) / new_tokens)


class _Arrivals(BaseStreamer):
    """When `generate` hands over each token; it waits for the device before it does."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self._prompt = True

    def put(self, value: Tensor) -> None:
        if not self._prompt:
            self.times.append(time.perf_counter())
        self._prompt = False

    def end(self) -> None:
        pass


class _DecoderClock:
    """Times the newest call of the decoder, the stages' hooks included, without a wait in it."""

    def __init__(self, decoder: Any, device: torch.device) -> None:
        self._device = device
        self._marks: list[Any] = []
        # Installed before any schedule: in front of its hooks.
        self._handles = [
            decoder.register_forward_pre_hook(lambda *_: self._mark(first=True)),
            decoder.register_forward_hook(lambda *_: self._mark(first=False)),
        ]

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()

    def seconds(self) -> float:
        """Return the time of the newest call, once the device has done it."""
        start, end = self._marks
        if self._device.type == "cuda":
            return float(start.elapsed_time(end)) / 1000
        return float(end - start)

    def _mark(self, *, first: bool) -> None:
        if first:
            self._marks = []
        if self._device.type == "cuda":
            mark: Any = torch.cuda.Event(enable_timing=True)
            mark.record()
        else:
            mark = time.perf_counter()
        self._marks.append(mark)
