"""Questions are compared with each tile as with an image of its own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from pruners import Schedule, ScheduleMismatchError, SimilarityFusion, Stage, apply_schedule
from pruners.adapters import adapter_for
from pruners.scorers import QuestionRelevance
from tests.helpers.forwards import logits_of
from tests.pruners.families import TinyModel, parts
from tests.pruners.ragged import kept, visual_places


def whole_image_model(next_model: TinyModel) -> Any:
    """A LLaVA-1.5 with the same vision tower, whose images are as large as one tile."""
    config = LlavaConfig(
        vision_config=next_model.model.config.vision_config,
        text_config=LlamaConfig(**parts.decoder_sizes(parts.WORDS)),
        image_token_index=next_model.model.config.image_token_id,
        image_seq_length=16,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )
    model = LlavaForConditionalGeneration(config).eval()
    model.model.vision_tower.load_state_dict(next_model.model.model.vision_tower.state_dict())
    return model


@pytest.mark.parametrize(
    "scorer",
    [
        SimilarityFusion(text_tower="paired", weight=0.5, keep_cls=False),
        SimilarityFusion(text_tower="paired", weight=1.0, encoding="qk", keep_cls=False),
        QuestionRelevance(text_tower="paired"),
    ],
)
def test_questions_are_compared_with_each_tile_as_with_an_image(
    next_model: TinyModel, scorer: Any
) -> None:
    """Tiles given one by one to a LLaVA-1.5 with the same tower keep the same tokens."""
    stage = Stage(layer=0, retention=0.4, scorer=scorer)
    schedule, settings = Schedule(stages=(stage,)), {"processor": next_model.tokenizer}
    batch = next_model.inputs(["w1 w2 w3"])
    other = whole_image_model(next_model)
    tower = next_model.clip_folder
    with apply_schedule(next_model.model, schedule, text_tower=tower, **settings) as handle:
        logits_of(next_model.model, batch)
        record = handle.last_prefill
    found = [visual_places(record, 0)[index] for index in kept(record, 0)[0]]
    sizes = batch["image_sizes"]
    (medium,) = adapter_for(next_model.model).media("image", {"image_sizes": sizes}, None)
    image = other.config.image_token_id
    start = batch["input_ids"][0].tolist().index(image)
    question = next_model.tokenizer("w1 w2 w3 ASSISTANT:", add_special_tokens=False)["input_ids"]
    ids = torch.tensor([[1, 5, *[image] * 16, *question]])
    expected = []
    with apply_schedule(other, schedule, text_tower=tower, **settings) as handle:
        for tile in medium.tiles:
            pixels = batch["pixel_values"][0][tile.source][None]
            logits_of(other, {"input_ids": ids, "pixel_values": pixels})
            own = kept(handle.last_prefill, 0)[0]
            expected += [start + int(tile.places[index]) for index in own]
    assert found == sorted(expected)


@pytest.mark.parametrize("text_tower", ["paired", None])
@pytest.mark.parametrize(
    "scorer",
    [
        SimilarityFusion(text_tower="/nowhere", keep_cls=False),
        QuestionRelevance(text_tower="/nowhere"),
    ],
)
def test_questions_are_not_compared_with_patches_of_siglip(
    onevision: TinyModel, scorer: Any, text_tower: str | None
) -> None:
    schedule = Schedule(stages=(Stage(layer=0, retention=0.4, scorer=scorer),))
    tower = onevision.text_tower if text_tower else None
    message = "no text tower is paired with SiglipVisionModel .* such as 'visual-self-attention'"
    with pytest.raises(ScheduleMismatchError, match=message):
        apply_schedule(onevision.model, schedule, text_tower=tower)
    assert not hasattr(onevision.model.model, "_prunetune_handle")
