"""Preset shapes, shapes read from folders, and what importing costs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import CLIPConfig, CLIPVisionConfig, LlamaConfig, LlavaConfig

from pruners.errors import ModelError, UnsupportedModelError
from pruners.shape import TextTowerShape
from space import preset, shape_from_pretrained, text_tower_shape

VISION = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
    "projection_dim": 768,
}


@pytest.mark.parametrize(
    ("name", "decoder"),
    [
        ("llava-1.5-7b", {}),
        (
            "llava-1.5-13b",
            {
                "hidden_size": 5120,
                "intermediate_size": 13824,
                "num_hidden_layers": 40,
                "num_attention_heads": 40,
            },
        ),
    ],
)
def test_presets_are_the_published_configurations(
    name: str, decoder: dict[str, int], tmp_path: Path
) -> None:
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**VISION), text_config=LlamaConfig(**decoder)
    )
    config.save_pretrained(tmp_path)
    found = shape_from_pretrained(tmp_path, text_tower=preset(name).text_tower)
    assert found.model_copy(update={"name": name}) == preset(name)
    assert found.name == str(tmp_path)


def test_llava_next_has_five_tiles_of_576_and_48_newlines() -> None:
    shape = preset("llava-next-7b")
    assert shape.visual_tokens == shape.tiles * shape.vision.patches == 2880
    assert shape.visual_tokens + shape.newline_tokens == 2928


def test_an_unknown_preset_lists_those_there_are() -> None:
    with pytest.raises(UnsupportedModelError, match=r"'llama'.*llava-1\.5-7b, llava-1\.5-13b"):
        preset("llama")


def test_the_text_tower_is_read_off_its_checkpoint(tmp_path: Path) -> None:
    text = {
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
    }
    CLIPConfig(text_config=text, projection_dim=40).save_pretrained(tmp_path)
    expected = TextTowerShape(
        layers=3,
        hidden_size=48,
        intermediate_size=96,
        attention_heads=4,
        projection_size=40,
        tokens=30,
    )
    assert text_tower_shape(tmp_path) == expected


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"config\.json.*model folder"):
        shape_from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("[1, 2]")
    with pytest.raises(ModelError, match="expected a JSON object"):
        shape_from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelError, match="cannot read"):
        shape_from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(UnsupportedModelError, match="'bert'"):
        shape_from_pretrained(tmp_path)
    with pytest.raises(ModelError, match="expected that of a CLIP model"):
        text_tower_shape(tmp_path)


def test_pricing_needs_neither_torch_nor_transformers(tmp_path: Path) -> None:
    """Also when the shape is read from a folder."""
    LlavaConfig(
        vision_config=CLIPVisionConfig(**VISION), text_config=LlamaConfig()
    ).save_pretrained(tmp_path)
    program = (
        "import sys, space, pruners\n"
        f"shape = space.shape_from_pretrained({str(tmp_path)!r}, text_tower="
        "space.preset('llava-1.5-7b').text_tower)\n"
        "budget = space.parse_budget('2')\n"
        "space.project(pruners.published('visiondrop', 64), shape, budget)\n"
        "print([name for name in ('torch', 'transformers') if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
