"""Weights that files lack, against what the stock models read."""

from __future__ import annotations

import pytest
import torch
from transformers import (
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    SiglipVisionConfig,
)

from pruners.errors import ModelError
from pruners.missing_weights import check_whole

SIZES = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2}


def test_weights_may_be_missing_that_the_model_does_not_read() -> None:
    """All that SigLIP pools images with: without a gradient, so never read."""
    config = LlavaConfig(
        vision_config=SiglipVisionConfig(
            **SIZES, num_attention_heads=2, image_size=8, patch_size=4, vision_use_head=True
        ),
        text_config=LlamaConfig(**SIZES, num_attention_heads=2, vocab_size=10),
        image_token_id=4,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )
    model = LlavaForConditionalGeneration(config)
    ids = torch.tensor([[1, 4, 4, 4, 4, 5]])
    model(input_ids=ids, pixel_values=torch.ones(1, 3, 8, 8)).logits.sum().backward()
    for name, weight in model.named_parameters():
        if ".head." in name:
            assert weight.grad is None
            check_whole("the model", [name])
        elif weight.grad is not None:
            with pytest.raises(ModelError, match=f"the model lacks 1 weights, {name} among"):
                check_whole("the model", [name])
