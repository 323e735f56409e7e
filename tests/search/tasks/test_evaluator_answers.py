"""What trials share, answers and encoded images, and what they do not."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from pruners.errors import InputError
from pruners.published import dense, published
from pruners.runtime import apply_schedule
from pruners.vision_outputs import VisionOutputs
from search.tasks import evaluator as evaluator_module
from search.tasks.answering import Answering
from tests.search.tasks.making import Make


def test_scores_do_not_depend_on_the_batch_or_on_what_was_asked_before(make: Make) -> None:
    evaluator = make("gqa", "vqav2_val", "textvqa_val")
    schedule = published("visiondrop", 8, evaluator.shape)
    together = evaluator.score(schedule, "search", range(72))
    fresh = make("gqa", "vqav2_val", "textvqa_val", batch_size=1, cache=None)
    object.__setattr__(fresh._settings, "cache", evaluator._settings.cache / "other")
    assert fresh.score(schedule, "search", [70, 3, 40]).tolist() == together[[70, 3, 40]].tolist()


def test_known_answers_need_no_model(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluator = make("gqa")
    schedule = dense(evaluator.shape)
    scores = evaluator.score(schedule, "search", range(10))
    again = make("gqa")
    answering = again.answering
    assert isinstance(answering, Answering)

    def fail(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("the model was called")

    monkeypatch.setattr(answering._live.model, "generate", fail)
    assert again.score(schedule, "search", range(10)).tolist() == scores.tolist()


def test_images_are_encoded_once_for_all_schedules(make: Make) -> None:
    evaluator = make("gqa", "textvqa_val")
    model = evaluator.answering._live.model
    calls = []
    hook = model.model.vision_tower.register_forward_hook(lambda *args: calls.append(1))
    schedules = [published("visiondrop", tokens, evaluator.shape) for tokens in (4, 8, 16)]
    scores = [evaluator.score(each, "search", range(48)) for each in schedules]
    first = len(calls)
    assert first > 0
    scores.append(
        evaluator.score(published("visiondrop", 12, evaluator.shape), "search", range(48))
    )
    assert len(calls) == first
    hook.remove()
    # The same scores come from pixels, through the tower and the model as it is deployed.
    plain = make("gqa", "textvqa_val")
    object.__setattr__(plain._settings, "cache", evaluator._settings.cache / "other")
    plain.answering._encoder._encodes = False
    for schedule, known in zip(schedules, scores, strict=False):
        assert plain.score(schedule, "search", range(48)).tolist() == known.tolist()


def test_schedules_that_prune_inside_the_tower_see_pixels(make: Make) -> None:
    evaluator = make("gqa")
    schedule = published("tome", 8, evaluator.shape)
    answering = evaluator.answering
    live = answering._live
    evaluator.score(dense(evaluator.shape), "search", range(24))  # images are encoded by now
    calls = []
    hook = live.model.model.vision_tower.register_forward_hook(lambda *args: calls.append(1))
    evaluator.score(schedule, "search", range(24))
    hook.remove()
    assert calls
    with apply_schedule(live.model, schedule) as handle:
        assert handle.prunes_in_tower
        with pytest.raises(InputError, match="pass pixel values"):
            handle.encoded_images(VisionOutputs())


def test_images_that_do_not_fit_at_once_are_encoded_in_halves(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search.tasks.answering._AT_ONCE", 10)
    evaluator = make("gqa")
    schedule = dense(evaluator.shape)
    tower = evaluator.answering._live.model.model.vision_tower
    seen = []

    def scarce(module: Any, args: tuple[Any, ...], inputs: dict[str, Any]) -> None:
        pixels = args[0] if args else inputs["pixel_values"]
        seen.append(len(pixels))
        if len(pixels) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    hook = tower.register_forward_pre_hook(scarce, with_kwargs=True)
    scores = evaluator.score(schedule, "search", range(24))
    hook.remove()
    assert seen == [10, 5, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2]
    fresh = make("gqa")
    object.__setattr__(fresh._settings, "cache", evaluator._settings.cache / "other")
    assert fresh.score(schedule, "search", range(24)).tolist() == scores.tolist()


@pytest.mark.parametrize("changed", ["library", "attention", "text tower"])
def test_answers_of_other_code_or_weights_are_not_used_again(
    changed: str, make: Make, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tower = tmp_path / "clip"
    shutil.copytree(checkpoint / "clip", tower)
    evaluator = make("gqa", text_tower=str(tower))
    schedule = dense(evaluator.shape)
    evaluator.score(schedule, "search", range(4))
    if changed == "library":
        monkeypatch.setattr("search.tasks.answering.version", lambda name: "0")
    elif changed == "text tower":
        (tower / "model.safetensors").write_bytes(b"other weights")
    again = make("gqa", text_tower=str(tower))
    if changed == "attention":
        load = evaluator_module.load_live_model

        def eager(*args: Any, **options: Any) -> Any:
            live = load(*args, **options)
            live.model.set_attn_implementation("eager")
            return live

        monkeypatch.setattr(evaluator_module, "load_live_model", eager)
    model, calls = again.answering._live.model, []
    stock = model.generate

    def generate(**inputs: Any) -> Any:
        calls.append(1)
        return stock(**inputs)

    monkeypatch.setattr(model, "generate", generate)
    again.score(schedule, "search", range(4))
    assert calls
