"""Schedules as settings of other inference runtimes, where those can keep the same tokens.

One module per runtime: what it can do, where that was read, and what cannot be said there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from pruners.errors import RuntimeExportError
from pruners.schedule import Schedule
from studies.runtime_exports import openvino_genai, sglang, tensorrt_edge_llm, vllm
from studies.runtime_exports.settings import RuntimeSettings

__all__ = ["RUNTIMES", "RuntimeSettings", "export_to"]

RUNTIMES: Mapping[str, Callable[[Schedule], RuntimeSettings]] = MappingProxyType(
    {module.NAME: module.export for module in (vllm, sglang, openvino_genai, tensorrt_edge_llm)}
)
"""What makes settings of a schedule, by the runtime's name."""


def export_to(runtime: str, schedule: Schedule) -> RuntimeSettings:
    """Spell a schedule as another runtime's settings.

    Args:
        runtime: One of `RUNTIMES`.
        schedule: The schedule.

    Returns:
        The settings.

    Raises:
        RuntimeExportError: There is no such runtime here, or the schedule cannot be had there; the
            message says why.
    """
    if runtime not in RUNTIMES:
        raise RuntimeExportError(
            f"no export to {runtime!r}; there are exports to {', '.join(RUNTIMES)}"
        )
    return RUNTIMES[runtime](schedule)
