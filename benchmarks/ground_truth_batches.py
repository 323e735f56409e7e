"""Results of many schedules on a batch of the embedded benchmark, by the tree of prefixes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from prefix_tree import Prompts, last_states

from pruners.adapters import adapter_for
from pruners.encoded_media import EncodedMedia
from pruners.media import whole_images
from pruners.schedule import Schedule
from pruners.vision_towers import TowerOutputs
from search.embedded.inputs import one_thread
from search.embedded_evaluator import EmbeddedEvaluator


class Results(NamedTuple):
    """What schedules do on samples, the first schedule being the dense one.

    Attributes:
        right: Whether the answer is right, `(schedules, samples)`.
        answer_probabilities: Probability of the dense model's answer, `(schedules, samples)`.
        hidden_agreements: Cosine between the hidden states behind the decoder's last norm at the
            prompt's last token, pruned and dense, `(schedules, samples)`.
    """

    right: NDArray[np.bool_]
    answer_probabilities: NDArray[np.float16]
    hidden_agreements: NDArray[np.float16]


def run_batch(
    evaluator: EmbeddedEvaluator, split: str, indices: Sequence[int], schedules: Sequence[Schedule]
) -> Results:
    """Run a batch of samples under many schedules.

    Args:
        evaluator: The model and its benchmark.
        split: Name of the split.
        indices: Indices into the split's samples; they are padded to the longest of them.
        schedules: Schedules in the form that `as_measured` gives, dense first.

    Returns:
        The results.
    """
    inputs = evaluator.inputs(split)
    adapter = adapter_for(evaluator.model)
    tokenizer = evaluator.processor.tokenizer
    with one_thread() as torch:
        input_ids, mask = evaluator.padded([inputs.prompts[index] for index in indices])
        vision = inputs.vision.select(torch.from_numpy(inputs.image_of[list(indices)]))
        media = EncodedMedia(
            whole_images(len(indices), evaluator.shape.vision.rows_and_columns),
            TowerOutputs((vision,)),
            None,
        )
        features = adapter.projector(vision.features[:, 1:])
        questions = inputs.questions.select(torch.tensor(indices))
        found = last_states(
            adapter, schedules, Prompts(input_ids, mask, media, features, questions)
        )
        states = torch.stack([found[number] for number in range(len(schedules))])
        probabilities = torch.softmax(adapter.head(states), dim=-1)
        given = probabilities.argmax(dim=-1)
        answers = [inputs.answers[index] for index in indices]
        expected = torch.tensor(tokenizer.convert_tokens_to_ids(answers))
        of_dense = given[:1].expand(len(schedules), -1).unsqueeze(-1)
        return Results(
            right=(given == expected).numpy(),
            answer_probabilities=probabilities.gather(-1, of_dense)[..., 0].half().numpy(),
            hidden_agreements=torch.nn.functional.cosine_similarity(states, states[:1], dim=-1)
            .half()
            .numpy(),
        )
