"""Which patches of sample images a study's schedules keep, stage by stage: ``gallery.json``."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeInt,
    PlainSerializer,
    PositiveInt,
    ValidationError,
    model_validator,
)

from pruners.errors import StudyError
from studies.files import write_text

GALLERY_FILE = "gallery.json"
"""The gallery of a study, in its folder."""

_PNG = b"\x89PNG\r\n\x1a\n"
_MOST_BYTES = 64 * 2**20  # of a file; a gallery of six photographs takes a few megabytes


def _decoded(value: object) -> object:
    return base64.b64decode(value, validate=True) if isinstance(value, str) else value


def _encoded(value: bytes) -> str:
    return base64.b64encode(value).decode()


_Bytes = Annotated[
    bytes, BeforeValidator(_decoded), PlainSerializer(_encoded, when_used="json"), Field(repr=False)
]
"""Bytes that JSON holds in base64."""

Patches = tuple[NonNegativeInt, ...]
"""Patches of an image, counted row by row from its upper left corner, rising."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class KeptStage(_Record):
    """What is alive after one stage.

    Attributes:
        layer: Its boundary, in the measured model's layers.
        dominant: Patches whose tokens are kept.
        contextual: Patches where contextual tokens stand: the ones that others were merged into.
        class_tokens: How many CLS tokens are kept, which belong to no patch.
        merge: Name of the stage's merge rule, ``"none"`` where what it drops is lost.
    """

    layer: NonNegativeInt
    dominant: Patches
    contextual: Patches
    class_tokens: NonNegativeInt = 0
    merge: str

    @property
    def alive(self) -> int:
        """Visual tokens alive after the stage."""
        return len(self.dominant) + len(self.contextual) + self.class_tokens


class KeptTokens(_Record):
    """What one schedule keeps of one image, and what the model answers.

    Attributes:
        budget: The budget that the schedule meets.
        schedule: ``"searched"``, or a published schedule's name.
        answer: The pruned model's answer.
        stages: The stages that drop tokens, by rising layer.
    """

    budget: str
    schedule: str
    answer: str
    stages: tuple[KeptStage, ...]


class KeptSample(_Record):
    """A sample's image and question, and what schedules keep of it.

    Attributes:
        identifier: Name of the sample in its split.
        task: Its task.
        question: The question.
        expected: The right answer.
        dense_answer: The answer of the dense model.
        image: The image as the model sees it, a PNG file.
        rows: Rows of patches.
        columns: Columns of patches.
        kept: What schedules keep, budget by budget.
    """

    identifier: str
    task: str
    question: str
    expected: str
    dense_answer: str
    image: _Bytes
    rows: PositiveInt
    columns: PositiveInt
    kept: tuple[KeptTokens, ...]

    @property
    def patches(self) -> int:
        """Number of patches, which are the dense model's visual tokens of this image."""
        return self.rows * self.columns

    def dropped(self, stage: KeptStage) -> Patches:
        """List the patches of which no token is left after a stage.

        Args:
            stage: One of the stages of `kept`.

        Returns:
            The patches that it or one before it has dropped, whether merged or lost.
        """
        alive = {*stage.dominant, *stage.contextual}
        return tuple(patch for patch in range(self.patches) if patch not in alive)

    @model_validator(mode="after")
    def _check_patches(self) -> Self:
        if not self.image.startswith(_PNG):
            raise ValueError("the image is no PNG file")
        for kept in self.kept:
            for stage in kept.stages:
                _check_stage(stage, self.patches)
            for earlier, later in pairwise(kept.stages):
                before = {*earlier.dominant, *earlier.contextual}
                if later.layer <= earlier.layer or not before.issuperset(
                    (*later.dominant, *later.contextual)
                ):
                    raise ValueError(
                        f"the stage at layer {later.layer} keeps what the one at layer "
                        f"{earlier.layer} has dropped, or does not follow it"
                    )
        return self


class Gallery(_Record):
    """What a study's schedules keep of some sample images.

    Attributes:
        format: Always ``"prunetune.gallery"``.
        version: Version of the format.
        measured_on: The model and benchmark, in words.
        split: The split that the samples are of.
        samples: The samples.
    """

    format: Literal["prunetune.gallery"] = "prunetune.gallery"
    version: Literal[1] = 1
    measured_on: str
    split: str
    samples: Annotated[tuple[KeptSample, ...], Field(min_length=1)]


def find_gallery(folder: Path) -> Gallery | None:
    """Read the gallery of a study.

    Args:
        folder: The study's folder.

    Returns:
        Its gallery; None where it has none.

    Raises:
        StudyError: The gallery is damaged.
    """
    path = folder / GALLERY_FILE
    return read_gallery(path) if path.exists() else None


def write_gallery(gallery: Gallery, path: Path) -> None:
    """Write ``gallery.json``.

    Args:
        gallery: The gallery.
        path: The file to write or replace.

    Raises:
        StudyError: The file cannot be written.
    """
    write_text(path, json.dumps(gallery.model_dump(mode="json"), sort_keys=True) + "\n")


def read_gallery(path: Path) -> Gallery:
    """Read ``gallery.json``.

    Args:
        path: The file.

    Returns:
        The gallery.

    Raises:
        StudyError: The file cannot be read, is too large or holds no gallery.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise StudyError(
                f"{path} has more than {_MOST_BYTES >> 20} MiB, which no gallery has; remove it"
            )
        return Gallery.model_validate_json(path.read_bytes())
    except OSError as error:
        raise StudyError(f"{path} cannot be read ({error.strerror or error})") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise StudyError(
            f"{path} does not hold a gallery of kept tokens ({where}: {first['msg']}); remove it "
            "and run the study's command again"
        ) from error


def _check_stage(stage: KeptStage, patches: int) -> None:
    for name, some in (("dominant", stage.dominant), ("contextual", stage.contextual)):
        if not _rises(some) or (some and some[-1] >= patches):
            raise ValueError(
                f"{name} at layer {stage.layer} should be rising numbers below {patches}"
            )
    if set(stage.dominant) & set(stage.contextual):
        raise ValueError(f"at layer {stage.layer} a patch is both dominant and contextual")


def _rises(numbers: Iterable[int]) -> bool:
    return all(one < other for one, other in pairwise(numbers))
