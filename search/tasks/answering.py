"""Answers of one model under any schedule, none of them computed twice."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

import pruners
import search.lmms
import search.tasks
from pruners.prefill_record import PrefillRecord
from pruners.runtime import PrunedModel, apply_schedule
from pruners.schedule import Schedule
from pruners.text_tower import TextTower
from search.tasks.disk_cache import DiskCache, cache_key
from search.tasks.encoding import ImageEncoder
from search.tasks.generation import Generator, Prepared
from search.tasks.live_model import LiveModel
from search.tasks.loading import LoadedTask
from search.tasks.preparing import Inputs, prepare

Question = tuple[LoadedTask, int, str]
"""A task, the index of one of its rows, and an identifier."""

_THREADS = 4
"""Threads that decode and prepare images."""

_AT_ONCE = 256
"""Questions whose inputs are in memory at once: with what stages read, about 10 MB each."""


class Answering:
    """One live model, to which schedules are applied in turn.

    Args:
        live: The model.
        cache: Keeps prepared samples and answers.
        fingerprint: Hash of the model and how it runs, for keys of the cache.
        batch_size: Questions per batch.
        text_tower: Folder or hub name of the text tower, instead of the one that schedules name.
    """

    def __init__(
        self,
        live: LiveModel,
        cache: DiskCache,
        fingerprint: str,
        *,
        batch_size: int,
        text_tower: str | None = None,
    ) -> None:
        self._live = live
        self._cache = cache
        self._model = cache_key(
            model=fingerprint,
            dtype=str(live.dtype),
            processor=live.processing(),
            attention=str(live.model.config._attn_implementation),
            code=_code(),
        )
        self._named_tower = text_tower
        self._towers: dict[str, TextTower] = {}
        self._generator = Generator(live, batch_size)
        self._encoder = ImageEncoder(live, cache, batch_size)

    def answers(
        self, schedule: Schedule, questions: Sequence[Question], shrinkage: int = 1
    ) -> list[str]:
        """Answer questions under a schedule.

        Args:
            schedule: The schedule, for a decoder of the model's depth.
            questions: The questions.
            shrinkage: Factor by which images lose detail; 1 leaves them as they are.

        Returns:
            The answers, in the order asked.

        Raises:
            PrunetuneError: The schedule does not fit the model, or a sample fails; the message
                names it.
        """
        samples = [self._sample_key(question, shrinkage) for question in questions]
        keys = [
            cache_key(
                kind="answer",
                sample=sample,
                schedule=schedule.content_hash,
                device=self._live.device.type,
            )
            for sample in samples
        ]
        answers = [self._known(key) for key in keys]
        missing = [place for place, answer in enumerate(answers) if answer is None]
        for start in range(0, len(missing), _AT_ONCE):
            places = missing[start : start + _AT_ONCE]
            new = self._new_answers(
                schedule,
                [questions[place] for place in places],
                [samples[place] for place in places],
                shrinkage,
            )
            for place, answer in zip(places, new, strict=True):
                answers[place] = answer
                text = np.frombuffer(answer.encode(), dtype=np.uint8).copy()
                self._cache.put(keys[place], {"answer": torch.from_numpy(text)})
        return [answer for answer in answers if answer is not None]

    @property
    def live(self) -> LiveModel:
        """The model."""
        return self._live

    def inputs(self, question: Question) -> Inputs:
        """Return what the model gets for a question.

        Args:
            question: The question.

        Returns:
            Its inputs, on the CPU.

        Raises:
            DataError: The sample cannot be read or prepared.
        """
        return self._prepare(question, shrinkage=1).inputs

    def watched(
        self, schedule: Schedule, questions: Sequence[Question]
    ) -> list[tuple[str, PrefillRecord | None]]:
        """Answer questions one by one, and tell what the runtime kept; nothing is cached.

        Args:
            schedule: The schedule, for a decoder of the model's depth.
            questions: The questions, each with an image.

        Returns:
            Answers with the records of their prefills; no record where nothing prunes.

        Raises:
            PrunetuneError: The schedule does not fit the model, or a sample fails.
        """
        prepared = self._prepared(questions)
        with self._applied(schedule) as handle:
            return [
                (self._generator.answers([question])[0], handle.last_prefill)
                for question in prepared
            ]

    def _applied(self, schedule: Schedule) -> PrunedModel:
        live, tower = self._live, self._text_tower(schedule)
        return apply_schedule(live.model, schedule, processor=live.processor, text_tower=tower)

    def _new_answers(
        self,
        schedule: Schedule,
        questions: Sequence[Question],
        samples: Sequence[str],
        shrinkage: int,
    ) -> list[str]:
        """Ask the model; `samples` has the key of each question's inputs."""
        prepared = self._prepared(questions, shrinkage)
        with self._applied(schedule) as handle:
            if not handle.prunes_in_tower:
                tower = self._text_tower(schedule)
                prepared = self._encoder.encoded(prepared, samples, tower)
            return self._generator.answers(prepared, partial(self._encoder.arguments, handle))

    def _known(self, key: str) -> str | None:
        found = self._cache.get(key)
        return None if found is None else found["answer"].numpy().tobytes().decode()

    def _prepared(self, questions: Sequence[Question], shrinkage: int = 1) -> list[Prepared]:
        with ThreadPoolExecutor(_THREADS) as pool:
            return list(pool.map(partial(self._prepare, shrinkage=shrinkage), questions))

    def _prepare(self, question: Question, *, shrinkage: int) -> Prepared:
        task, row, identifier = question
        key = cache_key(kind="inputs", sample=self._sample_key(question, shrinkage))
        inputs = self._cache.get(key)
        if inputs is None:
            inputs = prepare(self._live, task.request(row, identifier, shrinkage))
            self._cache.put(key, inputs)
        return Prepared(identifier, inputs, task.decoding)

    def _sample_key(self, question: Question, shrinkage: int) -> str:
        """Key of everything that a sample's inputs depend on."""
        task, row, identifier = question
        return cache_key(
            model=self._model,
            task=task.known.name,
            version=task.version,
            sample=identifier,
            content=task.row_hash(row),
            shrinkage=str(shrinkage),
        )

    def _text_tower(self, schedule: Schedule) -> TextTower | None:
        """Load the text tower that a schedule reads, once; None where it reads none."""
        named = [
            getattr(stage.scorer, "text_tower", None)
            for stage in schedule.stages
            if getattr(stage.scorer, "text_tower", None) is not None
        ]
        if not named:
            return None
        name = self._named_tower or str(named[0])
        if name not in self._towers:
            self._towers[name] = TextTower.load(name)
        return self._towers[name]


def _code() -> str:
    """Hash of the code that prepares, prunes and decodes, and of the libraries below it."""
    digest = hashlib.sha256()
    for package in (pruners, search.lmms, search.tasks):
        for path in sorted(Path(str(package.__file__)).parent.rglob("*.py")):
            digest.update(path.read_bytes())
    for library in ("torch", "transformers", "tokenizers"):
        digest.update(version(library).encode())
    return digest.hexdigest()
