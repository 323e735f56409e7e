"""What a search on real benchmarks is asked to do."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from pruners.errors import shown

DType = Literal["auto", "float32", "float16", "bfloat16"]


class TaskSettings(BaseModel):
    """Benchmarks, their subsets, and how the model runs on them.

    Attributes:
        names: Names of lmms-eval's tasks; see `search.tasks.catalogue`.
        data: Folder of parquet files by task, instead of the hub's data set.
        search_samples: Samples of each task in the search split.
        confirm_samples: The same for the confirm split.
        report_samples: The same for the report split.
        sharp: Whether the search split prefers samples that tell schedules apart.
        device: Device that torch names, for example ``"cuda:0"``; None takes the accelerator that
            is there, else the CPU.
        dtype: Floating-point type of the model; ``"auto"`` is that of its weights on an accelerator
            and float32 on the CPU.
        batch_size: Samples per generated batch; it is halved when memory runs out.
        max_new_tokens: Most tokens of an answer, where a task allows more; None for the tasks' own
            limits.
        text_tower: Folder or hub name of a CLIP checkpoint, instead of the one that schedules name.
        cache: Folder of preprocessed samples; None keeps it in the user's cache folder.
        cache_gigabytes: Size at which the least recently used files of that folder are deleted.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    names: tuple[str, ...] = ()
    data: dict[str, Path] = Field(default_factory=dict)
    search_samples: int = Field(default=200, ge=1)
    confirm_samples: int = Field(default=100, ge=1)
    report_samples: int = Field(default=500, ge=1)
    sharp: bool = False
    device: str | None = None
    dtype: DType = "auto"
    batch_size: int = Field(default=16, ge=1)
    max_new_tokens: int | None = Field(default=None, ge=1)
    text_tower: str | None = None
    cache: Path | None = None
    cache_gigabytes: float = Field(default=20.0, gt=0, allow_inf_nan=False)

    @field_validator("names")
    @classmethod
    def _check_given_once(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"{', '.join(map(shown, twice))} was given twice; give each task once")
        return names

    @field_validator("cache")
    @classmethod
    def _check_can_be_written(cls, cache: Path | None) -> Path | None:
        """Refuse what could keep nothing, which nothing would say."""
        if cache is None:
            return None
        try:
            existing = next(path for path in (cache, *cache.absolute().parents) if path.exists())
            is_folder = existing.is_dir()
        except OSError as error:
            raise ValueError(f"no folder can be there ({error.strerror}); name another") from error
        if not is_folder:
            raise ValueError("this is a file, or in one; name a folder")
        if not os.access(existing, os.W_OK | os.X_OK):
            raise ValueError("this may not be written to; name another folder")
        return cache

    @property
    def sizes(self) -> dict[str, int]:
        """Samples per task, by split."""
        return {
            "search": self.search_samples,
            "confirm": self.confirm_samples,
            "report": self.report_samples,
        }
