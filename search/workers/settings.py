"""Who measures, as the user asks for it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator


class WorkerSettings(BaseModel):
    """How many measure, and where.

    Attributes:
        number: Workers; None to measure in the program's own process, or, on a Ray cluster, with
            as many as it has GPUs for, one where it has none.
        ray_address: Ray cluster that they run on; None for this machine without Ray.
        patience: Seconds after which a worker that does not answer is replaced; None for
            `supervision.DEFAULT_PATIENCE`.
        gpus: GPUs of each worker on a Ray cluster; None for one where the cluster has any.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int | None = Field(default=None, ge=1, le=1024)
    ray_address: str | None = Field(default=None, min_length=1)
    patience: float | None = Field(default=None, gt=0)
    gpus: float | None = Field(default=None, ge=0, allow_inf_nan=False)

    @field_validator("gpus")
    @classmethod
    def _check_there_is_a_cluster(cls, gpus: float | None, info: ValidationInfo) -> float | None:
        if gpus is not None and info.data.get("ray_address") is None:
            raise ValueError("only workers on a Ray cluster are given GPUs; pass --ray-address too")
        return gpus

    @field_validator("patience")
    @classmethod
    def _check_there_are_workers(cls, patience: float | None, info: ValidationInfo) -> float | None:
        others = info.data.get("number"), info.data.get("ray_address")
        if patience is not None and others == (None, None):
            raise ValueError("only workers are waited for; pass --workers 1 or more too")
        return patience

    @property
    def in_own_process(self) -> bool:
        """Whether the program measures itself."""
        return self.number is None and self.ray_address is None
