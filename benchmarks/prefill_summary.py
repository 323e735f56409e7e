"""What the timings of `prefill.py` add up to: medians, spreads, and speed-ups as predicted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from prefill_timing import Timings, Variant
from records import Record

from pruners.schedule import Cost
from pruners.shape import Shape
from space.flops import price
from studies.files import write_text


class Spread(Record):
    """Median and quartiles of values, one per round."""

    median: float
    low: float
    high: float


class Speedup(Record):
    """How many times as fast as dense: measured, and by the cost model.

    Attributes:
        measured: Of the ratios dense / pruned in each round.
        predicted: Dense / pruned FLOPs.
        of_predicted: Median measured / predicted.
    """

    measured: Spread
    predicted: float
    of_predicted: float


class Row(Record):
    """One variant at one batch size; times in seconds.

    Attributes:
        name: The variant.
        mean_visual_tokens: Visual tokens, averaged over decoder layers.
        tflops: Cost of one sample under convention `total`.
        prefill: One call of the model.
        prefill_speedup: Of that, against total FLOPs; for dense, 1.
        decoder: The decoder within it, stages included.
        decoder_speedup: Of that, against the decoder's FLOPs.
        first_token: `generate` until the first token.
        first_token_speedup: Of that, against total FLOPs with the head at one position and the
            projector at all tokens, as `generate` runs them.
        decode_token: `generate` per further token.
        decode_speedup: Of that.
        kv_bytes: Bytes in the key-value cache after the prefill, over the batch.
        predicted_kv_bytes: What the cost model says that it is.
        peak_bytes: Memory that a prefill allocates at most; None where it is not counted.
    """

    name: str
    mean_visual_tokens: float
    tflops: float
    prefill: Spread
    prefill_speedup: Speedup
    decoder: Spread
    decoder_speedup: Speedup
    first_token: Spread
    first_token_speedup: Speedup
    decode_token: Spread
    decode_speedup: Spread
    kv_bytes: int
    predicted_kv_bytes: int
    peak_bytes: int | None


class PartShare(Record):
    """What one part of a prefill takes.

    Attributes:
        part: The part.
        seconds: Its own time, without the parts inside it.
        of_dense: Its share of the dense prefill's time.
        predicted: Its share of the dense prefill's FLOPs; None where the cost model has no such
            part.
    """

    part: str
    seconds: float
    of_dense: float
    predicted: float | None


class HostAccess(Record):
    """A place where the host waits for the device, or sends it values, inside a call.

    Attributes:
        operation: What is called.
        site: Innermost line of this package that leads there.
        via: Line that does it, where that is another.
        count: How often in one call.
    """

    operation: str
    site: str
    via: str | None
    count: int


class Profile(Record):
    """Where the time of one variant's prefill goes.

    Attributes:
        name: The variant.
        parts: Every part's time.
        scoring_and_merging_of_dense: Scoring, selecting, merging and the text tower, as a share of
            the dense prefill's time.
        rearranging_of_dense: The same of shortening the sequence.
        host_accesses: Where the package makes the host wait in a prefill, or sends values.
        host_accesses_decoding: The same in a step that decodes one token.
        events: Operations that make the host wait, as the profiler counts them in one prefill,
            the model's own included.
    """

    name: str
    parts: tuple[PartShare, ...]
    scoring_and_merging_of_dense: float
    rearranging_of_dense: float
    host_accesses: tuple[HostAccess, ...]
    host_accesses_decoding: tuple[HostAccess, ...]
    events: dict[str, int]


class BatchResult(Record):
    """All variants at one batch size; profiles only where asked for.

    Attributes:
        batch: Samples per call.
        load: Load averages over one minute, before and after the rounds: about as many as there are
            threads when nothing else runs.
        rows: Times, dense first.
        profiles: What parts take.
    """

    batch: int
    load: tuple[float, float]
    rows: tuple[Row, ...]
    profiles: tuple[Profile, ...] = ()


class Machine(Record):
    """What the times were measured on.

    Attributes:
        processor: Name of the CPU or GPU.
        torch: Version.
        transformers: Version.
        threads: Threads that torch computes with on the CPU.
    """

    processor: str
    torch: str
    transformers: str
    threads: int


class Summary(Record):
    """The benchmark's results.

    Attributes:
        machine: Where.
        shape: Sizes of the model.
        device: ``"cpu"`` or ``"cuda"``.
        dtype: Floating-point type.
        attention: Attention implementation of the model.
        repeats: Rounds per variant.
        warmup: Rounds before.
        new_tokens: Tokens decoded after the first.
        batches: Results by batch size.
    """

    machine: Machine
    shape: Shape
    device: str
    dtype: str
    attention: str
    repeats: int
    warmup: int
    new_tokens: int
    batches: tuple[BatchResult, ...]


def spread(values: Sequence[float]) -> Spread:
    """Summarise values by their median and quartiles (linear interpolation)."""
    low, median, high = np.percentile(values, [25, 50, 75])
    return Spread(median=float(median), low=float(low), high=float(high))


def ratios(dense: Sequence[float], pruned: Sequence[float]) -> Spread:
    """Summarise how many times as fast as dense a variant is, round by round.

    Args:
        dense: Times of the dense model, one per round.
        pruned: Times of the variant in the same rounds.

    Returns:
        Median and quartiles of the ratios.
    """
    return spread([one / other for one, other in zip(dense, pruned, strict=True)])


def speedup(dense: Sequence[float], pruned: Sequence[float], predicted: float) -> Speedup:
    """Hold a measured speed-up against a predicted one.

    Args:
        dense: Times of the dense model, one per round.
        pruned: Times of the variant in the same rounds.
        predicted: Dense / pruned FLOPs.

    Returns:
        Both, and their ratio.
    """
    measured = ratios(dense, pruned)
    return Speedup(measured=measured, predicted=predicted, of_predicted=measured.median / predicted)


def rows(
    variants: Sequence[Variant], timings: Sequence[Timings], shape: Shape, batch: int
) -> tuple[Row, ...]:
    """Summarise all variants at one batch size.

    Args:
        variants: The variants, dense first.
        timings: What was measured of each.
        shape: The model's sizes.
        batch: Samples per call.

    Returns:
        One row per variant.
    """
    costs = [price(variant.schedule, shape) for variant in variants]
    dense, dense_cost = timings[0], costs[0]
    return tuple(
        Row(
            name=variant.name,
            mean_visual_tokens=cost.mean_visual_tokens,
            tflops=cost.tflops,
            prefill=spread(timing.prefill),
            prefill_speedup=speedup(dense.prefill, timing.prefill, dense_cost.tflops / cost.tflops),
            decoder=spread(timing.decoder),
            decoder_speedup=speedup(
                dense.decoder, timing.decoder, _decoder_flops(dense_cost) / _decoder_flops(cost)
            ),
            first_token=spread(timing.first_token),
            first_token_speedup=speedup(
                dense.first_token,
                timing.first_token,
                _first_token_tflops(dense_cost, dense_cost, shape)
                / _first_token_tflops(cost, dense_cost, shape),
            ),
            decode_token=spread(timing.decode_token),
            decode_speedup=ratios(dense.decode_token, timing.decode_token),
            kv_bytes=timing.kv_bytes,
            predicted_kv_bytes=batch * cost.kv_bytes,
            peak_bytes=timing.peak_bytes,
        )
        for variant, timing, cost in zip(variants, timings, costs, strict=True)
    )


def _first_token_tflops(cost: Cost, dense: Cost, shape: Shape) -> float:
    """Price one call of `generate`: the head at the last position, the projector at all tokens."""
    positions = shape.visual_tokens + shape.newline_tokens + shape.text_tokens
    last = dense.breakdown["head"] / positions
    elsewhere = cost.tflops - cost.breakdown["head"] - cost.breakdown["projector"]
    return elsewhere + last + dense.breakdown["projector"]


def _decoder_flops(cost: Cost) -> float:
    return cost.breakdown["decoder_linear"] + cost.breakdown["decoder_attention"]


def write_summary(summary: Summary, path: Path) -> None:
    """Write the summary as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, summary.model_dump_json(indent=2) + "\n")


def read_summary(path: Path) -> Summary:
    """Read what `write_summary` wrote."""
    return Summary.model_validate_json(path.read_text(encoding="utf-8"))
