"""lmms-eval's own tasks, built once, on the hub's data sets or on local rows."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pruners.errors import DataError
from search.tasks.catalogue import KnownTask
from search.tasks.extra import extra_versions, require_extra
from search.tasks.hub import check_access
from search.tasks.local_rows import parquet_files
from search.tasks.requests import Request
from search.tasks.rows import BenchmarkSample, benchmark_samples, content_hash
from search.tasks.sharpening import shrunk_images

if TYPE_CHECKING:
    from search.lmms.decoding import Decoding


class LoadedTask:
    """A task with its rows: what it asks, and what its answers are worth to lmms-eval.

    Args:
        known: The benchmark.
        task: lmms-eval's task object.
        images: The rows' images by identifier, where the data set keeps them apart.
        max_new_tokens: Most tokens of an answer, where the task allows more.
    """

    def __init__(
        self,
        known: KnownTask,
        task: Any,
        images: ImageTableRows | None = None,
        max_new_tokens: int | None = None,
    ) -> None:
        self.known = known
        self.task = task
        self._images = images
        self._image_version = images.version if images is not None else ""
        self._row_hashes: dict[int, str] = {}
        self._max_new_tokens = max_new_tokens

    @cached_property
    def samples(self) -> list[BenchmarkSample]:
        """All samples of the benchmark."""
        return benchmark_samples(
            self.known, self.task.eval_docs, images_apart=self._images is not None
        )

    @cached_property
    def decoding(self) -> Decoding:
        """How answers are generated, and when they end."""
        from search.lmms.decoding import Decoding

        decoding = Decoding.of_task(self.task.config.generation_kwargs or {})
        limit = decoding.max_new_tokens
        return replace(decoding, max_new_tokens=min(limit, self._max_new_tokens or limit))

    def row(self, index: int) -> dict[str, Any]:
        """Read a row, with its image."""
        row: dict[str, Any] = self.task.eval_docs[index]
        table = self.known.images
        if self._images is not None and table is not None:
            row["image"] = self._images[row[table.reference]]
        return row

    def request(self, index: int, identifier: str, shrinkage: int = 1) -> Request:
        """Ask what the task asks about a row.

        Args:
            index: Index of the row.
            identifier: The request's identifier.
            shrinkage: Factor by which images lose detail; 1 leaves them as they are.

        Returns:
            The request.

        Raises:
            DataError: The task cannot read the row; the message names it.
        """
        try:
            row = self.row(index)
            text = str(self.task.doc_to_text(row))
            images = tuple(image.convert("RGB") for image in self.task.doc_to_visual(row) or [])
        except Exception as error:
            raise DataError(
                f"sample {identifier} cannot be read ({type(error).__name__}: {error}); "
                "check its data, or leave the task out"
            ) from error
        if shrinkage > 1:
            images = shrunk_images(images, shrinkage)
        return Request(identifier, text, images, self.decoding)

    def results(self, index: int, answer: str, identifier: str) -> dict[str, Any]:
        """Let the task judge an answer.

        Args:
            index: Index of the row.
            answer: What the model said.
            identifier: The sample's identifier, for messages.

        Returns:
            The task's values by metric.

        Raises:
            DataError: The task cannot judge it; the message names the sample.
        """
        # lmms-eval tries again for 8 seconds when this fails, which never helps.
        judge = inspect.unwrap(type(self.task).process_results)
        try:
            values: dict[str, Any] = judge(self.task, self.row(index), [answer])
        except Exception as error:
            raise DataError(
                f"sample {identifier} cannot be scored ({type(error).__name__}: {error}); "
                "check its data, or leave the task out"
            ) from error
        return values

    @cached_property
    def version(self) -> str:
        """Hash of the task's definition and of the libraries that run it."""
        config = self.task.config
        chosen = {
            name: str(getattr(config, name))
            for name in ("task", "generation_kwargs", "lmms_eval_specific_kwargs", "metadata")
        }
        sources = {
            name: inspect.getsource(function)
            for name in ("doc_to_text", "doc_to_visual", "doc_to_target", "process_results")
            if callable(function := getattr(config, name))
        }
        limit = {"max_new_tokens": self.decoding.max_new_tokens}
        return content_hash([chosen, sources, limit, extra_versions()])

    def row_hash(self, index: int) -> str:
        """Hash of a row as it is stored, its image included."""
        if index not in self._row_hashes:
            stored = self.task.eval_docs.with_format("arrow")[index].to_pylist()
            self._row_hashes[index] = content_hash([stored, self._image_version])
        return self._row_hashes[index]

    def content(self, samples: list[BenchmarkSample]) -> str:
        """Hash of samples as they are stored, images included."""
        return content_hash(self.row_hash(index) for sample in samples for index in sample.rows)


