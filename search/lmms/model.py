"""The model `prunetune` of lmms-eval: any supported family, dense or with a schedule."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, NoReturn, Self

import torch
from accelerate import Accelerator
from lmms_eval.api.instance import GenerationResult, Instance, TokenCounts
from lmms_eval.api.model import lmms
from lmms_eval.utils import Collator
from loguru import logger
from PIL.Image import Image
from tqdm import tqdm

from pruners.errors import ModelError, SettingsError
from search.lmms.decoding import Answer, Decoding, generate
from search.lmms.loading import LoadedModel, ModelSettings, load
from search.lmms.prompts import Prompt, make_inputs, read_messages
from search.shrinking_batches import ShrinkingBatches

VIDEO_FRAMES = 32
"""Frames taken of a video file, as many as lmms-eval's own `llava_hf` takes."""


@dataclass(frozen=True)
class _Request:
    """One sample to answer.

    Attributes:
        task: Name of its task.
        split: Split of the task's data set.
        document: Its row there.
        text: Its question, or what stands for it.
        messages: Makes its messages from the row.
        settings: The task's ``generation_kwargs``.
    """

    task: str
    split: str
    document: int
    text: str
    messages: Callable[[Any], Sequence[Mapping[str, Any]]]
    settings: Mapping[str, Any]

    @classmethod
    def of(cls, instance: Instance) -> Self:
        """Read a request of lmms-eval's, of a chat task or of a simple one.

        Tasks come to a chat model as simple ones where they are classes or were made from a
        dictionary.
        """
        text, second, third, document, task, split = instance.args
        if callable(second):
            return cls(task, split, document, text, messages=second, settings=third)
        return cls(task, split, document, text, partial(_one_turn, text, third), settings=second)

    def __str__(self) -> str:
        return f"task {self.task}, split {self.split}, sample {self.document}"


def _one_turn(text: str, visuals: Callable[[Any], Any], row: Any) -> list[dict[str, Any]]:
    """Make one message of a row's images and videos and a text after them."""
    content = [
        {"type": "image" if isinstance(visual, Image) else "video", "url": visual}
        for visual in visuals(row) or ()
    ]
    return [{"role": "user", "content": [*content, {"type": "text", "text": text}]}]


class BenchmarkedModel(lmms):  # type: ignore[misc]  # lmms-eval has no types
    """A loaded model that lmms-eval asks, in batches padded on the left.

    lmms-eval calls it with messages. Where a sample cannot be answered it raises an error that
    names the sample; no empty answer stands for a failure. Where the device's memory does not hold
    a batch, that batch and all later ones are halved.
    """

    is_simple = False

    def __init__(
        self, loaded: LoadedModel, *, batch_size: int = 1, video_frames: int = VIDEO_FRAMES
    ) -> None:
        """Take a model.

        Args:
            loaded: The model.
            batch_size: Most samples per call of the model.
            video_frames: Frames to take of each video file.
        """
        super().__init__()
        self.loaded = loaded
        self._batches = ShrinkingBatches(batch_size, _warn_of_smaller_batches)
        self._video_frames = video_frames

    @property
    def batch_size(self) -> int:
        """Most samples per call of the model; halved for good where memory runs out."""
        return self._batches.size

    @property
    def config(self) -> Any:
        """Configuration of the model."""
        return self.loaded.model.config

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        device: torch.device = self.loaded.model.device
        return device

    def generate_until(self, requests: list[Instance]) -> list[GenerationResult]:
        """Answer samples.

        Args:
            requests: Requests of lmms-eval's tasks.

        Returns:
            One answer per request, in their order.

        Raises:
            ModelError: A sample cannot be answered; the message names it.
        """
        # By falling length: batches are alike, and one that is too large is met first.
        order = Collator(
            [_Request.of(request) for request in requests],
            lambda request: (-len(request.text), request.text),
            group_fn=lambda request: request.settings,
            grouping=True,
        )
        answers: list[GenerationResult] = []
        with tqdm(total=len(requests), disable=self.rank != 0, desc="Answers") as progress:
            for batch in order.get_batched(n=self.batch_size):
                for answer in self._answers(batch):
                    counts = TokenCounts(output_tokens=answer.tokens)
                    answers.append(GenerationResult(answer.text, counts))
                    progress.update()
        ordered: list[GenerationResult] = order.get_original(answers)
        return ordered

    def loglikelihood(self, requests: list[Instance]) -> NoReturn:
        """Refuse: a pruned model's prompt and answer are not one text whose tokens can be scored.

        Raises:
            SettingsError: Always.
        """
        raise SettingsError(
            "prunetune answers tasks that generate text; tasks that compare the likelihoods of "
            "choices are not supported, choose the task's generating variant"
        )

    def generate_until_multi_round(self, requests: list[Instance]) -> NoReturn:
        """Refuse: images can be given to a pruned model in the first call alone.

        Raises:
            SettingsError: Always.
        """
        raise SettingsError("prunetune answers tasks of one round; this task asks several")

    def clean(self) -> None:
        """Free memory that nothing uses; the model stays, so that it can be asked again."""
        gc.collect()
        torch.cuda.empty_cache()

    def _answers(self, batch: Sequence[_Request]) -> Iterator[Answer]:
        """Answer samples that have the same settings, as many at once as memory holds."""
        decoding = Decoding.of_task(batch[0].settings)
        asked = [(request, self._prompt(request)) for request in batch]
        work = partial(self._generate, decoding)
        for _, answers in self._batches.run(asked, work, partial(self._failure, decoding)):
            yield from answers

    def _prompt(self, request: _Request) -> Prompt:
        try:
            row = self.task_dict[request.task][request.split][request.document]
            return read_messages(request.messages(row), self.loaded.processor, self._video_frames)
        except Exception as error:
            raise _failure(request, error) from error

    def _generate(
        self, decoding: Decoding, asked: Sequence[tuple[_Request, Prompt]]
    ) -> list[Answer]:
        loaded = self.loaded
        inputs = make_inputs([prompt for _, prompt in asked], loaded.processor)
        return generate(loaded.model, inputs, loaded.processor.tokenizer, decoding)

    def _failure(
        self, decoding: Decoding, asked: Sequence[tuple[_Request, Prompt]], error: Exception
    ) -> ModelError:
        """Name the sample that a batch failed for, or all of them where none does alone.

        Args:
            decoding: How to generate.
            asked: The samples with their prompts.
            error: What the batch raised.

        Returns:
            The error to raise.
        """
        if len(asked) > 1:
            for request, prompt in asked:
                try:
                    self._generate(decoding, [(request, prompt)])
                except Exception as own:
                    return _failure(request, own)
        return _failure("; ".join(str(request) for request, _ in asked), error)


