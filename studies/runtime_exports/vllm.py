"""vLLM: Efficient Video Sampling (EVS), which drops tokens of videos by one rate.

Sources: the engine arguments ``--video-pruning-rate`` and ``--video-pruning-method`` of
https://docs.vllm.ai/en/stable/configuration/engine_args/ (the method is new in 2026, "evs" is its
default); the counting rule in ``vllm/multimodal/evs.py``, commit 094f117; support for Qwen2.5-VL
and Qwen3-VL in pull requests 22980 and 29752. Images are not pruned: issue 45098 proposes it.
"""

from __future__ import annotations

from pruners.errors import RuntimeExportError
from pruners.schedule import Schedule
from studies.runtime_exports.settings import RuntimeSettings, encoder_stage, shape_of

NAME = "vllm"
READ = (
    "vLLM's engine arguments, https://docs.vllm.ai/en/stable/configuration/engine_args/",
    "vllm/multimodal/evs.py at 094f117",
    "https://github.com/vllm-project/vllm/pull/29752",
)
_FAMILIES = ("qwen2_5_vl", "qwen3_vl")


def export(schedule: Schedule) -> RuntimeSettings:
    """Spell a schedule for videos as vLLM's pruning rate.

    vLLM keeps ``max(tokens of a frame, int(tokens * (1 - rate)))`` tokens of a video, the first
    frame's among them.

    Args:
        schedule: The schedule.

    Returns:
        The settings; tokens are chosen by EVS and not by the schedule's scorer.

    Raises:
        RuntimeExportError: The schedule cannot be had there; the message says why.
    """
    shape = shape_of(schedule, "vLLM", _FAMILIES)
    stage = encoder_stage(schedule, "vLLM")
    if shape.tiles < 2:
        raise RuntimeExportError(
            "vLLM prunes videos only, and keeps their first frame whole; the schedule is for one "
            "image. Give the shape of a video (Shape.from_config(..., frames=...))"
        )
    tokens, frame = shape.visual_tokens, max(shape.tokens_per_tile)
    wanted = schedule.counts(tokens, shape.tokens_per_tile)[0].alive
    if wanted < frame:
        raise RuntimeExportError(
            f"vLLM keeps the first frame whole, {frame} tokens here; the schedule keeps {wanted} "
            f"of {tokens} in all"
        )
    # Half a token more, so that rounding down gives the count back.
    rate = round(1 - (wanted + 0.5) / tokens, 6) if wanted < tokens else 0.0
    return RuntimeSettings(
        runtime=NAME,
        read=READ,
        arguments=("--video-pruning-rate", f"{rate:g}"),
        options={"video_pruning_rate": rate},
        kept_tokens=max(frame, int(tokens * (1 - rate))),
        differences=(
            "EVS keeps the first frame and, of the others, the tokens that differ most from the "
            f"frame before; the schedule chooses by {stage.scorer.kind} and {stage.selector.kind}.",
            "Only videos are pruned; images keep all tokens.",
        ),
    )
