"""Where the time of a prefill goes, by the profiler, for `prefill.py`.

Named ranges are put around public functions of the package and around the model's parts while the
profiler runs, and taken away afterwards. A part's own time is that of its ranges without the ranges
inside them: on a GPU, the time of the kernels that they start.
"""

from __future__ import annotations

import os
import statistics
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial, wraps
from inspect import isfunction
from typing import Any

import torch
from prefill_host import host_accesses
from prefill_models import Workload
from prefill_summary import PartShare, Profile
from prefill_timing import Variant, applied, synchronize
from torch import Tensor
from torch.profiler import ProfilerActivity, profile, record_function

from pruners.choosing import choose_tokens
from pruners.decoder_stage import run_decoder_stage
from pruners.encoder_stage import run_encoder_stage
from pruners.merge_rules import merge_dropped
from pruners.prefill import Prefill
from pruners.questions import PromptReader
from pruners.sequence import Layout
from pruners.text_tower import TextTower
from pruners.vision_scores import patch_scores
from space.flops import price

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler says when it starts and stops

OTHER = "other"
FUNCTIONS: dict[str, tuple[Callable[..., Any], ...]] = {
    # What stages compute beside choosing and merging is scores.
    "scoring": (run_encoder_stage, run_decoder_stage, patch_scores),
    "selecting": (choose_tokens,),
    "merging": (merge_dropped,),
}


def _public_methods(owner: type) -> tuple[str, ...]:
    return tuple(
        name for name, value in vars(owner).items() if isfunction(value) and name[0] != "_"
    )


METHODS: dict[str, dict[type, tuple[str, ...]]] = {
    "text tower": {TextTower: ("encode",)},
    "reading the question": {PromptReader: ("read",)},
    "rearranging": {
        Prefill: _public_methods(Prefill),
        Layout: ("drop",),
    },
}
SCORING_AND_MERGING = ("scoring", "selecting", "merging", "text tower", "reading the question")
PREDICTED = {
    "vision tower": ("vision_tower",),
    "projector": ("projector",),
    "decoder": ("decoder_linear", "decoder_attention"),
    "head": ("head",),
    "text tower": ("text_tower",),
    "scoring": ("scoring",),
    "merging": ("merging",),
}
"""Parts of the cost model; its `scoring` has the products of selectors as well."""

WAITING_EVENTS = (
    "aten::item",
    "aten::_local_scalar_dense",
    "aten::nonzero",
    "cudaStreamSynchronize",
    "cudaDeviceSynchronize",
    "cudaEventSynchronize",
)
_PREFIX = "prefill: "


@dataclass(frozen=True)
class Range:
    """One stretch of time in a profile.

    Attributes:
        part: What runs in it.
        start: Its start, in any unit.
        end: Its end.
        cost: What it took: its length, or the time of its kernels on a device.
    """

    part: str
    start: float
    end: float
    cost: float


def own_costs(ranges: Sequence[Range]) -> dict[str, float]:
    """Add up what each part takes without the ranges inside its own.

    Args:
        ranges: Ranges that either contain each other or are apart.

    Returns:
        Costs by part; they add up to those of the outermost ranges.
    """
    costs: dict[str, float] = {}
    open_ranges: list[Range] = []
    for one in sorted(ranges, key=lambda one: (one.start, -one.end)):
        while open_ranges and open_ranges[-1].end <= one.start:
            open_ranges.pop()
        costs[one.part] = costs.get(one.part, 0.0) + one.cost
        if open_ranges:
            outer = open_ranges[-1].part
            costs[outer] = costs[outer] - one.cost
        open_ranges.append(one)
    return costs


@torch.inference_mode()
def profile_variants(
    workload: Workload, variants: Sequence[Variant], batch: int, repeats: int
) -> tuple[Profile, ...]:
    """Profile prefills of all variants by turns.

    Args:
        workload: The model.
        variants: The variants, dense first.
        batch: Samples per call.
        repeats: Prefills of each; parts get their medians.

    Returns:
        One profile per variant.
    """
    inputs = workload.inputs(batch)
    runs: list[list[dict[str, float]]] = [[] for _ in variants]
    events: list[dict[str, int]] = [{} for _ in variants]
    for number in range(1 + repeats):
        for index, variant in enumerate(variants):
            costs, events[index] = _profiled(workload, variant, inputs)
            if number > 0:  # the first warms up
                runs[index].append(costs)
    dense_time = statistics.median(sum(run.values()) for run in runs[0])
    profiles = []
    for variant, own, counted in zip(variants, runs, events, strict=True):
        with applied(workload, variant.schedule):
            accesses = host_accesses(partial(workload.model, **inputs), workload.device)
            step = workload.next_step(inputs, workload.model(**inputs).past_key_values)
            decoding = host_accesses(partial(workload.model, **step), workload.device)
        parts = _shares(variant, own, dense_time, workload)
        share = {part.part: part.of_dense for part in parts}
        profiles.append(
            Profile(
                name=variant.name,
                parts=parts,
                scoring_and_merging_of_dense=sum(
                    share.get(part, 0.0) for part in SCORING_AND_MERGING
                ),
                rearranging_of_dense=share.get("rearranging", 0.0),
                host_accesses=accesses,
                host_accesses_decoding=decoding,
                events=counted,
            )
        )
    return tuple(profiles)


