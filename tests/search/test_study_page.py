"""What a run leaves behind to look at, whether or not its model has images."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from search.analytic import AnalyticEvaluator
from search.command_line import run
from search.embedded import CHECKPOINT
from search.embedded_evaluator import EmbeddedEvaluator
from search.study_page import PAGE_FILE, shown_schedules, write_study_page
from space.budgets import parse_budget
from space.coding import SearchSpace
from studies.kept_tokens import GALLERY_FILE, read_gallery
from studies.reading import read_study


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs")
    arguments = ["--model", "analytic", "--budget-tflops", "2", "3", "--trials", "8"]
    assert run([*arguments, "--strategy", "random", "--out", str(out), "--study", "a"]) == 0
    return out / "a"


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "a"))


def spaces_of(folder: Path) -> list[SearchSpace]:
    study = read_study(folder)
    return [
        SearchSpace(study.identity.shape, parse_budget(budget), decoder_stages=3, layer_step=4)
        for budget in study.identity.budgets
    ]


def test_a_run_says_where_its_page_is_and_the_page_why_it_has_no_gallery(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--model", "analytic", "--budget-tflops", "2", "--trials", "4"]
    assert run([*arguments, "--out", str(tmp_path), "--study", "b"]) == 0
    assert f"Report: {tmp_path / 'b' / PAGE_FILE}" in capsys.readouterr().out.splitlines()
    page = (tmp_path / "b" / PAGE_FILE).read_text()
    assert "Kept tokens cannot be shown: what was measured has no images (a synthetic" in page
    assert not (tmp_path / "b" / GALLERY_FILE).exists()


def test_the_gallery_compares_with_the_best_published_schedule(folder: Path) -> None:
    study = read_study(folder)
    chosen = shown_schedules(study, spaces_of(folder))
    assert list(chosen) == ["2 TFLOPs", "3 TFLOPs"]
    for stored in study.budgets:
        assert stored.result is not None
        accuracies = {
            one.name: one.evidence.relative_accuracy
            for one in stored.result.schedules
            if one.name not in ("searched", "dense")
        }
        own, best = chosen[stored.budget].items()
        assert own == ("searched", stored.schedule)
        assert accuracies[best[0]] == max(accuracies.values())
        assert best[1].cost is not None
        assert best[1].cost.tflops == stored.result.schedule(best[0]).tflops


def test_the_embedded_models_gallery_is_on_the_page_and_in_its_file(folder: Path) -> None:
    write_study_page(folder, EmbeddedEvaluator(), spaces_of(folder))
    gallery = read_gallery(folder / GALLERY_FILE)
    page = (folder / PAGE_FILE).read_text()
    assert len(gallery.samples) == 6
    for sample in gallery.samples:
        assert sample.question in page
        assert [(kept.budget, kept.schedule == "searched") for kept in sample.kept] == [
            ("2 TFLOPs", True),
            ("2 TFLOPs", False),
            ("3 TFLOPs", True),
            ("3 TFLOPs", False),
        ]
    write_study_page(folder, AnalyticEvaluator(), spaces_of(folder))
    assert not (folder / GALLERY_FILE).exists()  # it showed another model's samples


def test_a_model_that_cannot_be_loaded_is_said_on_the_page(folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "checkpoint"
    shutil.copytree(CHECKPOINT, broken, ignore=shutil.ignore_patterns("*.safetensors"))
    path = write_study_page(folder, EmbeddedEvaluator(checkpoint=broken), spaces_of(folder))
    assert "Kept tokens cannot be shown: the embedded model in" in path.read_text()


def test_an_interrupted_run_does_not_wait_for_a_gallery(folder: Path) -> None:
    path = write_study_page(folder, EmbeddedEvaluator(), spaces_of(folder), interrupted=True)
    assert "interrupted before kept tokens were recorded" in path.read_text()
    assert not (folder / GALLERY_FILE).exists()
