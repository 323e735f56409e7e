"""The evaluator of real benchmarks: lmms-eval's tasks on one live model."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pruners.errors import DataError, SettingsError
from pruners.published import dense
from pruners.schedule import Schedule
from pruners.shape import LLAVA_1_5_7B, Shape
from search.evaluators import SampleKey
from search.tasks.catalogue import known_tasks
from search.tasks.disk_cache import DiskCache, cache_key, default_folder
from search.tasks.extra import require_extra
from search.tasks.live_model import load_live_model, model_fingerprint
from search.tasks.loading import LoadedTask, load_task
from search.tasks.local_rows import parquet_files
from search.tasks.rows import BenchmarkSample
from search.tasks.scoring import Results, paper_metric, sample_score
from search.tasks.settings import TaskSettings
from search.tasks.sharpening import BIAS, POOL, SHRINKAGE, sharpest
from search.tasks.subsets import disjoint_subsets
from space.shapes import shape_from_pretrained
from studies.identity import SPLITS, check_split

if TYPE_CHECKING:
    from search.tasks.answering import Answering, Question


class _Chosen(NamedTuple):
    """A sample of a split, with its task."""

    task: LoadedTask
    sample: BenchmarkSample

    @property
    def identifier(self) -> str:
        return f"{self.task.known.name}/{self.sample.identifier}"

    @property
    def image(self) -> str:
        # Tasks name images each in their own way, so that equal names are not one image.
        return f"{self.task.known.name}/{self.sample.image}"


class TaskEvaluator:
    """Scores schedules on lmms-eval's tasks.

    Tasks and the model are loaded when they are first needed, once. All schedules see the same
    samples, whose images are prepared once.

    Args:
        model: Folder or hub name of the model.
        settings: Tasks, subsets, and how the model runs.
        seed: Seed of the subsets.

    Raises:
        SettingsError: A task is unknown or needs a judge, or lmms-eval is not installed.
        DataError: A folder of rows has no parquet files, or a damaged one.
    """

    def __init__(self, model: str, settings: TaskSettings, seed: int = 0) -> None:
        self.name = model
        self._settings = settings
        self._seed = seed
        self._known = known_tasks(settings.names)
        for name in settings.data:
            if name not in settings.names:
                raise SettingsError(
                    f"--task-data {name}: this task is not among --tasks "
                    f"{','.join(settings.names)}; add it there, or leave its folder out"
                )
        require_extra()
        for name, folder in settings.data.items():
            parquet_files(name, folder)

    @property
    def measured_on(self) -> str:
        """The model and benchmarks, in words."""
        bias = f" ({BIAS})" if self._settings.sharp else ""
        return f"{self.name} on {', '.join(self._settings.names)} as lmms-eval defines them{bias}"

    @property
    def text_tower(self) -> str | None:
        """The CLIP checkpoint that compares images with questions; None for the schedules' own."""
        return self._settings.text_tower

    @cached_property
    def shape(self) -> Shape:
        """Shape of the model, read off its configuration."""
        # Asked for first: the hub's refusal comes at once there, and after many tries below.
        _ = self._model_fingerprint
        tower = self._settings.text_tower or LLAVA_1_5_7B.text_tower
        return shape_from_pretrained(self.name, text_tower=tower)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the model and of how it runs."""
        settings = self._settings
        return cache_key(
            model=self._model_fingerprint,
            dtype=settings.dtype,
            device=settings.device or "",
            text_tower=self._text_tower_fingerprint(),
        )

    @cached_property
    def _model_fingerprint(self) -> str:
        return model_fingerprint(self.name)

    def _text_tower_fingerprint(self) -> str:
        tower = self._settings.text_tower
        if tower is None:
            return ""
        return model_fingerprint(tower) if Path(tower).is_dir() else tower

    def samples(self, split: str) -> Sequence[SampleKey]:
        """List a split's samples, task by task."""
        return [
            SampleKey(each.identifier, each.task.known.name, each.image)
            for each in self._chosen_in(split)
        ]

    def split_fingerprint(self, split: str) -> str:
        """Hash of a split's samples: identifiers, rows with their images, and tasks."""
        digest = hashlib.sha256()
        for task in self._tasks:
            chosen = [each.sample for each in self._chosen_in(split) if each.task is task]
            for part in (task.version, task.content(chosen), *(each.identifier for each in chosen)):
                digest.update(part.encode())
        return digest.hexdigest()

    def score(self, schedule: Schedule, split: str, indices: Sequence[int]) -> NDArray[np.float64]:
        """Score samples under a schedule, by the rule of each sample's task."""
        chosen = self._chosen_in(split)
        samples = [chosen[index] for index in indices]
        return self._scores(schedule, samples)

    def questions(self, split: str, indices: Sequence[int]) -> list[Question]:
        """Return the first question of each of some samples.

        Args:
            split: One of `SPLITS`.
            indices: Indices into `samples(split)`.

        Returns:
            The questions.
        """
        chosen = self._chosen_in(split)
        return [
            (each.task, each.sample.rows[0], f"{each.identifier}:0")
            for each in (chosen[index] for index in indices)
        ]

    @property
    def metrics(self) -> dict[str, str]:
        """What papers report of each task, in words."""
        return {known.name: known.metric for known in self._known}

    def paper_metrics(self, schedule: Schedule, split: str) -> dict[str, float]:
        """Compute what papers report, on a split.

        Args:
            schedule: The schedule; answers that are known cost nothing.
            split: One of `SPLITS`.

        Returns:
            The figure by task, in the unit of its `KnownTask.metric`.
        """
        samples = self._chosen_in(split)
        results = self._results(schedule, samples)
        return {
            task.known.name: paper_metric(
                task.known.rule,
                [
                    result
                    for each, result in zip(samples, results, strict=True)
                    if each.task is task
                ],
            )
            for task in self._tasks
        }

    def _scores(
        self, schedule: Schedule, samples: Sequence[_Chosen], shrinkage: int = 1
    ) -> NDArray[np.float64]:
        results = self._results(schedule, samples, shrinkage)
        return np.array(
            [
                sample_score(each.task.known.rule, result)
                for each, result in zip(samples, results, strict=True)
            ]
        )

    def _results(
        self, schedule: Schedule, samples: Sequence[_Chosen], shrinkage: int = 1
    ) -> list[Results]:
        """What the tasks say of the model's answers, sample by sample."""
        rows = [(each, row) for each in samples for row in each.sample.rows]
        names = [f"{each.identifier}:{each.sample.rows.index(row)}" for each, row in rows]
        answers = iter(
            self.answering.answers(
                schedule,
                [(each.task, row, name) for (each, row), name in zip(rows, names, strict=True)],
                shrinkage,
            )
        )
        return [
            [each.task.results(row, next(answers), each.identifier) for row in each.sample.rows]
            for each in samples
        ]

    def _chosen_in(self, split: str) -> list[_Chosen]:
        check_split(split)
        return self._subsets[split]

    @cached_property
    def _tasks(self) -> list[LoadedTask]:
        settings = self._settings
        return [
            load_task(known, settings.data.get(known.name), settings.max_new_tokens)
            for known in self._known
        ]

    @cached_property
    def _subsets(self) -> dict[str, list[_Chosen]]:
        chosen: dict[str, list[_Chosen]] = {split: [] for split in SPLITS}
        for task in self._tasks:
            samples = task.samples
            sizes = self._settings.sizes
            if self._settings.sharp:
                sizes["search"] *= POOL
            try:
                subsets = disjoint_subsets(
                    [sample.identifier for sample in samples],
                    [sample.stratum for sample in samples],
                    sizes,
                    self._seed,
                    balanced=task.known.balanced,
                    images=[sample.image for sample in samples],
                )
            except DataError as error:
                raise DataError(f"task {task.known.name}: {error}") from error
            for split, indices in subsets.items():
                drawn = [_Chosen(task, samples[index]) for index in indices]
                if self._settings.sharp and split == "search":
                    drawn = self._sharpest(drawn)
                chosen[split] += drawn
        return chosen

    def _sharpest(self, pool: Sequence[_Chosen]) -> list[_Chosen]:
        """Choose the search split among candidates; this loads the model."""
        unpruned = dense(self.shape)
        order = np.random.default_rng(self._seed).permutation(len(pool))
        shuffled = [pool[place] for place in order]
        places = sharpest(
            self._scores(unpruned, shuffled),
            self._scores(unpruned, shuffled, SHRINKAGE),
            self._settings.search_samples,
        )
        return sorted((shuffled[place] for place in places), key=lambda each: each.identifier)

    @cached_property
    def answering(self) -> Answering:
        """What asks the model; loading it, the first time.

        Raises:
            ModelError: The model cannot be loaded.
        """
        from search.tasks.answering import Answering

        settings = self._settings
        live = load_live_model(self.name, device=settings.device, dtype=settings.dtype)
        cache = DiskCache(
            settings.cache or default_folder(), int(settings.cache_gigabytes * 1024**3)
        )
        return Answering(
            live,
            cache,
            self.fingerprint,
            batch_size=settings.batch_size,
            text_tower=settings.text_tower,
        )
