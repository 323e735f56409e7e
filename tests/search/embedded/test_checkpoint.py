"""The shipped model: it loads as any Hugging Face model does and scores what its card says."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoTokenizer, CLIPModel

from search.embedded import CARD_FIGURES, CHECKPOINT, CLIP
from search.embedded.benchmark import TASKS, Sample, load_split
from search.embedded.prompts import blind_chat, chat
from search.embedded.similarity_check import patches_in_boxes
from search.embedded.verification import EmbeddedModel, TaskFigures, conditions, correct

_PER_TASK = 60


@pytest.fixture(scope="module")
def model() -> EmbeddedModel:
    torch.set_num_threads(1)
    return EmbeddedModel()


def _fixed_sample() -> list[Sample]:
    return [sample for task in TASKS for sample in load_split("report", [task])[:_PER_TASK]]


def test_the_card_says_that_the_model_meets_its_numbers() -> None:
    card = json.loads(CARD_FIGURES.read_text())
    assert card["split"] == "report"
    figures = {task: TaskFigures(**card["tasks"][task]) for task in TASKS}
    assert all(figure.questions >= 500 for figure in figures.values())
    assert all(condition.met for condition in conditions(figures))


def test_weights_score_on_a_fixed_sample_what_the_card_says(model: EmbeddedModel) -> None:
    samples = _fixed_sample()
    card = json.loads(CARD_FIGURES.read_text())["tasks"]
    for measure, name in ((model.dense, "dense"), (model.random_tokens, "random_tokens")):
        right = correct(measure, samples).reshape(len(TASKS), _PER_TASK).mean(1)
        for task, share in zip(TASKS, right, strict=True):
            # Three standard errors of a sample of 60.
            expected = card[task][name]
            tolerance = 3 * np.sqrt(max(expected * (1 - expected), 0.01) / _PER_TASK)
            assert share == pytest.approx(expected, abs=tolerance), (task, name)


def test_every_answer_is_one_token(model: EmbeddedModel) -> None:
    for sample in load_split("search"):
        tokens = model.processor.tokenizer(sample.answer, add_special_tokens=False).input_ids
        assert len(tokens) == 1
        assert model.processor.tokenizer.unk_token_id not in tokens


def test_no_question_has_an_unknown_word(model: EmbeddedModel) -> None:
    tokenizer = model.processor.tokenizer
    questions = sorted({s.question for s in load_split("report")})
    for ids in tokenizer(questions).input_ids:
        assert tokenizer.unk_token_id not in ids


def test_generation_of_one_token_is_the_argmax_of_the_prompt(model: EmbeddedModel) -> None:
    samples = _fixed_sample()[::40]
    inputs = model.processor(
        images=[sample.pil() for sample in samples],
        text=[chat(sample.question) for sample in samples],
        padding=True,
        return_tensors="pt",
    )
    with torch.no_grad():
        last = model.model(**inputs).logits[:, -1].argmax(-1)
    assert model.dense(samples) == [model.processor.tokenizer.decode(token) for token in last]


@pytest.mark.parametrize("listed", [True, False])
def test_the_chat_template_writes_the_prompts_of_the_benchmark(
    model: EmbeddedModel, listed: bool
) -> None:
    question = "is there a red circle?"
    listed_content = [{"type": "image"}, {"type": "text", "text": question}]
    content = listed_content if listed else question
    messages = [{"role": "user", "content": content}]
    written = model.processor.apply_chat_template(messages, add_generation_prompt=True)
    assert written == (chat(question) if listed else blind_chat(question))


def test_the_processor_puts_one_placeholder_per_patch(model: EmbeddedModel) -> None:
    sample = load_split("search")[0]
    messages = [
        {
            "role": "user",
            "content": [
                {"type": "image", "image": sample.pil()},
                {"type": "text", "text": sample.question},
            ],
        }
    ]
    inputs = model.processor.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    assert int((inputs.input_ids == model.model.config.image_token_id).sum()) == 144
    assert inputs.pixel_values.shape == (1, 3, 96, 96)
    # The same pixels, normalised without the processor.
    by_hand = (torch.from_numpy(sample.image.copy()).permute(2, 0, 1) / 255 - 0.5) / 0.25
    assert torch.allclose(inputs.pixel_values[0], by_hand, atol=1e-5)


def test_shapes_are_those_that_schedules_scale_onto() -> None:
    model = AutoModelForImageTextToText.from_pretrained(CHECKPOINT)
    config = model.config
    assert config.text_config.num_hidden_layers == 8
    assert config.text_config.num_key_value_heads == config.text_config.num_attention_heads
    assert (config.vision_feature_layer, config.vision_feature_select_strategy) == (-2, "default")
    assert model.dtype == torch.float32


def test_both_folders_hold_the_same_vision_tower() -> None:
    llava, clip = (load_file(folder / "model.safetensors") for folder in (CHECKPOINT, CLIP))
    for name, weight in clip.items():
        if name.startswith("vision_model."):
            suffix = name.removeprefix("vision_model.")
            twin = next(
                key
                for key in llava
                if key.endswith(f"vision_tower.{suffix}")
                or ("vision_tower" in key and key.endswith(f"vision_model.{suffix}"))
            )
            assert torch.equal(weight, llava[twin]), name


def test_the_text_tower_pools_the_end_token_and_stands_padding() -> None:
    clip = CLIPModel.from_pretrained(CLIP).eval()
    tokenizer = AutoTokenizer.from_pretrained(CLIP)
    texts = ["is there a red circle?", "where is the red circle relative to the blue ring?"]
    with torch.no_grad():
        together = clip.text_model(**tokenizer(texts, padding=True, return_tensors="pt"))
        alone = clip.text_model(**tokenizer(texts[:1], return_tensors="pt"))
    assert torch.allclose(together.pooler_output[0], alone.last_hidden_state[0, -1], atol=1e-5)


def test_conditions_are_held_against_every_figure() -> None:
    good = {task: TaskFigures(500, 0.9, 0.2, 0.15, 0.4) for task in TASKS}
    assert all(condition.met for condition in conditions(good))
    for changes in ({"dense": 0.7}, {"blind": 0.26}):
        bad = {**good, "reading": replace(good["reading"], **changes)}
        assert not all(condition.met for condition in conditions(bad))
    unhurt = {task: replace(figure, random_tokens=0.75) for task, figure in good.items()}
    assert not conditions(unhurt)[3].met


def test_patches_in_boxes_counts_overlaps() -> None:
    inside = patches_in_boxes([(8, 8, 24, 16)], 8).reshape(12, 12)
    assert np.argwhere(inside).tolist() == [[1, 1], [1, 2]]
    assert not patches_in_boxes([(6, 6, 10, 10)], 8).any()
