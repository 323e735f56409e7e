"""What a model with a schedule still does as any other does."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pruners import Shape, apply_schedule, dense, encode_images, published
from pruners.errors import ModelError
from tests.helpers.forwards import logits_of
from tests.pruners.two_stages import QUESTIONS, SCHEDULE, assert_untouched


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


@pytest.mark.parametrize("method", ["visiondrop", "flowcut", "fastv"])
def test_no_zeros_are_returned_as_features_of_images(tiny: Any, method: str) -> None:
    inputs = tiny.inputs(QUESTIONS)
    with torch.no_grad():
        dense_features = tiny.model(**inputs).image_hidden_states
    spares = method != "fastv"
    with apply_schedule(tiny.model, published(method, 10, tiny.shape)), torch.no_grad():
        output = tiny.model(**inputs)
        first, *_ = tiny.model(**inputs, return_dict=False)
    assert torch.equal(first, output.logits)
    if spares:
        assert output.image_hidden_states is None
        assert "image_hidden_states" not in output
    else:
        assert torch.equal(output.image_hidden_states, dense_features)


def test_gradients_flow_through_merging(tiny: Any) -> None:
    inputs = tiny.inputs(QUESTIONS)
    weight = tiny.model.model.multi_modal_projector.linear_1.weight
    with apply_schedule(tiny.model, SCHEDULE):
        tiny.model(**inputs).logits.sum().backward()
    assert weight.grad is not None
    assert weight.grad.abs().sum() > 0
    tiny.model.zero_grad(set_to_none=True)


@pytest.mark.parametrize("method", ["fastv", "visiondrop", "flowcut"])
def test_gradient_checkpointing_changes_no_gradient(tiny: Any, method: str) -> None:
    """Layers run a second time then, long after the call that pruned has ended."""
    inputs = tiny.inputs(QUESTIONS)
    model = copy.deepcopy(tiny.model).train()
    found = []
    with apply_schedule(model, published(method, 10, tiny.shape)):
        for checkpointing in (False, True):
            if checkpointing:
                model.gradient_checkpointing_enable()
            model.zero_grad()
            model(**inputs).logits.square().sum().backward()
            found.append({name: weight.grad for name, weight in model.named_parameters()})
    expected, gradients = found
    assert any(gradient is not None for gradient in expected.values())
    for name, gradient in gradients.items():
        assert (gradient is None) == (expected[name] is None)
        assert gradient is None or torch.equal(gradient, expected[name])


def test_a_model_is_saved_as_without_its_schedule(tiny: Any, tmp_path: Path) -> None:
    with apply_schedule(tiny.model, SCHEDULE):
        logits_of(tiny.model, tiny.inputs())
        tiny.model.save_pretrained(tmp_path / "pruned")
    tiny.model.save_pretrained(tmp_path / "dense")
    files = {path.name: path.read_bytes() for path in (tmp_path / "dense").iterdir()}
    assert {path.name: path.read_bytes() for path in (tmp_path / "pruned").iterdir()} == files


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


@contextmanager
def held_back(work: Callable[[], None], layer: torch.nn.Module) -> Iterator[None]:
    """Run work in another thread, which waits before a layer until the end."""
    inside, go_on = threading.Event(), threading.Event()

    def wait(*_: Any) -> None:
        if threading.current_thread() is other:
            inside.set()
            assert go_on.wait(60)

    other = threading.Thread(target=work)
    hook = layer.register_forward_pre_hook(wait)
    other.start()
    try:
        assert inside.wait(60)
        yield
    finally:
        go_on.set()
        other.join()
        hook.remove()


def test_images_are_encoded_beside_the_calls_of_other_threads(tiny: Any) -> None:
    """What they read of images differs: here a similarity, of which `encode_images` knows nothing.

    The encoding waits in its first layer while the other call runs.
    """
    inputs = tiny.inputs(QUESTIONS)
    schedule = published("desap", tiny.visual_tokens // 2, tiny.shape)
    encoded: list[Any] = []

    def encode() -> None:
        encoded.append(encode_images(tiny.model, inputs["pixel_values"]))

    settings = {"processor": tiny.tokenizer, "text_tower": tiny.text_tower}
    with apply_schedule(tiny.model, schedule, **settings):
        expected = logits_of(tiny.model, inputs)
        with held_back(encode, tiny.model.model.vision_tower.encoder.layers[0]):
            found = logits_of(tiny.model, inputs)
    assert torch.equal(found, expected)
    alone = encode_images(tiny.model, inputs["pixel_values"])
    assert torch.equal(encoded[0].features, alone.features)
    assert torch.equal(encoded[0].keys, alone.keys)


def test_removing_waits_for_the_calls_of_other_threads(tiny: Any) -> None:
    """A call that lost its hooks half-way would go on with positions of the dense model."""
    inputs = tiny.inputs(QUESTIONS)
    found: list[Tensor] = []

    def call() -> None:
        found.append(logits_of(tiny.model, inputs))

    with apply_schedule(tiny.model, SCHEDULE) as handle:
        expected = logits_of(tiny.model, inputs)
        with (
            held_back(call, tiny.decoder_layers[1]),
            pytest.raises(ModelError, match="while another thread runs the model; wait"),
        ):
            handle.remove()
    assert torch.equal(found[0], expected)
    assert_untouched(tiny.model)
