"""Checkpoints as they come incomplete."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from safetensors.torch import load_file, save_file


def copy_without(source: Path, target: Path, missing: str) -> int:
    """Copy a checkpoint without some of its weights.

    Args:
        source: The checkpoint's folder.
        target: The folder to make.
        missing: Regular expression found in the names of those that are left out.

    Returns:
        The number of weights left out, at least one.
    """
    shutil.copytree(source, target)
    weights = load_file(target / "model.safetensors")
    kept = {name: value for name, value in weights.items() if not re.search(missing, name)}
    assert len(kept) < len(weights)
    save_file(kept, target / "model.safetensors", metadata={"format": "pt"})
    return len(weights) - len(kept)
