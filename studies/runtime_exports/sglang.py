"""SGLang: EVS for one model, which is none of the families here.

Source: ``python/sglang/srt/multimodal/evs/README.md``, commit 2a7f528: the rate is the model
configuration's ``video_pruning_rate``, read by NemotronH_Nano_VL_V2 (pull request 14051), and the
implementation "cannot work with VLMs that use positional embeddings", Qwen2.5-VL for one. Pull
request 20857, for Qwen3-VL, was closed without being merged.
"""

from __future__ import annotations

from typing import NoReturn

from pruners.errors import RuntimeExportError
from pruners.schedule import Schedule

NAME = "sglang"
READ = (
    "python/sglang/srt/multimodal/evs/README.md at 2a7f528",
    "https://github.com/sgl-project/sglang/pull/14051",
    "https://github.com/sgl-project/sglang/pull/20857",
)


def export(schedule: Schedule) -> NoReturn:
    """Refuse: SGLang has no setting for the families that schedules are for.

    Args:
        schedule: The schedule.

    Raises:
        RuntimeExportError: Always; the message says why.
    """
    family = "no family" if schedule.shape is None else f"family {schedule.shape.family}"
    raise RuntimeExportError(
        "SGLang prunes videos of NemotronH_Nano_VL_V2 only (video_pruning_rate in the model's "
        "configuration; read at commit 2a7f528, and pull request 20857 for Qwen3-VL was not "
        f"merged); the schedule is for {family}. Use vLLM, or the runtime of this package"
    )
