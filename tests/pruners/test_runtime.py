"""Applying schedules: what is refused and when, and calls beyond a plain prefill."""

from __future__ import annotations

import copy
import gc
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    CLIPConfig,
    CLIPModel,
    GemmaConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    SiglipVisionConfig,
    StaticCache,
)

from pruners import (
    ClsAttention,
    ClusterAverage,
    NearestReference,
    NoMerge,
    PrunetuneError,
    Schedule,
    ScheduleMismatchError,
    Shape,
    SimilarityFusion,
    Stage,
    TextTower,
    VisualSelfAttention,
    apply_schedule,
    dense,
    encode_images,
    published,
)
from pruners.cache import recall
from pruners.errors import InputError, ModelError, UnsupportedModelError
from pruners.vision_outputs import VisionParts
from tests.helpers.forwards import logits_of

QUESTIONS = ["w1 w2 w3", "w4", "w5 w6 w7 w8 w9"]
ENCODER = Stage(
    layer=0, retention=0.5, contextual=0.2, scorer=ClsAttention(), merge=NearestReference()
)
DECODER = Stage(layer=3, retention=0.2, scorer=VisualSelfAttention())
SCHEDULE = Schedule(stages=(ENCODER, DECODER))
SIZES = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "vocab_size": 8}
HEADS = {"num_attention_heads": 2, "num_key_value_heads": 2}


def fusion(**settings: Any) -> Schedule:
    scorer = SimilarityFusion(**{"text_tower": "/nowhere", **settings})
    return Schedule(stages=(Stage(layer=0, retention=0.4, scorer=scorer),))


# What is refused before any forward.


def assert_untouched(model: torch.nn.Module) -> None:
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert not any("prunetune" in name for name in vars(model))


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        (Schedule(stages=(DECODER.model_copy(update={"layer": 6}),)), "stage at layer 6, but .* 6"),
        (published("visiondrop", 64), "llava-1.5-7b with 32 decoder layers, but the model has 6"),
        (
            Schedule(
                stages=(ENCODER.model_copy(update={"scorer": ClsAttention(layer=-5)}),),
            ),
            "vision layer -5, but the tower has 4",
        ),
    ],
)
def test_a_schedule_that_does_not_fit_is_refused(
    tiny: Any, schedule: Schedule, message: str
) -> None:
    with pytest.raises(ScheduleMismatchError, match=message):
        apply_schedule(tiny.model, schedule)
    assert_untouched(tiny.model)


def test_a_missing_text_tower_is_refused(tiny: Any) -> None:
    with pytest.raises(ModelError, match="'/nowhere' cannot be loaded"):
        apply_schedule(tiny.model, fusion())
    assert_untouched(tiny.model)


def test_without_similarity_no_text_tower_is_loaded(tiny: Any) -> None:
    with apply_schedule(tiny.model, fusion(weight=0.0)) as handle:
        logits_of(tiny.model, tiny.inputs(QUESTIONS))
        assert handle.last_prefill is not None
    full = fusion().stages[0].model_copy(update={"retention": 1.0})
    apply_schedule(tiny.model, Schedule(stages=(full,))).remove()