class PrunetuneModel(BenchmarkedModel):
    """What ``python -m lmms_eval --model prunetune --model_args pretrained=...`` makes."""

    def __init__(
        self,
        batch_size: int | str = 1,
        max_batch_size: int | None = None,
        video_frames: int = VIDEO_FRAMES,
        device: str | None = None,
        **settings: Any,
    ) -> None:
        """Load the model that the settings name.

        Args:
            batch_size: Most samples per call of the model.
            max_batch_size: Not used; lmms-eval passes it on.
            video_frames: Frames to take of each video file.
            device: Device to run on; by default this process's GPU, or the CPU without one.
            settings: The other fields of `search.lmms.loading.ModelSettings`, by name.

        Raises:
            SettingsError: A setting is unknown or missing or has a wrong value, or lmms-eval's
                response cache is asked for, whose keys lack the schedule.
            PrunetuneError: What `search.lmms.loading.load` raises.
        """
        names = [field.name for field in fields(ModelSettings)]
        unknown = [name for name in settings if name not in names]
        if unknown:
            known = ", ".join([*names, "video_frames"])
            raise SettingsError(f"--model_args {unknown[0]}=: unknown; expected some of {known}")
        if "pretrained" not in settings:
            raise SettingsError(
                "--model_args names no model; pass pretrained= a hub name or a folder"
            )
        size = str(batch_size)
        if not size.isdecimal() or int(size) < 1:
            raise SettingsError(
                f"--batch_size {batch_size}: expected a number from 1 on; batches that do not fit "
                "into memory are halved"
            )
        # lmms-eval reads digits as numbers, also where they are a name or a hash.
        texts = {name: None if value is None else str(value) for name, value in settings.items()}
        accelerator = Accelerator()
        chosen = ModelSettings(device=device or str(accelerator.device), **texts)  # type: ignore[arg-type]
        if chosen.schedule and not chosen.schedule_hash and _response_cache_is_on(sys.argv):
            raise SettingsError(
                "--use_cache finds answers by the model's arguments, which stay the same when "
                f"{chosen.schedule} changes; add schedule_hash= the schedule's content hash to "
                "--model_args, or leave --use_cache out"
            )
        loaded = load(chosen)
        super().__init__(loaded, batch_size=int(size), video_frames=video_frames)
        self.accelerator = accelerator
        for note in loaded.notes:
            logger.warning(note)
        if loaded.schedule_hash is not None:
            logger.info(f"{chosen.schedule} is applied, content hash {loaded.schedule_hash}")


def _response_cache_is_on(arguments: Sequence[str]) -> bool:
    """Whether lmms-eval's command line asks for its response cache, which models are not told."""
    return any(argument.partition("=")[0] == "--use_cache" for argument in arguments)


def _warn_of_smaller_batches(size: int) -> None:
    logger.warning(f"Out of memory; going on with batches of {size}")


def _failure(what: object, error: Exception) -> ModelError:
    return ModelError(f"{what} could not be answered: {type(error).__name__}: {error}")
