from __future__ import annotations

import shutil
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor
from transformers.utils.logging import enable_progress_bar

from pruners import apply_schedule
from pruners.errors import DataError, ModelError
from pruners.published import dense
from pruners.schedule import Schedule
from pruners.shape import LLAVA_1_5_7B
from search.baselines import published_at
from search.embedded import CHECKPOINT, CLIP
from search.embedded.benchmark import load_split
from search.embedded.prompts import chat
from search.embedded_evaluator import EmbeddedEvaluator
from search.evaluators import ProbingEvaluator, SampleKey
from search.measured_form import as_measured
from space.budgets import Budget
from space.coding import SearchSpace
from studies.identity import SPLITS

BUDGET = Budget("share", 0.3)
SAMPLES = tuple(range(0, 2600, 65))  # 40 of the report split, all tasks among them


@pytest.fixture(scope="module")
def evaluator() -> EmbeddedEvaluator:
    return EmbeddedEvaluator()


@pytest.fixture(scope="module")
def schedules() -> dict[str, Schedule]:
    space = SearchSpace(LLAVA_1_5_7B, BUDGET, decoder_stages=3, layer_step=4)
    point = {name: low + 0.4 * (high - low) for name, low, high in space.parameters}
    point |= {"boundary_1": 0.0, "boundary_2": 0.5, "boundary_3": 0.9}
    return {
        "dense": dense(LLAVA_1_5_7B),
        "searched": space.decode(point),
        **published_at(BUDGET, LLAVA_1_5_7B),
    }


def test_loading_shows_no_bars_in_whichever_process(capfd: pytest.CaptureFixture[str]) -> None:
    enable_progress_bar()  # as in a worker that has just begun
    AutoModelForImageTextToText.from_pretrained(CHECKPOINT)
    assert "Loading weights" in capfd.readouterr().err
    fresh = EmbeddedEvaluator()
    assert fresh.model is not None
    assert fresh.text_tower is not None
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("name", ["dense", "searched", "visiondrop", "desap"])
def test_scores_are_those_of_generating_with_the_schedule_applied(
    name: str, evaluator: EmbeddedEvaluator, schedules: dict[str, Schedule]
) -> None:
    scaled = schedules[name].scaled_to(evaluator.shape)
    model = AutoModelForImageTextToText.from_pretrained(CHECKPOINT)
    processor = AutoProcessor.from_pretrained(CHECKPOINT, backend="pil")
    split = load_split("report")
    asked = [split[index] for index in SAMPLES]
    inputs = processor(
        images=[sample.pil() for sample in asked],
        text=[chat(sample.question) for sample in asked],
        return_tensors="pt",
        padding=True,
    )
    with apply_schedule(model, scaled, text_tower=CLIP), torch.inference_mode():
        generated = model.generate(**inputs, max_new_tokens=1, do_sample=False)
    answers = processor.tokenizer.convert_ids_to_tokens(generated[:, -1])
    right = [float(answer == sample.answer) for answer, sample in zip(answers, asked, strict=True)]
    measured = as_measured(schedules[name], evaluator.shape)
    assert evaluator.score(measured, "report", SAMPLES).tolist() == right


@pytest.mark.parametrize("name", ["dense", "searched", "desap"])
def test_probes_are_those_of_the_plain_model_beside_the_dense_one(
    name: str, evaluator: EmbeddedEvaluator, schedules: dict[str, Schedule]
) -> None:
    asked = SAMPLES[::4]
    measured = as_measured(schedules[name], evaluator.shape)
    probe = evaluator.probe(measured, "report", asked)
    assert probe.scores.tolist() == evaluator.score(measured, "report", asked).tolist()

    model = AutoModelForImageTextToText.from_pretrained(CHECKPOINT)
    processor = AutoProcessor.from_pretrained(CHECKPOINT, backend="pil")
    samples = [load_split("report")[index] for index in asked]
    for place, sample in enumerate(samples):  # one by one: without padding
        inputs = processor(images=sample.pil(), text=chat(sample.question), return_tensors="pt")
        dense_logits, dense_state = _at_the_end(model, inputs)
        answer = int(dense_logits.argmax())
        if name == "dense":
            logits, state = dense_logits, dense_state
        else:
            with apply_schedule(model, measured, text_tower=CLIP):
                logits, state = _at_the_end(model, inputs)
        probability = torch.softmax(logits, dim=-1)[answer].item()
        assert probe.answer_probabilities[place] == pytest.approx(probability, abs=1e-4)
        agreement = torch.nn.functional.cosine_similarity(state, dense_state, dim=0).item()
        assert probe.hidden_agreements[place] == pytest.approx(agreement, abs=1e-4)
    if name == "dense":
        assert probe.hidden_agreements == pytest.approx(1, abs=1e-6)
    else:
        assert probe.hidden_agreements.min() < 0.99