def test_a_text_tower_of_another_width_is_refused(tiny: Any) -> None:
    clip = CLIPModel(
        CLIPConfig(
            text_config={"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2},
            vision_config={"hidden_size": 24, "intermediate_size": 8, "num_attention_heads": 2},
            projection_dim=8,
        )
    )
    parts = (clip.text_model, clip.text_projection, clip.visual_projection)
    tower = TextTower("wide", tiny.tokenizer, *parts)
    with pytest.raises(ScheduleMismatchError, match=r"'wide' is paired .* width 24, .* width 16"):
        apply_schedule(tiny.model, fusion(), text_tower=tower)
    assert_untouched(tiny.model)


def test_a_second_schedule_is_refused(tiny: Any) -> None:
    with (
        apply_schedule(tiny.model, SCHEDULE),
        pytest.raises(ModelError, match=r"already has a schedule; call remove\(\)"),
    ):
        apply_schedule(tiny.model, SCHEDULE)
    apply_schedule(tiny.model, SCHEDULE).remove()


def test_other_models_are_refused() -> None:
    llama = LlamaForCausalLM(LlamaConfig(**SIZES, **HEADS))
    with pytest.raises(UnsupportedModelError, match=r"model_type 'llama'; supported .* llava"):
        apply_schedule(llama, SCHEDULE)
    with pytest.raises(UnsupportedModelError, match="cannot be applied to Linear"):
        apply_schedule(torch.nn.Linear(1, 1), SCHEDULE)


def build_variant(**changes: Any) -> Any:
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 4}
    settings = {
        "vision_config": SiglipVisionConfig(
            **sizes, num_attention_heads=2, image_size=20, patch_size=4, vision_use_head=False
        ),
        "text_config": LlamaConfig(**sizes, **HEADS, vocab_size=40, pad_token_id=0),
        "image_token_id": 4,
        "vision_feature_select_strategy": "full",
    }
    return LlavaForConditionalGeneration(LlavaConfig(**{**settings, **changes})).eval()


def test_a_tower_without_cls_token_prunes_in_the_decoder_alone(tiny: Any) -> None:
    model = build_variant()
    with pytest.raises(ScheduleMismatchError, match="CLS token, but SiglipVisionModel has none"):
        apply_schedule(model, SCHEDULE)
    inputs = tiny.inputs(QUESTIONS)
    text = inputs["input_ids"].shape[1] - tiny.visual_tokens
    with apply_schedule(model, Schedule(stages=(DECODER,))) as handle:
        logits = logits_of(model, inputs)
        assert logits.shape[1] == text + 5
        vision = encode_images(model, inputs["pixel_values"])
        last = handle.prefill(inputs["input_ids"], inputs["attention_mask"], vision)
        torch.testing.assert_close(last, logits[:, -1], atol=1e-5, rtol=0)


def test_a_tower_without_cls_token_has_the_attention_of_its_patches(tiny: Any) -> None:
    model = build_variant()
    inputs = tiny.inputs(QUESTIONS)
    model.set_attn_implementation("eager")
    with torch.no_grad():
        output = model.model.vision_tower(inputs["pixel_values"], output_attentions=True)
    # Mean over heads and queries of the layer that makes the features.
    received = output.attentions[-2].mean(dim=1).sum(dim=1)
    stage = Stage(layer=0, retention=0.4, scorer=VisualSelfAttention(), merge=ClusterAverage())
    with apply_schedule(model, Schedule(stages=(stage,))) as handle:
        logits_of(model, inputs)
        kept = handle.last_prefill.stages[0].indices
    for row, scores in zip(kept.tolist(), received.tolist(), strict=True):
        highest = sorted(range(len(scores)), key=lambda index: -scores[index])[: len(row)]
        assert row == sorted(highest)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text_config": GemmaConfig(**SIZES, **HEADS)}, "decoder's model_type is 'gemma'"),
        ({"vision_feature_layer": [-2, -1]}, r"vision_feature_layer is \[-2, -1\]"),
        ({"vision_feature_select_strategy": "default"}, "pruning needs 'full'"),
    ],
)
def test_unsupported_configurations_are_refused(changes: Any, message: str) -> None:
    with pytest.raises(UnsupportedModelError, match=message):
        apply_schedule(build_variant(**changes), SCHEDULE)


# Calls that cannot be pruned.


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


# Calls that must work.


def alone(tiny: Any, prompt: str, pixel_values: Tensor | None) -> dict[str, Tensor]:
    ids = tiny.tokenizer([prompt], return_tensors="pt")["input_ids"]
    return (
        {"input_ids": ids}
        if pixel_values is None
        else {"input_ids": ids, "pixel_values": pixel_values}
    )


