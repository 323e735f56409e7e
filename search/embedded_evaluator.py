"""The evaluator of the embedded model: a real vision-language model and benchmark, on the CPU."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pruners.errors import ModelError
from pruners.published import dense
from pruners.schedule import Schedule
from pruners.shape import Shape
from search.attention_mass import AttentionMass
from search.embedded import CHECKPOINT, CLIP, DATA
from search.embedded.attention import attention_mass
from search.embedded.benchmark import load_split, split_file
from search.embedded.inputs import BATCH, SplitInputs, encode_split, one_thread
from search.embedded.outputs import DenseOutputs, Outputs, cosines, head_inputs
from search.embedded.scoring import score
from search.evaluators import Probe, SampleKey
from search.quietening import show_no_progress_bars
from space.shapes import shape_from_pretrained

if TYPE_CHECKING:
    from torch import Tensor

    from pruners.text_tower import TextTower

TEXT_TOKENS = 12
"""Length of the benchmark's prompts beside the image, rounded mean over the report split."""


class EmbeddedEvaluator:
    """Scores schedules on the embedded model and its benchmark, in float32 on the CPU.

    A sample's score is 1 when the model's next token after the prompt is the answer, as all answers
    are one token. Images and questions of a split are encoded when it is first needed, once for all
    schedules.

    Args:
        checkpoint: Folder of another model of the same make, to compare with the embedded one.
        benchmark: Folder of another benchmark of the same make.
    """

    def __init__(self, checkpoint: Path = CHECKPOINT, benchmark: Path = DATA) -> None:
        self._checkpoint = checkpoint
        self.benchmark = benchmark
        """Folder of the samples."""

    @property
    def name(self) -> str:
        """``"embedded"``, or the folder of the other model."""
        return "embedded" if self._checkpoint == CHECKPOINT else str(self._checkpoint)

    @property
    def measured_on(self) -> str:
        """The model and benchmark, in words."""
        model = "the embedded model" if self._checkpoint == CHECKPOINT else self.name
        benchmark = "its benchmark" if self.benchmark == DATA else f"the benchmark {self.benchmark}"
        return (
            f"{model} ({self.shape.decoder_layers} decoder layers, "
            f"{self.shape.visual_tokens} visual tokens) and {benchmark}"
        )

    @cached_property
    def shape(self) -> Shape:
        """Shape of the embedded model, read off its configuration."""
        shape = shape_from_pretrained(
            self._checkpoint, text_tower=self._checkpoint / CLIP.name, text_tokens=TEXT_TOKENS
        )
        return shape.model_copy(update={"name": self.name})

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the checkpoint's files."""
        files = sorted(path for path in self._checkpoint.rglob("*") if path.is_file())
        if not files:
            raise ModelError(
                f"the embedded model is missing from {self._checkpoint}; reinstall prunetune"
            )
        digest = hashlib.sha256()
        for path in files:
            digest.update(path.relative_to(self._checkpoint).as_posix().encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
        return digest.hexdigest()

    def samples(self, split: str) -> Sequence[SampleKey]:
        """List a split's samples in the order of its file."""
        return _sample_keys(split_file(split, self.benchmark))

    def split_fingerprint(self, split: str) -> str:
        """Hash of the split's file."""
        return hashlib.sha256(split_file(split, self.benchmark).read_bytes()).hexdigest()

    def score(self, schedule: Schedule, split: str, indices: Sequence[int]) -> NDArray[np.float64]:
        """Score samples under a schedule: 1 for the right token, else 0."""
        return self._scores(self._run(schedule, split, indices), split, indices)

    def probe(self, schedule: Schedule, split: str, indices: Sequence[int]) -> Probe:
        """Score samples under a schedule and compare them with the dense model, run once."""
        from scipy.special import softmax

        outputs = self._run(schedule, split, indices)
        dense_outputs = self._dense(split, indices)
        probabilities = softmax(outputs.logits.astype(np.float64), axis=1)
        agreements = cosines(outputs.states, dense_outputs.states)
        return Probe(
            scores=self._scores(outputs, split, indices),
            answer_probabilities=probabilities[np.arange(len(indices)), dense_outputs.tokens],
            hidden_agreements=agreements,
        )

    def attention_mass(self, split: str, indices: Sequence[int]) -> AttentionMass:
        """Add up the attention that visual tokens receive in the dense model."""
        samples = load_split(split, folder=self.benchmark)
        return attention_mass(self.model, self.processor, [samples[index] for index in indices])

    def inputs(self, split: str) -> SplitInputs:
        """Return what no schedule changes about a split; computed when it is first asked for.

        Args:
            split: One of `studies.identity.SPLITS`.

        Returns:
            Prompts, answers, and encoded images and questions.

        Raises:
            DataError: The split is missing.
        """
        if split not in self._encoded:
            self._encoded[split] = encode_split(
                load_split(split, folder=self.benchmark),
                self.model,
                self.processor,
                self.text_tower,
                self.shape.visual_tokens,
            )
        return self._encoded[split]

    def padded(self, prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Pad prompts on the left to the longest.

        Args:
            prompts: Token ids of each prompt.

        Returns:
            Token ids and attention mask, each (batch, length).
        """
        tokenizer = self.processor.tokenizer
        padded = tokenizer.pad({"input_ids": prompts}, padding_side="left", return_tensors="pt")
        return padded["input_ids"], padded["attention_mask"]

    @cached_property
    def model(self) -> Any:
        """The model, in float32 on the CPU.

        Raises:
            ModelError: Its files are missing or damaged.
        """
        import torch
        from transformers import AutoModelForImageTextToText

        show_no_progress_bars()
        try:
            model = AutoModelForImageTextToText.from_pretrained(
                self._checkpoint, dtype=torch.float32, trust_remote_code=False
            )
        except (OSError, ValueError) as error:
            raise ModelError(
                f"the embedded model in {self._checkpoint} cannot be loaded ({error}); "
                "reinstall prunetune"
            ) from error
        return model.eval()

    @cached_property
    def processor(self) -> Any:
        """The model's processor."""
        from transformers import AutoProcessor

        # Without torchvision there is only this backend; with it, pixels would differ a little.
        return AutoProcessor.from_pretrained(
            self._checkpoint, backend="pil", trust_remote_code=False
        )

    @cached_property
    def text_tower(self) -> TextTower:
        """The text tower that is paired with the model's vision tower."""
        from pruners.text_tower import TextTower

        return TextTower.load(self._checkpoint / CLIP.name)

    @cached_property
    def _encoded(self) -> dict[str, SplitInputs]:
        return {}

    @cached_property
    def _dense_outputs(self) -> dict[tuple[str, int], tuple[np.int64, NDArray[np.float32]]]:
        """The dense model's token and state, by split and sample."""
        return {}

    def _dense(self, split: str, indices: Sequence[int]) -> DenseOutputs:
        """Return what the dense model gives on samples, running those not seen before."""
        missing = [index for index in indices if (split, index) not in self._dense_outputs]
        if missing:
            self._run(dense(self.shape), split, missing)
        tokens, states = zip(*(self._dense_outputs[split, index] for index in indices), strict=True)
        return DenseOutputs(np.array(tokens), np.array(states))

    def _run(self, schedule: Schedule, split: str, indices: Sequence[int]) -> Outputs:
        """Run samples under a schedule, in batches of similar length."""
        from pruners.runtime import apply_schedule

        inputs = self.inputs(split)
        # Samples of similar length share a batch, so that little of it is padding.
        order = sorted(range(len(indices)), key=lambda at: len(inputs.prompts[indices[at]]))
        rows: list[Outputs] = []
        with (
            one_thread() as torch,
            apply_schedule(self.model, schedule, text_tower=self.text_tower) as handle,
            head_inputs(self.model) as states,
        ):
            for start in range(0, len(order), BATCH):
                batch = [int(indices[place]) for place in order[start : start + BATCH]]
                input_ids, mask = self.padded([inputs.prompts[index] for index in batch])
                logits = handle.prefill(
                    input_ids,
                    mask,
                    inputs.vision.select(torch.from_numpy(inputs.image_of[batch])),
                    inputs.questions.select(torch.tensor(batch)),
                )
                tokens = logits.argmax(dim=-1)
                rows.append(Outputs(tokens.numpy(), logits.numpy(), states.pop().numpy()))
        places = np.argsort(order)
        outputs = Outputs(*(np.concatenate(parts)[places] for parts in zip(*rows, strict=True)))
        if not schedule.stages:
            for index, token, state in zip(indices, outputs.tokens, outputs.states, strict=True):
                self._dense_outputs[split, index] = (token, state)
        return outputs

    def _scores(self, outputs: Outputs, split: str, indices: Sequence[int]) -> NDArray[np.float64]:
        answers = self.inputs(split).answers
        given = self.processor.tokenizer.convert_ids_to_tokens(outputs.tokens.tolist())
        return np.array(
            [score(word, answers[index]) for word, index in zip(given, indices, strict=True)]
        )


@cache
def _sample_keys(path: Path) -> tuple[SampleKey, ...]:
    """Read which samples a split has, without its images."""
    import pyarrow.parquet as pq

    # Unlike read_table, this imports no pandas.
    table = pq.ParquetFile(path).read(columns=["id", "task", "image_id"])
    columns = (table.column(name).to_pylist() for name in ("id", "task", "image_id"))
    return tuple(SampleKey(*key) for key in zip(*columns, strict=True))
