"""Keeping what runs between a model's modules apart from torch.compile."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def uncompiled(hook: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Keep torch.compile from tracing a hook, whose sizes differ from call to call.

    Args:
        hook: The hook.

    Returns:
        The hook; compiled code stops in front of it and goes on behind it.
    """
    kept: Callable[Arguments, Result] = torch.compiler.disable(hook)  # type: ignore[no-untyped-call]
    return kept


def forget_compiled() -> None:
    """Drop all compiled code, which does not notice that modules got or lost their hooks.

    Where nothing can have been compiled yet, the compiler is not even loaded.
    """
    if "torch._dynamo" in sys.modules:
        torch.compiler.reset()
