"""Looking at other processes."""

from __future__ import annotations

from pathlib import Path


def runs_still(process: int) -> bool:
    """Whether a process is there and does not only wait to be collected."""
    return _state_and_group(Path(f"/proc/{process}/stat"))[0] not in ("", "Z")


def group_runs_still(group: int) -> bool:
    """Whether a process group has such processes."""
    found = map(_state_and_group, Path("/proc").glob("[0-9]*/stat"))
    return any(state not in ("", "Z") and its == group for state, its in found)


def _state_and_group(stat: Path) -> tuple[str, int]:
    """Read the state letter and the group of a process; none where it is gone."""
    try:
        state, _, group = stat.read_text().rpartition(")")[2].split()[:3]
    except (FileNotFoundError, ProcessLookupError):
        return "", 0
    return state, int(group)
