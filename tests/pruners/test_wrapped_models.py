"""Models inside wrappers: the schedule goes on the model itself."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from pruners import apply_schedule, encode_images, published
from pruners.errors import ModelError, UnsupportedModelError
from tests.helpers.forwards import logits_of
from tests.pruners.two_visual_stages import SCHEDULE


class Half(nn.Module):
    """A wrapper of a user's own, one level further out."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.inner = nn.Sequential(model)

    def forward(self, **inputs: Any) -> Any:
        output = self.inner[0](**inputs)
        output.logits = output.logits / 2
        return output


@pytest.mark.parametrize("wrap", [torch.compile, nn.DataParallel, Half])
def test_a_wrapper_is_refused_by_naming_what_is_inside(
    tiny: Any, wrap: Callable[[Any], nn.Module]
) -> None:
    wrapper = wrap(tiny.model)
    message = rf"^{type(wrapper).__name__} wraps a LlavaForConditionalGeneration; apply .* that one"
    with pytest.raises(UnsupportedModelError, match=message):
        apply_schedule(wrapper, SCHEDULE)


def test_models_that_share_their_parts_have_one_schedule(tiny: Any) -> None:
    other = copy.deepcopy(tiny.model)
    other.model = tiny.model.model
    with (
        apply_schedule(tiny.model, SCHEDULE),
        pytest.raises(ModelError, match="one that shares its parts, already has a schedule"),
    ):
        apply_schedule(other, SCHEDULE)
    apply_schedule(other, SCHEDULE).remove()


@torch.no_grad()
def test_the_wrapper_of_a_pruned_model_is_pruned(tiny: Any) -> None:
    inputs = tiny.inputs(["w1 w2 w3"])
    with apply_schedule(tiny.model, SCHEDULE):
        expected = tiny.model(**inputs).logits
        assert torch.equal(Half(tiny.model)(**inputs).logits, expected / 2)


@torch.no_grad()
def test_adapters_of_peft_take_part_in_scoring(tiny: Any) -> None:
    peft = pytest.importorskip("peft")
    inputs = tiny.inputs(["w1 w2 w3", "w4"])
    inputs["pixel_values"] = inputs["pixel_values"].double()
    # In double precision, as merging rounds other products than two separate ones.
    model = copy.deepcopy(tiny.model).double()
    torch.manual_seed(0)  # what the adapters are drawn from
    lora = peft.LoraConfig(r=2, target_modules=["q_proj", "k_proj"], init_lora_weights=False)
    wrapper = peft.get_peft_model(model, lora).eval()
    with pytest.raises(UnsupportedModelError, match="PeftModel wraps a Llava"):
        apply_schedule(wrapper, SCHEDULE)
    with apply_schedule(wrapper.get_base_model(), SCHEDULE) as handle:
        found = wrapper(**inputs).logits
        kept = [stage.indices for stage in handle.last_prefill.stages]
    merged = wrapper.merge_and_unload()
    with apply_schedule(merged, SCHEDULE) as handle:
        expected = merged(**inputs).logits
        for indices, stage in zip(kept, handle.last_prefill.stages, strict=True):
            assert torch.equal(indices, stage.indices)
    torch.testing.assert_close(found, expected, atol=1e-9, rtol=0)


@pytest.mark.parametrize(
    ("method", "settings", "part"),
    [
        ("flowcut", {"target_modules": ["q_proj"]}, "encoder.layers.0.self_attn.q_proj"),
        ("tome", {"target_modules": ["k_proj"]}, "encoder.layers.0.self_attn.k_proj"),
        (
            "visiondrop",
            {"target_modules": ["q_proj"], "modules_to_save": ["multi_modal_projector"]},
            "multi_modal_projector",
        ),
    ],
)
def test_parts_that_peft_replaces_afterwards_are_not_read_as_they_were(
    tiny: Any, method: str, settings: dict[str, Any], part: str
) -> None:
    peft = pytest.importorskip("peft")
    inputs = tiny.inputs()
    model = copy.deepcopy(tiny.model)
    schedule = published(method, tiny.visual_tokens // 2, tiny.shape)
    with apply_schedule(model, schedule):
        wrapper = peft.get_peft_model(model, peft.LoraConfig(r=2, **settings)).eval()
        with pytest.raises(ModelError, match=f"{part} has been replaced by a .* apply it again"):
            wrapper(**inputs)
    with apply_schedule(model, schedule) as handle:
        wrapper(**inputs)
        assert handle.last_prefill is not None


def test_adapters_that_hooks_do_not_sit_on_may_come_afterwards(tiny: Any) -> None:
    peft = pytest.importorskip("peft")
    inputs = tiny.inputs()
    found = []
    for before in (True, False):
        model = copy.deepcopy(tiny.model)
        torch.manual_seed(0)  # what the adapters are drawn from
        lora = peft.LoraConfig(r=2, target_modules=["q_proj", "k_proj"], init_lora_weights=False)
        wrapper = peft.get_peft_model(model, lora).eval() if before else None
        apply_schedule(model, SCHEDULE)
        wrapper = wrapper or peft.get_peft_model(model, lora).eval()
        found.append(logits_of(wrapper, inputs))
    assert torch.equal(*found)


def test_a_part_that_is_compiled_afterwards_is_the_same(tiny: Any) -> None:
    inputs = tiny.inputs()
    model = copy.deepcopy(tiny.model)
    schedule = published("visiondrop", tiny.visual_tokens // 2, tiny.shape)
    with apply_schedule(model, schedule):
        expected = logits_of(model, inputs)
        core = model.model
        core.multi_modal_projector = torch.compile(core.multi_modal_projector, backend="eager")
        torch.testing.assert_close(logits_of(model, inputs), expected, atol=1e-5, rtol=0)


def test_a_vocabulary_resized_afterwards_has_logits_of_its_own(tiny: Any) -> None:
    inputs = tiny.inputs()
    model = copy.deepcopy(tiny.model)
    with apply_schedule(model, SCHEDULE) as handle:
        model.resize_token_embeddings(64, mean_resizing=False)
        vision = encode_images(model, inputs["pixel_values"])
        found = handle.prefill(inputs["input_ids"], inputs["attention_mask"], vision)
        expected = logits_of(model, inputs)[:, -1]
    assert found.shape[1] == 64
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
