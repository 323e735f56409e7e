"""Nothing that a folder brings along is executed, and no one is asked whether it should be."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig

from pruners import questions
from pruners.errors import PrunetuneError
from pruners.text_tower import TextTower
from search.embedded import CHECKPOINT
from search.tasks.live_model import load_live_model, load_processor
from space import shape_from_pretrained, text_tower_shape

ROOT = Path(__file__).parents[2]
AUTO = (
    "AutoConfig", "AutoModel", "AutoModelForImageTextToText", "AutoProcessor", "AutoTokenizer",
    "AutoImageProcessor", "loader",
)  # fmt: skip


class _Runs:
    """Unpickled, it writes a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, (str(self._path),)


@pytest.fixture
def trap(tmp_path: Path) -> Path:
    """Where a folder's code would leave a trace."""
    return tmp_path / "executed"


@pytest.fixture
def folder(tmp_path: Path, trap: Path) -> Path:
    """A checkpoint whose files ask for code beside them to be run."""
    made = tmp_path / "model"
    shutil.copytree(CHECKPOINT, made)
    (made / "evil.py").write_text(f"import os\nos.mkdir({str(trap)!r})\n")
    classes = ("AutoConfig", "AutoModel", "AutoModelForImageTextToText", "AutoProcessor")
    others = ("AutoTokenizer", "AutoImageProcessor")
    for file in made.rglob("*.json"):
        values = json.loads(file.read_text())
        if file.name.endswith("config.json") and isinstance(values, dict):
            values["auto_map"] = dict.fromkeys((*classes, *others), "evil.Evil")
            values["model_type"] = "evil" if "model_type" in values else None
            values["trust_remote_code"] = True
            file.write_text(json.dumps(values))
    shutil.copy(made / "evil.py", made / "clip" / "evil.py")
    return made


@pytest.mark.parametrize(
    "load",
    [
        shape_from_pretrained,
        text_tower_shape,
        lambda folder: text_tower_shape(folder / "clip"),
        lambda folder: load_live_model(str(folder), device="cpu", dtype="auto"),
        lambda folder: TextTower.load(folder / "clip"),
    ],
    ids=["shape", "tower shape", "CLIP's shape", "model", "text tower"],
)
def test_code_beside_a_model_is_not_run(
    load: Callable[[Path], object], folder: Path, trap: Path
) -> None:
    with contextlib.suppress(PrunetuneError):  # some read on without the code
        load(folder)
    assert not trap.exists()


def test_code_beside_a_processor_is_not_run(folder: Path, trap: Path) -> None:
    with contextlib.suppress(ValueError, OSError):
        load_processor(str(folder))
    assert not trap.exists()


def test_the_trap_shuts_where_code_is_trusted(folder: Path, trap: Path) -> None:
    with contextlib.suppress(Exception):
        AutoConfig.from_pretrained(folder, trust_remote_code=True)
    assert trap.exists()


def test_pickled_weights_are_not_run(tmp_path: Path, trap: Path) -> None:
    made = tmp_path / "clip"
    shutil.copytree(CHECKPOINT / "clip", made)
    (made / "model.safetensors").unlink()
    (made / "pytorch_model.bin").write_bytes(pickle.dumps(_Runs(trap)))
    with pytest.raises(PrunetuneError, match="cannot be loaded"):
        TextTower.load(made)
    assert not trap.exists()


def test_every_loader_that_could_run_code_says_that_it_must_not() -> None:
    calls = [
        (path, call)
        for part in ("pruners", "space", "search", "studies")
        for path in (ROOT / part).rglob("*.py")
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and call.func.attr == "from_pretrained"
        and isinstance(call.func.value, ast.Name)
        and call.func.value.id in AUTO
    ]
    assert {path.name for path, _ in calls} >= {Path(questions.__file__).name, "loading.py"}
    for path, call in calls:
        given = {word.arg: word.value for word in call.keywords}.get("trust_remote_code")
        assert isinstance(given, ast.Constant), f"{path}:{call.lineno}"
        assert given.value is False
