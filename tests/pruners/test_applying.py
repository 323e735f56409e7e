"""Applying schedules and removing them: what is refused before any forward, and what is left."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import (
    CLIPConfig,
    CLIPModel,
    GemmaConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    SiglipVisionConfig,
)

from pruners import (
    ClsAttention,
    ClusterAverage,
    PrunetuneError,
    Schedule,
    ScheduleMismatchError,
    Stage,
    TextTower,
    VisualSelfAttention,
    apply_schedule,
    encode_images,
    published,
)
from pruners.errors import InputError, ModelError, UnsupportedModelError
from tests.helpers.forwards import logits_of
from tests.pruners.two_stages import DECODER, ENCODER, QUESTIONS, SCHEDULE, assert_untouched, fusion

SIZES = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "vocab_size": 8}
HEADS = {"num_attention_heads": 2, "num_key_value_heads": 2}


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


def test_all_errors_share_one_root() -> None:
    for error in (InputError, ModelError, ScheduleMismatchError, UnsupportedModelError):
        assert issubclass(error, PrunetuneError)