@pytest.mark.parametrize("contextual", [0.0, 0.3])
def test_each_of_several_images_is_pruned_as_if_alone(tiny: Any, contextual: float) -> None:
    image, pixel_values = "<image> " * tiny.visual_tokens, tiny.images(2)
    merge = NearestReference() if contextual else NoMerge()
    stage = Stage(layer=0, retention=0.4, contextual=contextual, scorer=ClsAttention(), merge=merge)
    with apply_schedule(tiny.model, Schedule(stages=(stage,))) as handle:

        def kept(prompt: str, pixels: Tensor) -> list[tuple[int, bool]]:
            logits = logits_of(tiny.model, alone(tiny, prompt, pixels))
            assert handle.last_prefill is not None
            (record,) = handle.last_prefill.stages
            assert logits.shape[1] == record.positions.shape[1]
            return list(zip(record.indices[0].tolist(), record.contextual[0].tolist(), strict=True))

        first, second = (kept(f"USER: {image} w1 ASSISTANT:", own) for own in pixel_values.split(1))
        both = kept(f"USER: {image} w2 {image} w1 ASSISTANT:", pixel_values)
    count = tiny.visual_tokens
    moved = [(index + count if index >= 0 else index - count, made) for index, made in second]
    assert sum(made for _, made in first) == (3 if contextual else 0)
    # Tokens of several images stand where they stood; of one, contextual ones are the last.
    assert sorted(both) == sorted(first + moved)
    places = [index if index >= 0 else -1.5 - index for index, _ in both]
    assert places == sorted(places)


def test_a_text_alone_may_stand_beside_images(tiny: Any) -> None:
    image, pixel_values = "<image> " * tiny.visual_tokens, tiny.images(1)
    prompts = [f"USER: {image} w1 ASSISTANT:", "USER: w1 w2 ASSISTANT:"]
    tokens = tiny.tokenizer(prompts, padding=True, padding_side="left", return_tensors="pt")
    batch = {name: tokens[name] for name in ("input_ids", "attention_mask")}
    dense = logits_of(tiny.model, alone(tiny, prompts[1], None))
    with apply_schedule(tiny.model, SCHEDULE):
        together = logits_of(tiny.model, {**batch, "pixel_values": pixel_values})
        expected = logits_of(tiny.model, alone(tiny, prompts[0], pixel_values))
    torch.testing.assert_close(together[0, -1], expected[0, -1], atol=1e-5, rtol=0)
    torch.testing.assert_close(together[1, -1], dense[0, -1], atol=1e-5, rtol=0)


def test_given_questions_win_over_the_prompt(tiny: Any) -> None:
    inputs = tiny.inputs(QUESTIONS)
    tower = {"text_tower": tiny.text_tower, "processor": tiny.tokenizer}
    with apply_schedule(tiny.model, fusion(weight=1.0), **tower) as handle:
        logits_of(tiny.model, inputs)
        read = handle.last_prefill.stages[0].indices
        with handle.questions(QUESTIONS):
            logits_of(tiny.model, inputs)
        assert torch.equal(handle.last_prefill.stages[0].indices, read)
        with handle.questions(["w20 w21", "w22", "w23 w24 w25"]):
            logits_of(tiny.model, inputs)
            assert not torch.equal(handle.last_prefill.stages[0].indices, read)
            beams = tiny.model.generate(**inputs, max_new_tokens=2, num_beams=2, do_sample=False)
            assert beams.shape[0] == 3
        logits_of(tiny.model, inputs)
        assert torch.equal(handle.last_prefill.stages[0].indices, read)


def test_embeddings_instead_of_ids_give_the_same(tiny: Any) -> None:
    inputs = tiny.inputs(QUESTIONS)
    with apply_schedule(tiny.model, SCHEDULE):
        expected = logits_of(tiny.model, inputs)
        inputs["inputs_embeds"] = tiny.model.get_input_embeddings()(inputs.pop("input_ids"))
        assert torch.equal(logits_of(tiny.model, inputs), expected)


@pytest.mark.parametrize("positions", ["compact", "original"])
def test_neither_cache_nor_mask_is_needed(tiny: Any, positions: str) -> None:
    inputs = tiny.inputs(["w1 w2"])
    with apply_schedule(tiny.model, SCHEDULE.model_copy(update={"positions": positions})):
        expected = logits_of(tiny.model, inputs)
        del inputs["attention_mask"]
        for use_cache in (True, False):
            logits = logits_of(tiny.model, inputs, use_cache=use_cache)
            torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("positions", ["compact", "original"])
