"""Published pruning methods: one file each, and one line each below."""

from __future__ import annotations

from pruners.methods import (
    cdpruner,
    controls,
    dart,
    desap,
    divprune,
    fastv,
    flowcut,
    pyramiddrop,
    sparsevlm,
    tome,
    visiondrop,
    visionzip,
    vispruner,
    vscan,
)
from pruners.methods.base import Method, Needs
from pruners.shape import Shape

__all__ = ["METHODS", "Method", "Needs", "supported_methods"]

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        visiondrop.METHOD,
        desap.METHOD,
        fastv.METHOD,
        pyramiddrop.METHOD,
        sparsevlm.METHOD,
        visionzip.METHOD,
        vispruner.METHOD,
        cdpruner.METHOD,
        vscan.METHOD,
        flowcut.METHOD,
        dart.METHOD,
        divprune.METHOD,
        tome.METHOD,
        controls.RANDOM,
        controls.DOWNSAMPLING,
    )
}
"""Every published method and control, by the name that `published` knows it under."""


def supported_methods(shape: Shape) -> tuple[str, ...]:
    """List the methods that a model can run.

    Args:
        shape: The model's shape.

    Returns:
        Names of `METHODS`, in their order.
    """
    return tuple(name for name, method in METHODS.items() if method.needs.met_by(shape))
