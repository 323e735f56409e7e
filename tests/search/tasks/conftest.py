from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from search.tasks.evaluator import TaskEvaluator
    from tests.search.tasks.making import Make

MODULES = ("lmms_eval", "datasets", "accelerate", "loguru", "tenacity", "decord")
MISSING = [name for name in MODULES if find_spec(name) is None]

NEED_THE_EXTRA = (
    "test_loading",
    "test_tasks_search",
    "test_task_evaluator",
    "test_evaluator_splits",
    "test_evaluator_answers",
    "test_evaluator_failures",
    "test_generation",
    "test_viewing",
)


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leave out the tests that need lmms-eval where it is not installed."""
    return True if MISSING and collection_path.stem in NEED_THE_EXTRA else None


@pytest.fixture(scope="session", autouse=True)
def _own_cache_of_datasets(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Rows are copied into a cache, which is not the user's."""
    if not MISSING:
        import datasets

        datasets.config.HF_DATASETS_CACHE = tmp_path_factory.mktemp("datasets")
        datasets.disable_progress_bars()


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny model, ``model``, and its CLIP checkpoint, ``clip``."""
    from tests.search.tasks.tiny_model import build_answering_llava

    return build_answering_llava(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="session")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of local rows, by task."""
    from tests.search.tasks.rows import MAKERS, write_rows

    folder = tmp_path_factory.mktemp("rows")
    return {task: write_rows(task, folder / task) for task in MAKERS}


@pytest.fixture
def make(checkpoint: Path, rows: dict[str, Path], tmp_path: Path) -> Make:
    """Makes an evaluator of the tiny model on tasks, by default with few samples."""
    from search.tasks.evaluator import TaskEvaluator
    from search.tasks.settings import TaskSettings

    def make(*names: str, **settings: Any) -> TaskEvaluator:
        chosen = {
            "search_samples": 24,
            "confirm_samples": 10,
            "report_samples": 10,
            "max_new_tokens": 1,
            "cache": tmp_path / "cache",
            "text_tower": str(checkpoint / "clip"),
            **settings,
        }
        data = {name: rows[name] for name in names}
        return TaskEvaluator(
            str(checkpoint / "model"), TaskSettings(names=names, data=data, **chosen)
        )

    return make
