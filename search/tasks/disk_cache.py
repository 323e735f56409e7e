"""Tensors on disk under keys that name all they depend on, within a bound."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pruners.atomic import atomic_path

if TYPE_CHECKING:
    from torch import Tensor

_KEPT = 0.9
"""Share of the bound that is left after the least recently used files were deleted."""

_UNCHECKED = 0.05
"""Share of the bound that a process writes before it looks again at what others have written."""


def default_folder() -> Path:
    """Folder of the cache where the user names none: ``$XDG_CACHE_HOME/prunetune``."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "prunetune"


def cache_key(**parts: str) -> str:
    """Make a key of everything that a value depends on.

    Args:
        **parts: What it depends on, by name.

    Returns:
        The key, hexadecimal.
    """
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


class DiskCache:
    """Sets of tensors in safetensors files; several processes may share the folder.

    Args:
        folder: The folder; created when something is kept.
        limit: Bytes that the files may have; near it the least recently used are deleted. Each
            further process may pass it by a twentieth.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder = folder
        self._limit = limit
        self._written: int | None = None

    def get(self, key: str) -> dict[str, Tensor] | None:
        """Look a set up.

        Args:
            key: What `cache_key` returned.

        Returns:
            The tensors by name; None when they are not there, or their file is damaged.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load

        path = self._path(key)
        try:
            tensors = load(path.read_bytes())
        except (OSError, SafetensorError):
            return None
        with suppress(OSError):  # another user's in a shared folder keeps its time
            os.utime(path)
        return tensors

    def put(self, key: str, tensors: Mapping[str, Tensor]) -> None:
        """Keep a set; a full disk only means that it is not kept.

        Args:
            key: What `cache_key` returned.
            tensors: The tensors by name.
        """
        from safetensors.torch import save

        path = self._path(key)
        content = save({name: tensor.contiguous() for name, tensor in tensors.items()})
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(path) as temporary:
                temporary.write_bytes(content)
        except OSError:
            return
        written = None if self._written is None else self._written + len(content)
        if written is None or written > _UNCHECKED * self._limit:
            self._shrink()
            written = 0
        self._written = written

    def _path(self, key: str) -> Path:
        return self._folder / key[:2] / f"{key}.safetensors"

    def _files(self) -> list[tuple[float, int, Path]]:
        """List the files: when each was last used, its size and path."""
        files = []
        for path in self._folder.glob("??/*.safetensors"):  # with those of killed processes
            try:
                status = path.stat()
            except OSError:  # another process has deleted it
                continue
            files.append((status.st_mtime, status.st_size, path))
        return files

    def _shrink(self) -> None:
        files = sorted(self._files())
        total = sum(size for _, size, _ in files)
        if total <= (1 - _UNCHECKED) * self._limit:
            return
        for _, size, path in files:
            if total <= _KEPT * self._limit:
                break
            with suppress(OSError):  # another user's in a shared folder stays
                path.unlink(missing_ok=True)
                total -= size
