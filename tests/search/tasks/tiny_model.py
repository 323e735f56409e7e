"""A tiny LLaVA that answers one of a few words, so that benchmarks can score it."""

from __future__ import annotations

import json
from pathlib import Path

from tests.pruners.families import parts
from tests.pruners.families.llava import build_llava
from tests.search.tasks.rows import ANSWERS


def build_answering_llava(folder: Path) -> Path:
    """Save a checkpoint and its CLIP tower to ``folder/model`` and ``folder/clip``."""
    build_llava(folder)
    renamed = dict(zip(parts.WORDS[-len(ANSWERS) :], ANSWERS, strict=True))
    for place in (folder / "model", folder / "clip"):
        path = place / "tokenizer.json"
        tokenizer = json.loads(path.read_text())
        words = tokenizer["model"]["vocab"]
        tokenizer["model"]["vocab"] = {
            renamed.get(word, word): token for word, token in words.items()
        }
        path.write_text(json.dumps(tokenizer))
    path = folder / "model" / "generation_config.json"
    generation = json.loads(path.read_text())
    first = len(parts.WORDS) - len(ANSWERS)
    generation["suppress_tokens"] = list(range(first))
    path.write_text(json.dumps(generation))
    return folder