def _at_the_end(model: Any, inputs: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits after a prompt, and the normed hidden state that they are made of."""
    with torch.inference_mode():
        output = model(**inputs, output_hidden_states=True)
    return output.logits[0, -1], output.hidden_states[-1][0, -1]


def test_probes_do_not_depend_on_what_was_asked_before(
    schedules: dict[str, Schedule],
) -> None:
    evaluator = EmbeddedEvaluator()
    measured = as_measured(schedules["searched"], evaluator.shape)
    first = evaluator.probe(measured, "confirm", [5, 3])
    evaluator.score(dense(evaluator.shape), "confirm", range(10))
    again = evaluator.probe(measured, "confirm", [8, 3, 5])
    for before, after in zip(first, again, strict=True):
        assert after[[2, 1]] == pytest.approx(before, abs=1e-5)


def test_scores_come_in_the_order_asked_whatever_the_batch(
    evaluator: EmbeddedEvaluator, schedules: dict[str, Schedule]
) -> None:
    measured = as_measured(schedules["searched"], evaluator.shape)
    in_order = evaluator.score(measured, "search", range(60))
    order = np.random.default_rng(0).permutation(60)
    shuffled = evaluator.score(measured, "search", order.tolist())
    assert shuffled.tolist() == in_order[order].tolist()
    assert in_order[7] == evaluator.score(measured, "search", [7])[0]


def test_the_evaluator_is_known_to_probe(evaluator: EmbeddedEvaluator) -> None:
    assert isinstance(evaluator, ProbingEvaluator)


def test_samples_are_the_benchmark_in_its_own_order(evaluator: EmbeddedEvaluator) -> None:
    for split in SPLITS:
        expected = [
            SampleKey(sample.id, sample.task, sample.image_id) for sample in load_split(split)
        ]
        assert list(evaluator.samples(split)) == expected
    assert len({evaluator.split_fingerprint(split) for split in SPLITS}) == 3
    with pytest.raises(DataError, match=r"unknown split.*choose one of search, confirm, report"):
        evaluator.samples("train")


def test_the_shape_is_the_loaded_models(evaluator: EmbeddedEvaluator) -> None:
    model = AutoModelForImageTextToText.from_pretrained(CHECKPOINT)
    assert len(model.model.language_model.layers) == evaluator.shape.decoder_layers
    assert LLAVA_1_5_7B.decoder_layers % evaluator.shape.decoder_layers == 0
    assert evaluator.shape.text_tower is not None
    tokenizer = AutoProcessor.from_pretrained(CHECKPOINT, backend="pil").tokenizer
    prompts = tokenizer([chat(sample.question) for sample in load_split("report")])["input_ids"]
    mean = sum(len(prompt) - 1 for prompt in prompts) / len(prompts)  # less the image
    assert evaluator.shape.text_tokens == round(mean)


def test_another_checkpoint_of_the_same_make_is_measured_like_it(evaluator, tmp_path):
    copied = EmbeddedEvaluator(shutil.copytree(CHECKPOINT, tmp_path / "copy"))
    assert copied.name == str(tmp_path / "copy")
    assert copied.fingerprint == evaluator.fingerprint
    assert copied.shape == evaluator.shape.model_copy(update={"name": copied.name})
    indices = SAMPLES[:5]
    np.testing.assert_array_equal(
        copied.score(dense(copied.shape), "report", indices),
        evaluator.score(dense(evaluator.shape), "report", indices),
    )
    (tmp_path / "copy" / "config.json").unlink()
    with pytest.raises(ModelError, match="copy"):
        _ = EmbeddedEvaluator(tmp_path / "copy").model