def test_an_image_may_end_the_prompt(tiny: Any, positions: Any) -> None:
    """Answers follow the dense prompt's last position, whether that token is kept or not."""
    prompts = [f"USER: {question} " + "<image> " * tiny.visual_tokens for question in QUESTIONS]
    tokens = tiny.tokenizer(prompts, padding=True, padding_side="left", return_tensors="pt")
    inputs = {
        "input_ids": tokens["input_ids"],
        "attention_mask": tokens["attention_mask"],
        "pixel_values": tiny.images(len(QUESTIONS)),
    }
    settings = {"max_new_tokens": 6, "do_sample": False, "output_logits": True}
    with apply_schedule(tiny.model, SCHEDULE.model_copy(update={"positions": positions})) as handle:
        found, expected = (
            tiny.model.generate(
                **inputs, **settings, return_dict_in_generate=True, use_cache=use_cache
            )
            for use_cache in (True, False)
        )
    assert handle.last_prefill is not None
    last = inputs["input_ids"].shape[1] - 1
    assert not (handle.last_prefill.stages[-1].positions == last).any(dim=-1).all()
    assert torch.equal(found.sequences, expected.sequences)
    for step, wanted in zip(found.logits, expected.logits, strict=True):
        torch.testing.assert_close(step, wanted, atol=1e-4, rtol=0)


def test_the_dense_schedule_touches_nothing(tiny: Any) -> None:
    inputs = tiny.inputs(QUESTIONS, "right")
    expected = logits_of(tiny.model, inputs)
    last = inputs["attention_mask"].sum(dim=1) - 1
    vision = encode_images(tiny.model, inputs["pixel_values"])
    schedule = dense(Shape.from_config(tiny.model.config))
    with apply_schedule(tiny.model, schedule) as handle:
        assert torch.equal(logits_of(tiny.model, inputs), expected)
        logits = handle.prefill(inputs["input_ids"], inputs["attention_mask"], vision)
        torch.testing.assert_close(logits, expected[torch.arange(3), last], atol=1e-5, rtol=0)


def test_an_error_inside_the_model_leaves_it_usable(tiny: Any) -> None:
    inputs = tiny.inputs(QUESTIONS)
    before = logits_of(tiny.model, inputs)
    layer = tiny.model.model.language_model.layers[4]

    def fail(module: Any, args: Any) -> None:
        raise RuntimeError("out of memory")

    with apply_schedule(tiny.model, SCHEDULE):
        pruned = logits_of(tiny.model, inputs)
        hook = layer.register_forward_pre_hook(fail)
        with pytest.raises(RuntimeError, match="out of memory"):
            tiny.model(**inputs)
        hook.remove()
        text = tiny.tokenizer(["USER: w1 ASSISTANT:"], return_tensors="pt")["input_ids"]
        assert logits_of(tiny.model, {"input_ids": text}).shape[1] == 4
        assert torch.equal(logits_of(tiny.model, inputs), pruned)
    assert torch.equal(logits_of(tiny.model, inputs), before)


def test_leaving_the_context_by_an_error_removes_the_schedule(tiny: Any) -> None:
    def fail() -> None:
        raise ValueError("anything")

    with pytest.raises(ValueError, match="anything"), apply_schedule(tiny.model, SCHEDULE):
        fail()
    assert_untouched(tiny.model)


def test_removing_twice_does_not_remove_the_next_schedule(tiny: Any) -> None:
    first = apply_schedule(tiny.model, SCHEDULE)
    first.remove()
    with apply_schedule(tiny.model, SCHEDULE) as second:
        first.remove()
        logits_of(tiny.model, tiny.inputs(QUESTIONS))
        assert second.last_prefill is not None
        assert first.last_prefill is None


def step(model: Any, cache: Any, token: Tensor, mask: Tensor | None = None) -> Tensor:
    return logits_of(model, {"input_ids": token, "past_key_values": cache, "attention_mask": mask})[
        :, -1
    ]


