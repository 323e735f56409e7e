"""What schedules do to the images of the embedded benchmark."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pruners.schedule import Schedule
from search.embedded.benchmark import Sample, load_split
from search.embedded.inputs import SplitInputs, encode_split, one_thread
from search.embedded_evaluator import EmbeddedEvaluator
from search.viewing import Seen, ShownSample, kept_stages


class EmbeddedViewer:
    """Runs the embedded model on a few samples and looks at what it keeps.

    Only those samples are encoded, not their whole split.

    Args:
        evaluator: The evaluator whose model runs.
        split: The split that samples are of.
    """

    def __init__(self, evaluator: EmbeddedEvaluator, split: str) -> None:
        self._evaluator = evaluator
        self._split = split
        self._encoded: dict[tuple[int, ...], SplitInputs] = {}

    def show(self, index: int) -> ShownSample:
        """Return a sample's image, which the model sees in full, and question."""
        sample = self._samples([index])[0]
        side = math.isqrt(self._evaluator.shape.visual_tokens)
        return ShownSample(sample.question, sample.answer, sample.png, side, side)

    def look(self, schedule: Schedule, indices: Sequence[int]) -> list[Seen]:
        """Run samples under a schedule, all in one batch."""
        from pruners.runtime import apply_schedule

        evaluator, inputs = self._evaluator, self._inputs(tuple(indices))
        with (
            one_thread() as torch,
            apply_schedule(evaluator.model, schedule, text_tower=evaluator.text_tower) as handle,
        ):
            input_ids, mask = evaluator.padded(inputs.prompts)
            images = inputs.vision.select(torch.from_numpy(inputs.image_of))
            logits = handle.prefill(input_ids, mask, images, inputs.questions)
            tokens = logits.argmax(dim=-1).tolist()
            answers = evaluator.processor.tokenizer.convert_ids_to_tokens(tokens)
            return [
                Seen(answer, kept_stages(handle.last_prefill, schedule, row))
                for row, answer in enumerate(answers)
            ]

    def _samples(self, indices: Sequence[int]) -> list[Sample]:
        samples = load_split(self._split, folder=self._evaluator.benchmark)
        return [samples[index] for index in indices]

    def _inputs(self, indices: tuple[int, ...]) -> SplitInputs:
        if indices not in self._encoded:
            evaluator = self._evaluator
            self._encoded[indices] = encode_split(
                self._samples(indices),
                evaluator.model,
                evaluator.processor,
                evaluator.text_tower,
                evaluator.shape.visual_tokens,
            )
        return self._encoded[indices]
