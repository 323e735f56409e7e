"""Looking at paths that people name."""

from __future__ import annotations

import os
from pathlib import Path


def is_folder(path: str | os.PathLike[str]) -> bool:
    """Whether there is a folder of that name.

    Args:
        path: Any text; `Path.is_dir` raises where it is too long for a name, or has a null.

    Returns:
        Whether it is a folder that can be looked at.
    """
    try:
        return Path(path).is_dir()
    except (OSError, ValueError):
        return False