@pytest.mark.parametrize("positions", ["compact", "original"])
def test_conversations_can_be_interleaved(tiny: Any, positions: str) -> None:
    schedule = SCHEDULE.model_copy(update={"positions": positions})
    prompts = [tiny.inputs(["w1 w2 w3"], seed=1), tiny.inputs(["w4 w5 w6 w7"], seed=2)]
    tokens = [torch.tensor([[10 + index]]) for index in range(4)]
    with apply_schedule(tiny.model, schedule):
        caches, expected = [], []
        for prompt in prompts:
            longer = torch.cat([prompt["input_ids"], *tokens], dim=1)
            inputs = {"input_ids": longer, "pixel_values": prompt["pixel_values"]}
            expected.append(logits_of(tiny.model, inputs)[0, -4:])
        with torch.no_grad():
            for prompt in prompts:
                del prompt["attention_mask"]
                caches.append(tiny.model(**prompt, use_cache=True).past_key_values)
        for index, token in enumerate(tokens):
            for cache, wanted in zip(caches, expected, strict=True):
                logits = step(tiny.model, cache, token)[0]
                torch.testing.assert_close(logits, wanted[index], atol=1e-4, rtol=0)


def test_several_new_tokens_at_once_equal_one_after_the_other(tiny: Any) -> None:
    inputs = tiny.inputs(QUESTIONS)
    new = torch.arange(10, 22).reshape(3, 4)
    mask = torch.cat([inputs["attention_mask"], torch.ones(3, 4, dtype=torch.long)], dim=1)
    with apply_schedule(tiny.model, SCHEDULE), torch.no_grad():
        cache = tiny.model(**inputs, use_cache=True).past_key_values
        together = logits_of(
            tiny.model, {"input_ids": new, "past_key_values": cache, "attention_mask": mask}
        )
        cache = tiny.model(**inputs, use_cache=True).past_key_values
        length = inputs["input_ids"].shape[1]
        for index in range(4):
            token = new[:, index : index + 1]
            logits = step(tiny.model, cache, token, mask[:, : length + index + 1])
            torch.testing.assert_close(logits, together[:, index], atol=1e-5, rtol=0)


@pytest.mark.parametrize("positions", ["compact", "original"])
def test_a_conversation_continues_from_its_cache(tiny: Any, positions: str) -> None:
    schedule = SCHEDULE.model_copy(update={"positions": positions})
    inputs = tiny.inputs(["w1 w2 w3"])
    settings = {"max_new_tokens": 3, "do_sample": False}
    with apply_schedule(tiny.model, schedule):
        first = tiny.model.generate(**inputs, **settings, return_dict_in_generate=True)
        question = torch.tensor([[5, 12, 13, 6]])
        turn = torch.cat([first.sequences, question], dim=1)
        expected = tiny.model.generate(
            input_ids=turn,
            attention_mask=torch.ones_like(turn),
            pixel_values=inputs["pixel_values"],
            **settings,
        )
        second = tiny.model.generate(
            input_ids=turn,
            attention_mask=torch.ones_like(turn),
            past_key_values=first.past_key_values,
            **settings,
        )
    assert torch.equal(second, expected)


def test_another_batch_cannot_continue_a_cache(tiny: Any) -> None:
    inputs = tiny.inputs(QUESTIONS)
    with apply_schedule(tiny.model, SCHEDULE), torch.no_grad():
        cache = tiny.model(**inputs, use_cache=True).past_key_values
        with pytest.raises(InputError, match="filled by 3 sequences, but this call has 1"):
            step(tiny.model, cache, torch.tensor([[10]]))
        short = torch.ones(3, cache.get_seq_length() + 1)
        with pytest.raises(InputError, match=r"expected \(3, \d+\): the whole sequence as if"):
            step(tiny.model, cache, torch.tensor([[10], [10], [10]]), short)


def test_a_cache_that_is_emptied_starts_anew(tiny: Any) -> None:
    text = tiny.tokenizer(["USER: w1 w2 ASSISTANT:"], return_tensors="pt")["input_ids"]
    expected = logits_of(tiny.model, {"input_ids": text})
    with apply_schedule(tiny.model, SCHEDULE), torch.no_grad():
        cache = tiny.model(**tiny.inputs(["w1"]), use_cache=True).past_key_values
        cache.reset()
        inputs = {"input_ids": text, "past_key_values": cache}
        assert torch.equal(logits_of(tiny.model, inputs), expected)


