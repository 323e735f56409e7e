"""What scorers, selectors and merge rules have in common as parts of a schedule file."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Part(BaseModel):
    """A frozen record that refuses unknown fields; `kind` names it in files."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
