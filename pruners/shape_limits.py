"""Sizes above which a file is taken to be wrong, so that none makes this program count forever."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

MOST_LAYERS = 10_000
"""Layers of a decoder or tower."""

MOST_TILES = 100_000
"""Images, tiles and frames of a sample."""

MOST_PIXELS = 100_000
"""Pixels along a side of an image."""

MOST_TOKENS = 10**8
"""Tokens of a sample, and patches of a tile."""

Layers = Annotated[int, Field(gt=0, le=MOST_LAYERS)]
Width = Annotated[int, Field(gt=0, le=2**24)]
Tokens = Annotated[int, Field(gt=0, le=MOST_TOKENS)]