def test_what_is_known_of_a_cache_goes_with_it(tiny: Any) -> None:
    with apply_schedule(tiny.model, SCHEDULE), torch.no_grad():
        output = tiny.model(**tiny.inputs(["w1"]), use_cache=True)
        known = weakref.ref(recall(output.past_key_values))
        assert known() is not None
        del output
        gc.collect()
        assert known() is None


def test_sampling_is_reproducible(tiny: Any) -> None:
    inputs = tiny.inputs(QUESTIONS)
    settings = {"max_new_tokens": 6, "do_sample": True, "num_return_sequences": 2}
    with apply_schedule(tiny.model, SCHEDULE):
        torch.manual_seed(0)
        cached = tiny.model.generate(**inputs, **settings)
        torch.manual_seed(0)
        again = tiny.model.generate(**inputs, **settings, use_cache=False)
    assert torch.equal(cached, again)


def test_prompt_lookup_decoding_equals_greedy(tiny: Any) -> None:
    inputs = tiny.inputs(["w1 w2 w3 w1 w2"])
    settings = {"max_new_tokens": 8, "do_sample": False}
    with apply_schedule(tiny.model, SCHEDULE):
        greedy = tiny.model.generate(**inputs, **settings)
        assisted = tiny.model.generate(**inputs, **settings, prompt_lookup_num_tokens=2)
    assert torch.equal(greedy, assisted)


def test_hidden_states_and_attentions_have_each_layers_length(tiny: Any) -> None:
    model = tiny.load("eager")
    inputs = tiny.inputs(QUESTIONS)
    text = inputs["input_ids"].shape[1] - tiny.visual_tokens
    alive = SCHEDULE.visual_tokens_per_layer(6, tiny.visual_tokens)
    with apply_schedule(model, SCHEDULE), torch.no_grad():
        output = model(**inputs, output_hidden_states=True, output_attentions=True)
    lengths = [text + count for count in alive]
    assert [attention.shape[-1] for attention in output.attentions] == lengths
    assert [hidden.shape[1] for hidden in output.hidden_states] == [lengths[0], *lengths]


def test_gradients_flow_through_merging(tiny: Any) -> None:
    inputs = tiny.inputs(QUESTIONS)
    weight = tiny.model.model.multi_modal_projector.linear_1.weight
    with apply_schedule(tiny.model, SCHEDULE):
        tiny.model(**inputs).logits.sum().backward()
    assert weight.grad is not None
    assert weight.grad.abs().sum() > 0
    tiny.model.zero_grad(set_to_none=True)


def test_a_copy_of_a_pruned_model_is_pruned_by_itself(tiny: Any) -> None:
    inputs = tiny.inputs(QUESTIONS)
    with apply_schedule(tiny.model, SCHEDULE) as handle:
        expected = logits_of(tiny.model, inputs)
        record = handle.last_prefill
        twin = copy.deepcopy(tiny.model)
        assert torch.equal(logits_of(twin, inputs), expected)
        assert handle.last_prefill is record
    assert torch.equal(logits_of(twin, inputs), expected)


def test_threads_do_not_mix_their_calls(tiny: Any) -> None:
    prompts = [tiny.inputs([question], seed=seed) for seed, question in enumerate(QUESTIONS)]
    results: dict[int, Tensor] = {}

    def work(index: int) -> Callable[[], None]:
        def run() -> None:
            for _ in range(5):
                results[index] = logits_of(tiny.model, prompts[index])

        return run

    with apply_schedule(tiny.model, SCHEDULE):
        expected = [logits_of(tiny.model, prompt) for prompt in prompts]
        threads = [threading.Thread(target=work(index)) for index in range(len(prompts))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for index, wanted in enumerate(expected):
        torch.testing.assert_close(results[index], wanted, atol=1e-5, rtol=0)


def test_all_errors_share_one_root() -> None:
    for error in (InputError, ModelError, ScheduleMismatchError, UnsupportedModelError):
        assert issubclass(error, PrunetuneError)
