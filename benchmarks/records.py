"""The base of what benchmarks write as JSON."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """Immutable, and without fields that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")