def _shares(
    variant: Variant, runs: Sequence[Mapping[str, float]], dense_time: float, workload: Workload
) -> tuple[PartShare, ...]:
    cost = price(variant.schedule, workload.shape)
    names = sorted(set().union(*runs))
    medians = {name: statistics.median(run.get(name, 0.0) for run in runs) for name in names}
    return tuple(
        PartShare(
            part=name,
            seconds=medians[name] / 1e6,
            of_dense=medians[name] / dense_time,
            predicted=sum(cost.breakdown[part] for part in PREDICTED[name]) / cost.dense_tflops
            if name in PREDICTED
            else None,
        )
        for name in sorted(names, key=lambda name: medians[name], reverse=True)
    )


def _profiled(
    workload: Workload, variant: Variant, inputs: Mapping[str, Tensor]
) -> tuple[dict[str, float], dict[str, int]]:
    """Profile one prefill: microseconds of each part's own, and events that wait."""
    on_device = workload.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_device else [])]
    with _ranges(workload, variant), profile(activities=activities) as profiler:
        with record_function(_PREFIX + OTHER):
            workload.model(**inputs)
        synchronize(workload.device)
    everything = list(profiler.events())
    named = [
        event
        for event in everything
        # On a GPU every range is listed a second time, as its kernels saw it.
        if event.name.startswith(_PREFIX) and event.device_type.name == "CPU"
    ]
    found = [
        Range(
            event.name.removeprefix(_PREFIX),
            event.time_range.start,
            event.time_range.end,
            event.device_time_total if on_device else event.time_range.elapsed_us(),
        )
        for event in named
    ]
    (whole,) = (one for one in found if one.part == OTHER)
    counts = Counter(
        event.name
        for event in everything
        if event.name in WAITING_EVENTS and whole.start <= event.time_range.start < whole.end
    )
    return own_costs(found), dict(sorted(counts.items()))


@contextmanager
def _ranges(workload: Workload, variant: Variant) -> Iterator[None]:
    """Put ranges around functions, methods and the model's parts; apply the variant's schedule."""
    core = workload.model.model
    modules = {
        "vision tower": core.vision_tower,
        "projector": core.multi_modal_projector,
        "decoder": core.language_model,
        "head": workload.model.lm_head,
    }
    with ExitStack() as stack:
        for part, functions in FUNCTIONS.items():
            for function in functions:
                stack.enter_context(_function_in_range(part, function))
        for part, owners in METHODS.items():
            for owner, names in owners.items():
                for name in names:
                    stack.enter_context(_attribute(owner, name, _in_range(part, owner, name)))
        for part, module in modules.items():
            stack.enter_context(_attribute(module, "forward", _in_range(part, module, "forward")))
        if not variant.schedule.stages:
            yield
            return
        # What the schedule's hook computes once the vision tower has run lies between two others.
        reads = _Open("scoring")
        before = core.vision_tower.register_forward_hook(reads.enter)
        stack.callback(before.remove)
        with applied(workload, variant.schedule):
            after = core.vision_tower.register_forward_hook(reads.leave)
            stack.callback(after.remove)
            yield


class _Open:
    """A range that one hook opens and another closes."""

    def __init__(self, part: str) -> None:
        self._name = _PREFIX + part
        self._range: Any = None

    def enter(self, *_: Any) -> None:
        self._range = record_function(self._name)
        self._range.__enter__()

    def leave(self, *_: Any) -> None:
        self._range.__exit__(None, None, None)


def _in_range(part: str, owner: Any, name: str) -> Callable[..., Any]:
    return _recorded(part, getattr(owner, name))


def _recorded(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def recorded(*args: Any, **kwargs: Any) -> Any:
        with record_function(_PREFIX + part):
            return function(*args, **kwargs)

    return recorded


@contextmanager
def _attribute(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Set an attribute inside, and leave the owner as it was."""
    own = name in vars(owner)
    before = vars(owner).get(name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if own:
            setattr(owner, name, before)
        else:
            delattr(owner, name)


@contextmanager
def _function_in_range(part: str, function: Callable[..., Any]) -> Iterator[None]:
    """Replace a function in every module of the package that has imported it."""
    replacement = _recorded(part, function)
    with ExitStack() as stack:
        for module_name, module in list(sys.modules.items()):
            if module_name.partition(".")[0] != "pruners":
                continue
            for name, value in list(vars(module).items()):
                if value is function:
                    stack.enter_context(_attribute(module, name, replacement))
        yield
