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
from pruners.methods.base import Method

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
