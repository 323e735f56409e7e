"""What `--model_args` accept, and how a schedule meets its model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from pruners import (
    InformationFlow,
    KeyNorm,
    LastTokenAttention,
    Schedule,
    Shape,
    Stage,
    save_schedule,
)
from pruners.errors import (
    ModelError,
    ScheduleError,
    ScheduleMismatchError,
    SettingsError,
    UnsupportedModelError,
)
from pruners.shape import LLAVA_1_5_7B
from search.lmms.loading import ModelSettings, load
from search.lmms.model import PrunetuneModel
from tests.helpers.checkpoints import copy_without
from tests.pruners.families import TinyModel


def stage(layer: int, retention: float = 0.5) -> Stage:
    return Stage(layer=layer, retention=retention, scorer=LastTokenAttention())


@pytest.fixture
def saved(tmp_path: Path) -> Any:
    def save(*stages: Stage, shape: Shape | None = None) -> str:
        file = tmp_path / "schedule.json"
        save_schedule(Schedule(stages=stages, shape=shape), file)
        return str(file)

    return save


def settings(tiny: TinyModel, **changes: Any) -> ModelSettings:
    return ModelSettings(pretrained=str(tiny.folder), **changes)


def test_without_a_schedule_the_model_is_dense(tiny: TinyModel) -> None:
    loaded = load(settings(tiny))
    assert loaded.handle is None
    assert loaded.notes == ()
    inputs = tiny.inputs(["w1 w2"])
    with torch.inference_mode():
        assert torch.equal(loaded.model(**inputs).logits, tiny.model(**inputs).logits)


def test_a_schedule_for_the_models_depth_is_applied_as_it_is(tiny: TinyModel, saved: Any) -> None:
    loaded = load(settings(tiny, schedule=saved(stage(2), shape=tiny.shape)))
    assert loaded.notes == ()
    assert loaded.handle is not None
    assert [each.layer for each in loaded.handle.schedule.stages] == [2]
    inputs = tiny.inputs(["w1 w2"])
    with torch.inference_mode():
        logits = loaded.model(**inputs).logits
    # Of 25 visual tokens 13 are left.
    assert logits.shape[1] == inputs["input_ids"].shape[1] - 12


def test_a_schedule_for_another_depth_is_carried_over_and_says_so(
    tiny: TinyModel, saved: Any
) -> None:
    file = saved(stage(16), stage(27, 0.25), shape=LLAVA_1_5_7B)
    loaded = load(settings(tiny, schedule=file))
    assert loaded.handle is not None
    # 6 of 32 layers: 16 is 3, and 27 is 5.0625.
    assert [each.layer for each in loaded.handle.schedule.stages] == [3, 5]
    assert loaded.schedule_hash == Schedule(stages=(stage(16), stage(27, 0.25))).content_hash
    (note,) = loaded.notes
    assert "priced for llava-1.5-7b with 32 decoder layers" in note
    assert "before layers 16, 27 were moved to 3, 5" in note


def test_a_schedule_that_does_not_fit_is_refused(tiny: TinyModel, saved: Any) -> None:
    file = saved(stage(6))  # Names no shape, so that it cannot be carried over.
    with pytest.raises(ScheduleMismatchError, match=r"stage before layer 6, but .* has 6 decoder"):
        load(settings(tiny, schedule=file))


def test_a_scorer_that_the_family_lacks_is_refused(
    build_family: Callable[[str], TinyModel], saved: Any
) -> None:
    family = build_family("llava_next")
    file = saved(Stage(layer=0, retention=0.5, scorer=InformationFlow()))
    with pytest.raises(ScheduleMismatchError, match=r"schedule.json does not fit pretrained=\S+: "):
        load(settings(family, schedule=file))


def test_a_schedule_is_refused_before_weights_are_read(
    tiny: TinyModel, saved: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "weightless"
    folder.mkdir()
    values = json.loads((tiny.folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**values, "model_type": "blip-2"}))
    with pytest.raises(UnsupportedModelError, match=r"'blip-2'; supported model types: llava, "):
        load(ModelSettings(pretrained=str(folder), schedule=saved(stage(2))))
    with pytest.raises(ScheduleError, match="cannot read the schedule"):
        load(ModelSettings(pretrained=str(folder), schedule=str(tmp_path / "none.json")))


def test_what_cannot_be_loaded_is_named(tiny: TinyModel, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"configuration of pretrained=\S+none cannot be loaded"):
        load(ModelSettings(pretrained=str(tmp_path / "none")))
    with pytest.raises(SettingsError, match="dtype=int8: expected one of auto, float32"):
        load(settings(tiny, dtype="int8"))
    damaged = tmp_path / "damaged"
    shutil.copytree(tiny.folder, damaged)
    (damaged / "model.safetensors").write_bytes(b"half a file")
    with pytest.raises(ModelError, match=r"the model of pretrained=\S+damaged cannot be loaded"):
        load(ModelSettings(pretrained=str(damaged)))


def test_a_model_without_some_of_its_weights_is_refused(tiny: TinyModel, tmp_path: Path) -> None:
    missing = copy_without(tiny.folder, tmp_path / "model", "vision_tower")
    with pytest.raises(ModelError, match=rf"the model of .* lacks {missing} "):
        load(ModelSettings(pretrained=str(tmp_path / "model")))


@pytest.mark.skipif(find_spec("torchvision") is not None, reason="torchvision is installed")
def test_a_missing_library_is_named(build_family: Callable[[str], TinyModel]) -> None:
    with pytest.raises(ModelError, match=r"install it in the build for your torch: .* Torchvision"):
        load(settings(build_family("qwen3_vl")))


def test_dtype_and_attention_are_the_ones_asked_for(tiny: TinyModel) -> None:
    model = load(settings(tiny, dtype="bfloat16", attn_implementation="eager")).model
    assert model.dtype == torch.bfloat16
    assert model.config._attn_implementation == "eager"


def test_a_schedules_hash_must_be_its_own(tiny: TinyModel, saved: Any) -> None:
    file = saved(stage(2))
    content = Schedule(stages=(stage(2),)).content_hash
    assert load(settings(tiny, schedule=file, schedule_hash=content[:12])).handle is not None
    saved(Stage(layer=2, retention=0.5, scorer=KeyNorm()))
    with pytest.raises(SettingsError, match=f"schedule_hash={content[:12]}, but .* pass another"):
        load(settings(tiny, schedule=file, schedule_hash=content[:12]))
    with pytest.raises(SettingsError, match="expected 8 characters or more"):
        load(settings(tiny, schedule=file, schedule_hash="a"))


def test_the_response_cache_needs_the_schedules_hash(
    tiny: TinyModel, saved: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"pretrained": str(tiny.folder), "device": "cpu"}
    file = saved(stage(2))
    monkeypatch.setattr("sys.argv", ["lmms_eval", "--use_cache", "answers"])
    with pytest.raises(SettingsError, match="add schedule_hash= the schedule's content hash"):
        PrunetuneModel(**given, schedule=file)
    content = Schedule(stages=(stage(2),)).content_hash
    PrunetuneModel(**given, schedule=file, schedule_hash=content)
    PrunetuneModel(**given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "names no model; pass pretrained="),
        ({"pretrained": "x", "shedule": "y"}, "shedule=: unknown; expected some of pretrained, "),
        ({"pretrained": "x", "batch_size": "auto"}, "--batch_size auto: expected a number"),
        ({"pretrained": "x", "batch_size": 0}, "--batch_size 0: expected a number from 1 on"),
    ],
)
def test_wrong_arguments_are_named(given: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        PrunetuneModel(**given)
