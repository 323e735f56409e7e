"""The benchmarks that a search can use, how papers score them, and those that are refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from types import MappingProxyType
from typing import Literal

from pruners.errors import SettingsError

Rule = Literal["exact_match", "pope", "mme", "mmbench", "seed"]
"""How answers become the score of a sample; see `search.tasks.scoring`."""


@dataclass(frozen=True)
class ImageTable:
    """Images that a data set keeps in a configuration of their own.

    Attributes:
        name: The configuration.
        split: Its split.
        id_column: Column of the image's identifier there.
        reference: Column of the rows that names it.
    """

    name: str
    split: str
    id_column: str
    reference: str


@dataclass(frozen=True)
class KnownTask:
    """A benchmark with an established score that needs no judge.

    Attributes:
        name: Name of lmms-eval's task.
        folder: Folder of its definition below ``lmms_eval/tasks``.
        metric: What papers report, in words.
        rule: How answers become the score of a sample.
        id_columns: Columns that identify a row in every copy of the data set; without any, rows
            are identified by a hash of their content.
        groups: Whether rows with the same identifier are one sample, as the two questions on an
            image of MME are. Of MMBench's index the last six digits count: the rest numbers the
            rotations of a question's choices.
        strata: Columns, or ``column.field``, in whose values subsets are like the whole.
        answer_column: Column of the right answer, without which lmms-eval scores some tasks 0.
        image_column: Column that names a row's image, or holds it; samples of the same image never
            stand in different subsets.
        images_optional: Whether lmms-eval also asks rows that have no image.
        balanced: Whether subsets hold as many samples of each stratum as of any other.
        only: A column and the value of the rows that are used; None for all rows.
        images: Where images are if not in the rows.
    """

    name: str
    folder: str
    metric: str
    rule: Rule = "exact_match"
    id_columns: tuple[str, ...] = ()
    groups: bool = False
    strata: tuple[str, ...] = ()
    answer_column: str = "answer"
    image_column: str = "image"
    images_optional: bool = False
    balanced: bool = False
    only: tuple[str, str] | None = None
    images: ImageTable | None = None


_GQA_IMAGES = ImageTable("testdev_balanced_images", "testdev", "id", "imageId")
_MMBENCH = {
    "folder": "mmbench",
    "metric": "accuracy in %, all rotations of a question right, option read off the answer",
    "rule": "mmbench",
    "id_columns": ("index",),
    "groups": True,
    "strata": ("category",),
}

_TASKS = (
    KnownTask(
        "gqa",
        "gqa",
        "exact match in %",
        id_columns=("id",),
        strata=("types.structural",),
        image_column="imageId",
        images=_GQA_IMAGES,
    ),
    KnownTask(
        "gqa_lite",
        "gqa",
        "exact match in %",
        id_columns=("id",),
        strata=("types.structural",),
        image_column="imageId",
    ),
    KnownTask(
        "pope",
        "pope",
        "F1 of 'yes' in %",
        rule="pope",
        id_columns=("category", "question_id"),
        strata=("category", "answer"),
        image_column="image_source",
    ),
    KnownTask(
        "mme",
        "mme",
        "sum over categories of accuracy and pair accuracy in %",
        rule="mme",
        id_columns=("category", "question_id"),
        groups=True,
        strata=("category",),
        image_column="question_id",
        balanced=True,
    ),
    KnownTask(name="mmbench_en_dev_static", **_MMBENCH),  # type: ignore[arg-type]
    KnownTask(name="mmbench_cn_dev", **_MMBENCH),  # type: ignore[arg-type]
    KnownTask(
        "scienceqa_img",
        "scienceqa",
        "accuracy in %",
        strata=("subject",),
        images_optional=True,
    ),
    KnownTask(
        "vqav2_val",
        "vqav2",
        "VQA accuracy in %",
        id_columns=("question_id",),
        strata=("answer_type",),
        answer_column="answers",
        image_column="image_id",
    ),
    KnownTask(
        "textvqa_val",
        "textvqa",
        "VQA accuracy in %",
        id_columns=("question_id",),
        answer_column="answers",
        image_column="image_id",
    ),
    KnownTask(
        "vizwiz_vqa_val",
        "vizwiz_vqa",
        "VQA accuracy in %",
        id_columns=("question_id",),
        strata=("category",),
        answer_column="answers",
        image_column="question_id",
    ),
    KnownTask(
        "seedbench",
        "seedbench",
        "accuracy on images in %",
        rule="seed",
        id_columns=("question_id",),
        strata=("question_type_id",),
        image_column="data_id",
        only=("data_type", "image"),
    ),
)

TASKS: Mapping[str, KnownTask] = MappingProxyType({task.name: task for task in _TASKS})
"""Benchmarks by the name of lmms-eval's task."""

_JUDGE = "its answers are rated by a language model behind an API"
_NO_ANSWERS = "its split has no public answers"
_NO_TASK = "papers have it rated by a language model, and lmms-eval 0.7.3 has no task of it"

REFUSED: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "mmbench_en_dev": (_JUDGE, "use mmbench_en_dev_static"),
        "mmbench_en_test": (_NO_ANSWERS, "use mmbench_en_dev_static"),
        "mmbench_cn_test": (_NO_ANSWERS, "use mmbench_cn_dev"),
        "textvqa": ("it adds a split without public answers", "use textvqa_val"),
        "textvqa_test": (_NO_ANSWERS, "use textvqa_val"),
        "vqav2": ("it adds a split without public answers", "use vqav2_val"),
        "vqav2_test": (_NO_ANSWERS, "use vqav2_val"),
        "vizwiz_vqa": ("it adds a split without public answers", "use vizwiz_vqa_val"),
        "vizwiz_vqa_test": (_NO_ANSWERS, "use vizwiz_vqa_val"),
        "mmvet": (_JUDGE, "leave it out"),
        "mathvista_testmini": (_JUDGE, "leave it out"),
        "llava_in_the_wild": (_JUDGE, "leave it out"),
        "activitynetqa": (_JUDGE, "leave it out"),
        "msvd": (_NO_TASK, "leave it out"),
        "msvd_qa": (_NO_TASK, "leave it out"),
        "msrvtt": (_NO_TASK, "leave it out"),
        "msrvtt_qa": (_NO_TASK, "leave it out"),
        "tgif": (_NO_TASK, "leave it out"),
        "tgif_qa": (_NO_TASK, "leave it out"),
    }
)
"""Why a task cannot be used, and what to do, by its name."""


def known_tasks(names: Sequence[str]) -> tuple[KnownTask, ...]:
    """Look tasks up.

    Args:
        names: Names of lmms-eval's tasks.

    Returns:
        The tasks, in the order given.

    Raises:
        SettingsError: A task is unknown, or cannot be scored without a judge; the message names
            what to use.
    """
    for name in names:
        if name in REFUSED:
            reason, instead = REFUSED[name]
            raise SettingsError(f"--tasks {name}: {reason}, so no search can use it; {instead}")
        if name not in TASKS:
            near = get_close_matches(name.lower(), TASKS, n=3, cutoff=0.5)
            hint = f"; did you mean {' or '.join(near)}?" if near else "."
            raise SettingsError(
                f"--tasks {name}: there is no such task here{hint} The tasks are {', '.join(TASKS)}"
            )
    return tuple(TASKS[name] for name in names)
