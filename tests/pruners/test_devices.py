"""Models whose weights accelerate brings from elsewhere for each call."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pruners import Schedule, Stage, VisualSelfAttention, apply_schedule, encode_images, published
from pruners.devices import device_of
from tests.pruners.families import TinyModel

accelerate = pytest.importorskip("accelerate", reason="the extra test is not installed")

CPU = torch.device("cpu")
QUESTIONS = ("w1 w2 w3", "w4")
FIRST = Stage(layer=0, retention=0.5, scorer=VisualSelfAttention())
SCHEDULE = Schedule(stages=(FIRST, Stage(layer=3, retention=0.25, scorer=VisualSelfAttention())))


def to_memory(model: Any, folder: Path) -> None:
    accelerate.cpu_offload(model, execution_device=CPU)


def to_disk(model: Any, folder: Path) -> None:
    accelerate.disk_offload(model, str(folder), execution_device=CPU)


def layers_to_disk(model: Any, folder: Path) -> None:
    """Spread a model as `device_map` does: some layers of decoder and tower are elsewhere."""
    places = {name: "disk" for name, _ in model.named_modules() if name.endswith(".3")}
    weights = [name for name, _ in model.named_parameters()]
    places |= {name: "cpu" for name in weights if not name.startswith(tuple(places))}
    accelerate.dispatch_model(
        model, places, main_device="cpu", offload_dir=str(folder), force_hooks=True
    )


@torch.no_grad()
def answer(model: Any, inputs: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    return model(**inputs).logits, model.generate(**inputs, max_new_tokens=3, do_sample=False)


@pytest.mark.filterwarnings("ignore:The following device_map keys")  # Weights of no module's own.
def test_models_with_offloaded_layers_are_pruned_alike(family: TinyModel, tmp_path: Path) -> None:
    inputs = family.inputs(QUESTIONS)
    model = copy.deepcopy(family.model)
    with apply_schedule(model, SCHEDULE):
        expected, tokens = answer(model, inputs)
    layers_to_disk(model, tmp_path)
    assert any(weight.is_meta for weight in model.parameters())
    with apply_schedule(model, SCHEDULE):
        found, generated = answer(model, inputs)
    assert torch.equal(found, expected)
    assert torch.equal(generated, tokens)


@pytest.mark.parametrize("offload", [to_memory, to_disk], ids=lambda way: way.__name__)
def test_text_towers_of_offloaded_models_keep_their_weights(
    tiny: Any, offload: Callable[[Any, Path], None], tmp_path: Path
) -> None:
    model, text_tower = copy.deepcopy(tiny.model), copy.deepcopy(tiny.text_tower)
    schedule = published("desap", 8, tiny.shape)
    inputs, settings = tiny.inputs(QUESTIONS), {"processor": tiny.tokenizer}
    with apply_schedule(model, schedule, text_tower=tiny.text_tower, **settings):
        expected, tokens = answer(model, inputs)
        vision = encode_images(model, inputs["pixel_values"], text_tower=tiny.text_tower)
    offload(model, tmp_path)
    with apply_schedule(model, schedule, text_tower=text_tower, **settings):
        found, generated = answer(model, inputs)
        again = encode_images(model, inputs["pixel_values"], text_tower=text_tower)
    assert torch.equal(found, expected)
    assert torch.equal(generated, tokens)
    assert torch.equal(again.features, vision.features)
    assert text_tower.visual_projection.weight.device == CPU


def test_a_module_without_weights_anywhere_runs_nowhere() -> None:
    with torch.device("meta"):
        module = torch.nn.Linear(2, 2)
    assert device_of(module) == torch.device("meta")
