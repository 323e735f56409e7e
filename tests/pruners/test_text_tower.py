"""The text tower, against the CLIP model that it is taken from."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import normalize
from transformers import AutoTokenizer, CLIPModel

from pruners import TextTower
from pruners.errors import ModelError
from tests.helpers.checkpoints import copy_without

QUESTIONS = ["w1 w2 w3", "w4", "w5 w6 w7 w8 w9"]


def test_questions_equal_clips_own_text_embeddings(tiny: Any) -> None:
    clip = CLIPModel.from_pretrained(tiny.clip_folder)
    tokenizer = AutoTokenizer.from_pretrained(tiny.clip_folder)
    encoded = tiny.text_tower.encode(QUESTIONS)
    assert encoded.mask.sum(dim=1).tolist() == [5, 3, 7]
    for row, question in enumerate(QUESTIONS):
        tokens = tokenizer(question, return_tensors="pt")
        with torch.no_grad():
            pooled = clip.get_text_features(**tokens).pooler_output
            hidden = clip.text_projection(clip.text_model(**tokens).last_hidden_state)
        torch.testing.assert_close(encoded.question[row], normalize(pooled, dim=-1)[0])
        real = encoded.tokens[row][encoded.mask[row]]
        torch.testing.assert_close(real, normalize(hidden, dim=-1)[0])


def test_selecting_picks_rows(tiny: Any) -> None:
    encoded = tiny.text_tower.encode(QUESTIONS)
    picked = encoded.select(torch.tensor([2, 2, 0]))
    assert len(picked) == 3
    assert torch.equal(picked.question, encoded.question[[2, 2, 0]])
    assert torch.equal(picked.tokens[2], encoded.tokens[0])
    assert torch.equal(picked.mask[1], encoded.mask[2])


def test_long_questions_are_read_in_chunks(tiny: Any) -> None:
    # 12 positions leave 10 words per chunk beside start and end.
    words = [f"w{index}" for index in range(13)]
    long = tiny.text_tower.encode([" ".join(words), "w1"])
    first = tiny.text_tower.encode([" ".join(words[:10])])
    second = tiny.text_tower.encode([" ".join(words[10:])])
    assert long.mask.sum(dim=1).tolist() == [17, 3]
    expected = torch.cat([first.tokens[0], second.tokens[0]])
    torch.testing.assert_close(long.tokens[0], expected)
    mean = (first.question[0] + second.question[0]) / 2
    torch.testing.assert_close(long.question[0], normalize(mean, dim=-1))


def test_the_tower_is_frozen(tiny: Any) -> None:
    encoded = tiny.text_tower.encode(QUESTIONS)
    assert not encoded.tokens.requires_grad
    assert not tiny.text_tower.visual_projection.weight.requires_grad


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"text tower '.*nowhere' cannot be loaded.*text_tower="):
        TextTower.load(tmp_path / "nowhere")


def test_a_damaged_checkpoint_is_named(tiny: Any, tmp_path: Path) -> None:
    shutil.copytree(tiny.clip_folder, tmp_path / "clip")
    (tmp_path / "clip" / "model.safetensors").write_bytes(b"half a file")
    with pytest.raises(ModelError, match=r"text tower '.*clip' cannot be loaded"):
        TextTower.load(tmp_path / "clip")


@pytest.mark.parametrize(
    ("part", "message"),
    [("text_model.encoder.layers.0.", "16 weights, "), ("visual_projection.", "1 weights, visual")],
)
def test_a_checkpoint_without_some_of_its_weights_is_refused(
    tiny: Any, tmp_path: Path, part: str, message: str
) -> None:
    copy_without(tiny.clip_folder, tmp_path / "clip", f"^{part}")
    with pytest.raises(ModelError, match=f"text tower '.*clip' lacks {message}"):
        TextTower.load(tmp_path / "clip")


def test_what_is_not_read_of_a_checkpoint_may_be_missing(tiny: Any, tmp_path: Path) -> None:
    copy_without(tiny.clip_folder, tmp_path / "clip", r"^vision_model\.")
    found = TextTower.load(tmp_path / "clip").encode(QUESTIONS)
    assert torch.equal(found.question, tiny.text_tower.encode(QUESTIONS).question)


def test_no_question_is_refused(tiny: Any) -> None:
    with pytest.raises(ModelError, match="no questions were given"):
        tiny.text_tower.encode([])
