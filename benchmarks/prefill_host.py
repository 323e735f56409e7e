"""Where a prefill makes the host wait for the device, or sends it values, for `prefill.py`.

Calls of torch are watched in Python rather than on the device, so that a CPU shows what a GPU would
wait for: tensors that are made of lists for a device count as sent, and so does all that goes
through `pruners.transfer`, which makes nobody wait.
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from prefill_summary import HostAccess
from torch import Tensor
from torch.overrides import TorchFunctionMode

import pruners

PACKAGE = Path(pruners.__file__).parent

READS = frozenset(
    {
        "__bool__", "__contains__", "__float__", "__index__", "__int__", "allclose", "argwhere",
        "cpu", "equal", "item", "masked_select", "nonzero", "numpy", "tolist", "unique",
        "unique_consecutive",
    }
)  # fmt: skip
"""Functions whose result, or its size, the host needs."""

SENDS = frozenset({"as_tensor", "tensor"})
"""Functions that make tensors of values of the host; on a device, if they are told one."""

SENT = "sent without waiting"
"""What is listed for `pruners.transfer`."""

TRANSFER = PACKAGE / "transfer.py"

WRAPPER = PACKAGE / "encoded_media.py"
"""Calls methods of the model in their place: what these do is the model's own."""


class _Watch(TorchFunctionMode):
    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.found: Counter[tuple[str, str, str | None]] = Counter()
        self._device = device

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        operation = self._operation(func, args, kwargs or {}, result)
        if operation is not None:
            site, via = _site()
            if site is not None:
                self.found[operation, site, via] += 1
        return result

    def _operation(
        self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any
    ) -> str | None:
        name = getattr(function, "__name__", "")
        if name in SENDS:
            there = result.device == self._device and kwargs.get("device") is not None
            return name if there else None
        if not (args and isinstance(args[0], Tensor)):
            return None
        if name == "to" and _in_transfer():
            return SENT
        if name == "to" and args[0].device != result.device:
            return name
        if args[0].device != self._device:
            return None
        if name in READS:
            return name
        if name == "__getitem__":
            return _indexing(args[1])
        if name == "repeat_interleave" and len(args) > 1 and isinstance(args[1], Tensor):
            return name
        return None


def _indexing(index: Any) -> str | None:
    for part in index if isinstance(index, tuple) else (index,):
        if isinstance(part, list | range):
            return "index by a list"
        if isinstance(part, Tensor) and part.dtype == torch.bool:
            return "index by a mask"
    return None


def _in_transfer() -> bool:
    frames = [frame for frame in traceback.extract_stack(limit=6) if frame.filename != __file__]
    return Path(frames[-1].filename) == TRANSFER


def _site() -> tuple[str | None, str | None]:
    """Find the innermost line of the package on the stack, and of whatever it calls."""
    frames = [frame for frame in traceback.extract_stack() if frame.filename != __file__]
    own = [
        frame
        for frame in frames
        if PACKAGE in Path(frame.filename).parents and Path(frame.filename) != WRAPPER
    ]
    if own and Path(own[-1].filename) == TRANSFER:
        # What sends it is of interest, and not the helper that everything goes through.
        own = [frame for frame in own if Path(frame.filename) != TRANSFER]
        frames = own
    if not own:
        return None, None
    site = f"pruners/{Path(own[-1].filename).relative_to(PACKAGE).as_posix()}:{own[-1].lineno}"
    last = frames[-1]
    if last is own[-1]:
        return site, None
    path = Path(last.filename)
    return site, f"{path.parent.name}/{path.name}:{last.lineno}"


def host_accesses(call: Callable[[], Any], device: torch.device) -> tuple[HostAccess, ...]:
    """List where the package makes the host wait for the device, or sends it values.

    Args:
        call: What to watch.
        device: The device that is waited for.

    Returns:
        Places in the package, or in libraries that it calls, most frequent first.
    """
    with _Watch(device) as watch:
        call()
    return tuple(
        HostAccess(operation=operation, site=site, via=via, count=count)
        for (operation, site, via), count in watch.found.most_common()
    )
