"""Arguments of calls that a model with a schedule cannot take."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import StaticCache

from pruners import apply_schedule, encode_images
from pruners.errors import InputError
from pruners.vision_outputs import VisionParts
from tests.helpers.forwards import logits_of
from tests.pruners.two_stages import QUESTIONS, SCHEDULE, fusion


def test_labels_are_refused(tiny: Any) -> None:
    inputs = tiny.inputs(QUESTIONS)
    with apply_schedule(tiny.model, SCHEDULE), pytest.raises(InputError, match="labels were given"):
        tiny.model(**inputs, labels=inputs["input_ids"])


def test_positions_to_keep_are_refused(tiny: Any) -> None:
    inputs = tiny.inputs(QUESTIONS)
    with apply_schedule(tiny.model, SCHEDULE):
        with pytest.raises(InputError, match="logits_to_keep is a tensor"):
            tiny.model(**inputs, logits_to_keep=torch.tensor([0]))
        assert logits_of(tiny.model, inputs, logits_to_keep=2).shape[1] == 2


def test_a_mask_that_is_no_padding_mask_is_refused(tiny: Any) -> None:
    inputs = tiny.inputs(["w1"])
    length = inputs["input_ids"].shape[1]
    inputs["attention_mask"] = torch.ones(1, 1, length, length, dtype=torch.bool).tril()
    with (
        apply_schedule(tiny.model, SCHEDULE),
        pytest.raises(InputError, match=r"shape \(1, 1, \d+, \d+\).*\(batch, length\)"),
    ):
        tiny.model(**inputs)


def test_a_static_cache_is_refused(tiny: Any) -> None:
    cache = StaticCache(config=tiny.model.config.text_config, max_cache_len=64)
    with (
        apply_schedule(tiny.model, SCHEDULE),
        pytest.raises(InputError, match="StaticCache has one length for all layers"),
    ):
        tiny.model(**tiny.inputs(["w1"]), past_key_values=cache)


def test_other_vision_features_are_refused(tiny: Any) -> None:
    with (
        apply_schedule(tiny.model, SCHEDULE),
        pytest.raises(InputError, match="vision_feature_layer=-1 differs"),
    ):
        tiny.model(**tiny.inputs(["w1"]), vision_feature_layer=-1)


def test_a_second_image_in_a_conversation_is_refused(tiny: Any) -> None:
    inputs = tiny.inputs(["w1"])
    with apply_schedule(tiny.model, SCHEDULE), torch.no_grad():
        cache = tiny.model(**inputs, use_cache=True).past_key_values
        with pytest.raises(InputError, match="cache that is already filled"):
            tiny.model(**inputs, past_key_values=cache)


def test_an_unreadable_question_is_refused(tiny: Any) -> None:
    inputs = tiny.inputs(QUESTIONS)
    with apply_schedule(tiny.model, fusion(), text_tower=tiny.text_tower) as handle:
        with pytest.raises(InputError, match="pass processor= to apply_schedule"):
            tiny.model(**inputs)
        with handle.questions(QUESTIONS[:2]), pytest.raises(InputError, match="2 questions"):
            tiny.model(**inputs)
        embeds = tiny.model.get_input_embeddings()(inputs["input_ids"])
        with pytest.raises(InputError, match="no question was given"):
            tiny.model(
                inputs_embeds=embeds,
                attention_mask=inputs["attention_mask"],
                pixel_values=inputs["pixel_values"],
            )


def test_images_encoded_before_are_refused(tiny: Any) -> None:
    inputs = tiny.inputs(["w1"])
    pixel_values = inputs.pop("pixel_values")
    with torch.no_grad():
        encoded = tiny.model.model.get_image_features(pixel_values)
    with (
        apply_schedule(tiny.model, SCHEDULE),
        pytest.raises(InputError, match="encoded before the schedule was applied"),
    ):
        tiny.model(**inputs, mm_encoder_outputs={"image": encoded})


def test_a_call_that_was_refused_leaves_nothing_of_its_images(tiny: Any) -> None:
    inputs = tiny.inputs(["w1"])
    pixel_values = inputs.pop("pixel_values")
    vision = encode_images(tiny.model, pixel_values)
    cache = StaticCache(config=tiny.model.config.text_config, max_cache_len=64)
    with torch.no_grad():
        encoded = tiny.model.model.get_image_features(pixel_values)
    with apply_schedule(tiny.model, SCHEDULE) as handle:
        known = handle.encoded_images(vision)
        for refused in ({"labels": inputs["input_ids"]}, {"past_key_values": cache}):
            with pytest.raises(InputError):
                tiny.model(**inputs, **known, **refused)
            with pytest.raises(InputError, match="encoded before the schedule was applied"):
                tiny.model.model(**inputs, mm_encoder_outputs={"image": encoded})


def test_prefill_checks_what_it_is_given(tiny: Any) -> None:
    inputs = tiny.inputs(QUESTIONS)
    prompt = inputs["input_ids"], inputs["attention_mask"]
    vision = encode_images(tiny.model, inputs["pixel_values"], parts=VisionParts())
    with apply_schedule(tiny.model, SCHEDULE) as handle:
        with pytest.raises(InputError, match="reads saliency of layer -2, keys, which"):
            handle.prefill(*prompt, vision)
        with pytest.raises(InputError, match="1 images were given for 3 prompts"):
            handle.prefill(*prompt, vision.select(torch.tensor([0])))
        with (
            pytest.raises(InputError, match="the schedule compares none"),
            handle.questions(QUESTIONS),
        ):
            pass
    with pytest.raises(InputError, match="has been removed from the model"):
        handle.prefill(*prompt, vision)
