"""What makes two runs the same study, and how to tell them apart."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from pruners.errors import DataError, StudyError, shortened
from pruners.json_files import read_json
from pruners.shape import Shape

SPLITS = ("search", "confirm", "report")
"""Disjoint sets of samples: for the search, for choosing among its best, for the result."""

_Field = tuple[str, ...]  # its name and, before it, those that it is in

_LONGEST_BUDGET = 100  # characters; files are called by it
_MOST_DIFFERENCES = 8  # that a message names
_FOLLOWING: Mapping[str, tuple[str, ...]] = {
    "model": ("model_fingerprint", "tasks", "splits.", "space.layer_step"),
    "tasks": ("splits.",),
    "seed": tuple(f"splits.{split}.fingerprint" for split in SPLITS),
    "shape.name": ("shape.", "space.layer_step"),
    "space.decoder_stages": ("space.dimensions.",),
    "space.vocabulary": ("space.dimensions.",),
    "strategy.sampler": ("strategy.",),
    **{f"splits.{split}.samples": (f"splits.{split}.fingerprint",) for split in SPLITS},
}
"""Beginnings of fields that differ because another one does."""
_OPTIONS = {
    "model": "--model",
    "tasks": "--tasks",
    "seed": "--seed",
    "budgets": "--budget",
    "shape.name": "--target",
    "space.decoder_stages": "--stages",
    "space.vocabulary": "--space",
    "strategy.sampler": "--strategy",
    **{f"splits.{split}.samples": f"--{split}-samples" for split in SPLITS},
}
"""What users give to set a field."""
_LONGEST_VALUE = 60  # characters of a value or a name that a message shows


def check_split(split: str) -> None:
    """Refuse a split that does not exist.

    Args:
        split: A split's name.

    Raises:
        DataError: It is none of `SPLITS`.
    """
    if split not in SPLITS:
        raise DataError(f"unknown split {split!r}; choose one of {', '.join(SPLITS)}")


class SplitIdentity(BaseModel):
    """Which samples a split holds.

    Attributes:
        samples: Number of samples.
        fingerprint: Hash over the identifiers of the samples and their content.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    samples: int = Field(ge=0)
    fingerprint: str


class FieldDifference(NamedTuple):
    """A field in which a run differs from a study.

    Attributes:
        field: Name of the field, nested ones with dots.
        stored: Its value in the study, as JSON, cut where it is long; ``"absent"`` without one.
        asked: Its value in the run, likewise.
    """

    field: str
    stored: str
    asked: str

    @property
    def values(self) -> str:
        """Both values in words."""
        return f"{self.stored} in the study, {self.asked} now"


class StudyIdentity(BaseModel):
    """Everything that must stay the same for a study to be continued.

    How long to search (trials, time limit) is not part of it: a study may always be given more.

    Attributes:
        format: Always ``"prunetune.study"``.
        version: Version of the identity's format.
        model: The measured model as the user named it: ``"embedded"``, a hub name or a folder.
        model_fingerprint: Hash of the measured model's weights and configuration.
        shape: Shape that schedules are priced for.
        tasks: Tasks whose mean is the objective.
        splits: The samples of each split, by its name.
        budgets: Budgets with their units, one Optuna study each.
        space: What is searched: stages, layer step, every dimension with its range or options, and
            whatever else decides the coding.
        strategy: How it is searched: sampler, racing, first trials.
        seed: Seed of the sampler and of the sample order.
        versions: Versions of the libraries that decide results, by distribution.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["prunetune.study"] = "prunetune.study"
    version: Literal[1] = 1
    model: str
    model_fingerprint: str
    shape: Shape
    tasks: tuple[str, ...]
    splits: dict[str, SplitIdentity]
    budgets: tuple[Annotated[str, Field(max_length=_LONGEST_BUDGET)], ...]
    space: dict[str, JsonValue]
    strategy: dict[str, JsonValue] = {}
    seed: int
    versions: dict[str, str]

    @property
    def fingerprint(self) -> str:
        """Hash of the whole identity, hexadecimal."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def differences(self, other: StudyIdentity) -> list[FieldDifference]:
        """Name the fields in which another run differs from this study.

        Args:
            other: Identity of the run that wants to continue this study.

        Returns:
            The differing fields, by name; empty when the study can be continued.
        """
        mine = dict(_flattened(self.model_dump(mode="json")))
        theirs = dict(_flattened(other.model_dump(mode="json")))
        return [
            FieldDifference(
                shortened(".".join(field), _LONGEST_VALUE),
                stored=_shown(mine, field),
                asked=_shown(theirs, field),
            )
            for field in sorted(mine.keys() | theirs.keys())
            if field not in mine
            or field not in theirs
            or json.dumps(mine[field]) != json.dumps(theirs[field])  # 1 and true are not the same
        ]


def leading(differences: Sequence[FieldDifference]) -> list[FieldDifference]:
    """Leave out what differs only because something else does.

    Args:
        differences: What `StudyIdentity.differences` found.

    Returns:
        Those of them that do not follow from another.
    """
    causes = [each.field for each in differences if each.field in _FOLLOWING]
    return [
        each
        for each in differences
        if not any(
            each.field != cause and each.field.startswith(_FOLLOWING[cause]) for cause in causes
        )
    ]


def in_few_words(differences: Sequence[FieldDifference]) -> str:
    """Say what makes two studies differ, in the words of the command line.

    Args:
        differences: What `StudyIdentity.differences` found.

    Returns:
        The leading ones, the first of them where they are many.
    """
    named = [
        f"{_OPTIONS.get(each.field, each.field)}: {each.values}" for each in leading(differences)
    ]
    if len(named) > _MOST_DIFFERENCES:
        named[_MOST_DIFFERENCES:] = [f"and {len(named) - _MOST_DIFFERENCES} more"]
    return "; ".join(named)


def read_identity(path: Path) -> StudyIdentity:
    """Read a study's identity.

    Args:
        path: The study's ``identity.json``.

    Returns:
        The identity.

    Raises:
        StudyError: The file cannot be read or is no study's identity.
    """
    try:
        return StudyIdentity.model_validate(read_json(path))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise StudyError(
            f"{path} is not the identity of a prunetune study ({shortened(where)}: "
            f"{shortened(first['msg'])}); choose another folder for the study, or remove this one"
        ) from error
    except OSError as error:
        raise StudyError(f"{path} cannot be read ({error})") from error
    except ValueError as error:
        raise StudyError(
            f"{path} is not the identity of a prunetune study ({shortened(error)}); "
            "choose another folder for the study, or remove this one"
        ) from error


def _flattened(values: Mapping[str, object], above: _Field = ()) -> Iterator[tuple[_Field, object]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flattened(value, (*above, key))
        else:
            yield (*above, key), value


def _shown(values: Mapping[_Field, object], field: _Field) -> str:
    if field not in values:
        return "absent"
    return shortened(json.dumps(values[field]), _LONGEST_VALUE)
