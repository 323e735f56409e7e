"""Who measures, as the user asks for it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from search.workers.supervision import DEFAULT_PATIENCE


class WorkerSettings(BaseModel):
    """How many measure, and where.

    Attributes:
        number: Workers; None to measure in the program's own process, or, on a Ray cluster, with
            one worker.
        patience: Seconds after which a worker that does not answer is replaced.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int | None = Field(default=None, ge=1, le=1024)
    patience: float = Field(default=DEFAULT_PATIENCE, gt=0)
