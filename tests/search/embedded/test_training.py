"""Training: labels, packing, and runs that continue after a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from pruners.errors import SettingsError
from search.embedded import CLIP
from search.embedded.architecture import PATCHES, build_llava
from search.embedded.handwriting import digit_pool
from search.embedded.questions import Question
from search.embedded.scenes import SceneObject, draw_scene, random_plan
from search.embedded.tokenizer import build_tokenizer
from search.embedded.training.data import ask_training_questions, draw_training_scenes, patch_owners
from search.embedded.training.decoder import run_packed
from search.embedded.training.loop import StageSettings, train_stage
from search.embedded.training.packing import (
    IGNORED,
    cell,
    description_segment,
    empty_packed,
    encode,
    pack,
    question_segment,
)
from search.embedded.training.pipeline import TrainingSettings, train
from search.embedded.vocabulary import VOCABULARY


def _scene_and_questions(seed: int) -> tuple[tuple[SceneObject, ...], tuple[Question, ...]]:
    rng = np.random.default_rng(seed)
    counted = draw_scene(rng, digit_pool("train"), random_plan(rng))
    return counted.scene.objects, ask_training_questions(counted, rng)


def test_every_object_owns_a_patch_whose_centre_it_holds() -> None:
    for seed in range(50):
        objects, _ = _scene_and_questions(seed)
        owners = patch_owners(objects).reshape(12, 12)
        assert set(owners.ravel().tolist()) == {-1, *range(len(objects))}
        for row, column in np.argwhere(owners >= 0):
            left, top, right, bottom = objects[owners[row, column]].box
            assert left <= 8 * column + 4 < right
            assert top <= 8 * row + 4 < bottom
        assert (owners == -1).mean() > 0.7


def test_training_scenes_do_not_depend_on_the_number_of_workers() -> None:
    one, two = draw_training_scenes(3, 600, workers=1), draw_training_scenes(3, 600, workers=2)
    assert np.array_equal(one.indices, two.indices)
    assert np.array_equal(one.packed.tokens, two.packed.tokens)
    assert one.questions == two.questions


def test_packing_encodes_words_as_the_tokenizer_does() -> None:
    tokenizer = build_tokenizer(closed=False)
    for seed in range(20):
        for question in _scene_and_questions(seed)[1]:
            expected = tokenizer(question.text, add_special_tokens=False).input_ids
            assert encode(question.text) == expected


def test_mentions_point_at_the_last_word_of_an_objects_name() -> None:
    for seed in range(20):
        objects, asked = _scene_and_questions(seed)
        for question in asked:
            segment = question_segment(question, objects)
            for position, index in segment.mentions:
                word = VOCABULARY[segment.tokens[position]]
                assert word in {objects[index].kind, "object", "digit"}
            assert VOCABULARY[segment.tokens[-1]] == question.answer


def test_a_description_names_every_object_in_reading_order() -> None:
    objects, _ = _scene_and_questions(1)
    words = [VOCABULARY[token] for token in description_segment(objects).tokens[2:-1]]
    listed = [tuple(words[i : i + 4]) for i in range(0, len(words), 4)]
    expected = sorted(objects, key=cell)
    assert listed == [
        (item.colour, item.kind, f"r{cell(item)[0]}", f"c{cell(item)[1]}") for item in expected
    ]


def test_a_packed_question_is_answered_as_if_it_stood_alone() -> None:
    """The oracle is the stock model on prompt, image and one question."""
    torch.manual_seed(0)
    llava = build_llava().eval()
    objects, asked = _scene_and_questions(2)
    features = torch.randn(1, PATCHES, llava.config.vision_config.hidden_size)
    packed = empty_packed(1)
    segments = [question_segment(question, objects) for question in asked]
    pack(packed, 0, segments, objects)
    for blind in (False, True):
        with torch.no_grad():
            logits, _ = run_packed(llava, features, packed, np.array([0]), np.array([blind]))
            for number in (0, 3):
                column = np.flatnonzero(
                    (packed.segments[0] == number) & (packed.labels[0] != IGNORED)
                )
                front = [VOCABULARY.index("<s>"), VOCABULARY.index("USER:")]
                embed = llava.get_input_embeddings()
                parts = [
                    embed(torch.tensor(front)),
                    embed(torch.tensor(segments[number].tokens[:-1])),
                ]
                if not blind:
                    parts.insert(1, llava.model.multi_modal_projector(features)[0])
                alone = llava(inputs_embeds=torch.cat(parts)[None]).logits[0, -1]
                assert torch.allclose(logits[0, int(column[0])], alone, atol=1e-4)


def test_a_stage_that_was_cut_off_ends_where_an_uninterrupted_one_does(tmp_path: Path) -> None:
    class CutOffError(Exception):
        pass

    def run(folder: Path, cut_at: int | None) -> torch.Tensor:
        folder.mkdir(exist_ok=True)
        torch.manual_seed(0)
        module = torch.nn.Linear(4, 1)
        calls = 0

        def loss(rng: np.random.Generator) -> tuple[torch.Tensor, dict[str, float]]:
            nonlocal calls
            calls += 1
            if calls == cut_at:
                raise CutOffError
            inputs = torch.from_numpy(rng.standard_normal((8, 4))).float()
            value = (module(inputs) - inputs.sum(1, keepdim=True)).pow(2).mean()
            return value, {"loss": float(value.detach())}

        settings = StageSettings("toy", None, 30, 0.1, save_seconds=0.0)
        train_stage(settings, {"module": module}, loss, folder, 1, lambda entry: None)
        return module.weight.detach()

    whole = run(tmp_path / "whole", None)
    with pytest.raises(CutOffError):
        run(tmp_path / "cut", 12)
    assert torch.equal(run(tmp_path / "cut", None), whole)


def _command(out: Path) -> list[str]:
    options = {
        "out": out, "scenes": 30, "workers": 1, "tower-steps": 40, "tower-minutes": 0,
        "decoder-steps": 2, "decoder-minutes": 0, "tower-batch": 2, "decoder-batch": 2,
        "threads": 1, "save-seconds": 0, "device": "cpu",
    }  # fmt: skip
    flags = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    return [sys.executable, "-m", "search.embedded.train", *flags]


@pytest.mark.slow
def test_the_same_command_continues_after_a_kill(tmp_path: Path) -> None:
    out = tmp_path / "training"
    process = subprocess.Popen(_command(out), start_new_session=True)
    deadline = time.monotonic() + 120
    while not (out / "tower.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert (out / "tower.pt").exists()
    assert not (out / "checkpoint").exists()
    subprocess.run(_command(out), check=True, timeout=300)
    steps = [json.loads(line)["step"] for line in (out / "tower.jsonl").read_text().splitlines()]
    assert steps[-1] == 40
    assert (out / "checkpoint" / "model.safetensors").exists()
    assert (out / "checkpoint" / "clip" / "model.safetensors").exists()


def test_a_folder_of_another_training_is_refused(tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text('{"seed": 7}')
    with pytest.raises(SettingsError, match=r"other settings.*choose another folder"):
        train(TrainingSettings(), tmp_path, torch.device("cpu"), lambda stage, entry: None)


def test_a_stage_without_a_limit_is_refused(tmp_path: Path) -> None:
    settings = TrainingSettings(tower_minutes=None)
    with pytest.raises(SettingsError, match="tower stage has no limit"):
        train(settings, tmp_path, torch.device("cpu"), lambda stage, entry: None)


def test_a_decoder_of_another_size_is_trained_on_given_towers(tmp_path: Path) -> None:
    settings = TrainingSettings(
        scenes=4,
        decoder_layers=3,
        decoder_width=64,
        towers=str(CLIP),
        decoder_minutes=None,
        decoder_steps=1,
        decoder_batch=2,
        workers=1,
    )
    checkpoint = train(settings, tmp_path, torch.device("cpu"), lambda stage, entry: None)
    decoder = json.loads((checkpoint / "config.json").read_text())["text_config"]
    assert (decoder["num_hidden_layers"], decoder["hidden_size"]) == (3, 64)
    assert decoder["num_attention_heads"] == decoder["num_key_value_heads"] == 2
    trained, given = (load_file(folder / "model.safetensors") for folder in (checkpoint, CLIP))
    for name, weight in load_file(checkpoint / "clip" / "model.safetensors").items():
        assert torch.equal(weight, given[name])
    assert any("layers.2." in name for name in trained)
    assert not (tmp_path / "tower.pt").exists()


def test_a_width_of_no_whole_heads_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="100 wide; give a multiple of 32"):
        train(
            TrainingSettings(decoder_width=100),
            tmp_path,
            torch.device("cpu"),
            lambda stage, entry: None,
        )


def test_towers_that_are_none_are_refused_before_anything_is_drawn(tmp_path: Path) -> None:
    (tmp_path / "towers").mkdir()
    with pytest.raises(SettingsError, match=r"no paired towers.*search\.embedded\.train"):
        train(
            TrainingSettings(towers=str(tmp_path / "towers")),
            tmp_path / "out",
            torch.device("cpu"),
            lambda stage, entry: None,
        )
    assert not (tmp_path / "out").exists()