def load_task(
    known: KnownTask, folder: Path | None = None, max_new_tokens: int | None = None
) -> LoadedTask:
    """Build a task from lmms-eval's definition.

    Args:
        known: The benchmark.
        folder: Folder with parquet files whose rows have the data set's columns; None for the hub.
        max_new_tokens: Most tokens of an answer, where the task allows more.

    Returns:
        The task.

    Raises:
        SettingsError: lmms-eval is not installed.
        DataError: The folder has no rows, or the hub's data set cannot be read: no network, no
            access, no such columns. The message names what to do.
    """
    require_extra()
    _quieten()
    import lmms_eval
    from lmms_eval.tasks import TaskManager, get_task_dict

    # Only this benchmark's folder is indexed: all of lmms-eval's take 3.5 seconds.
    definitions = Path(lmms_eval.__file__).parent / "tasks" / known.folder
    manager = TaskManager("ERROR", include_path=str(definitions), include_defaults=False)
    if known.name not in manager.all_tasks:
        raise DataError(
            f"the installed lmms-eval has no task {known.name}; install lmms-eval==0.7.3"
        )
    changes = _changes(known, manager, folder)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            task = get_task_dict([{"task": known.name, **changes}], manager)[known.name]
            images = None
            if folder is None and known.images is not None:
                images = _image_table(known, task)
    except Exception as error:
        cause = _root(error)
        where = f"in {folder}" if folder is not None else "of the hub"
        raise DataError(
            f"the rows of {known.name} {where} cannot be read ({type(cause).__name__}: {cause}); "
            "they need the columns of the data set that lmms-eval's task names"
        ) from error
    return LoadedTask(known, task, images, max_new_tokens)


def _changes(known: KnownTask, manager: Any, folder: Path | None) -> dict[str, Any]:
    """What of the task's definition is replaced, after checking that the data can be had."""
    from lmms_eval import utils

    definition = utils.load_yaml_config(manager.task_index[known.name]["yaml_path"], mode="full")
    if folder is None:
        commit = check_access(
            definition["dataset_path"],
            "dataset",
            f"Local rows are given with --task-data {known.name}=FOLDER",
        )
        if not commit:
            _check_downloaded(known, definition)
        options = dict(definition.get("dataset_kwargs") or {})
        # It would ask for a login where none is needed; who is logged in is known without it.
        options.pop("token", None)
        changes: dict[str, Any] = {"dataset_kwargs": options}
        # Images of an own configuration would all be read into memory.
        return changes | ({"process_docs": None} if known.images is not None else {})
    files = parquet_files(known.name, folder)
    split = definition.get("test_split") or definition.get("validation_split")
    return {
        "dataset_path": "parquet",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": {split: [str(file.resolve()) for file in files]}},
        "process_docs": None,
    }


def _check_downloaded(known: KnownTask, definition: Mapping[str, Any]) -> None:
    """Check that a data set is here, in offline mode: lmms-eval would try again and again."""
    import datasets

    path, name = definition["dataset_path"], definition.get("dataset_name")
    try:
        datasets.load_dataset_builder(path, name)
    except Exception as error:
        raise DataError(
            f"the data set {path} of {known.name} has not been downloaded, and HF_HUB_OFFLINE "
            f"forbids doing so ({error}); unset it, or pass local rows with --task-data "
            f"{known.name}=FOLDER"
        ) from error


class ImageTableRows(Mapping[str, Any]):
    """Images by identifier, each decoded when it is asked for."""

    def __init__(self, rows: Any, id_column: str) -> None:
        self._rows = rows
        self.version = str(rows._fingerprint)
        self._places = {name: place for place, name in enumerate(rows[id_column])}

    def __getitem__(self, name: str) -> Any:
        return self._rows[self._places[name]]["image"]

    def __iter__(self) -> Any:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def _image_table(known: KnownTask, task: Any) -> ImageTableRows:
    import datasets

    table = known.images
    assert table is not None
    rows = datasets.load_dataset(task.DATASET_PATH, table.name, split=table.split)
    return ImageTableRows(rows, table.id_column)


def _root(error: BaseException) -> BaseException:
    """The error behind those of retries."""
    attempt = getattr(error, "last_attempt", None)
    if attempt is not None and attempt.exception() is not None:
        return _root(attempt.exception())
    return error


def _quieten() -> None:
    """Leave the terminal to this program: lmms-eval logs and shows progress as it works."""
    import datasets
    from loguru import logger

    logger.disable("lmms_eval")
    datasets.disable_progress_bars()
