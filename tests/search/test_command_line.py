from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from search.command_line import run

PROGRAM = Path(__file__).parents[2] / "search" / "run.py"
HEAVY = ("torch", "transformers", "optuna", "seaborn", "matplotlib", "sklearn", "scipy", "pandas")

WRONG = {
    "no budget": ("", "--budget-tflops 2"),
    "budget without a number": ("--budget-tflops two", "two"),
    "share as TFLOPs": ("--budget-tflops 22%", "'22%': expected a number"),
    "budgets between commas": ("--budget-tflops 1,2", "several with spaces between"),
    "so many budgets that they name no folder": (
        "--budget-tflops " + " ".join(f"{2 + number / 100:.2f}" for number in range(25)),
        "name it with --study",
    ),
    "a cache without end": (
        "--budget-tflops 2 --tasks gqa --model a/b --cache-gigabytes inf",
        "--cache-gigabytes is inf",
    ),
    "all GPUs there are": (
        "--budget-tflops 2 --ray-address local --worker-gpus inf",
        "--worker-gpus is inf",
    ),
    "negative budget": ("--budget-tflops -2", "positive"),
    "budget below the cheapest": ("--budget-tflops 0.01", "below the cheapest"),
    "budget above dense": ("--budget-tflops 100", "above the dense cost"),
    "unknown unit": ("--budget 3lightyears", "lightyears"),
    "same budget twice": ("--budget-tflops 2 2.0", "given twice"),
    "same budget in two units": (  # which differ in the last bit of a float
        "--budget-tflops 2.3 --budget 2300GFLOPs",
        "the budget 2.3 TFLOPs was given twice",
    ),
    "too many stages": ("--budget-tflops 2 --stages 5", "--stages is 5"),
    "unknown space": ("--budget-tflops 2 --space small", "--space is 'small'"),
    "unknown strategy": (
        "--budget-tflops 2 --strategy best",
        "--strategy is 'best': expected one of adaptive",
    ),
    "no trials": ("--budget-tflops 2 --trials 0", "--trials is 0"),
    "negative timeout": ("--budget-tflops 2 --timeout -1", "--timeout is -1"),
    "seed that is no number": ("--budget-tflops 2 --seed x", "--seed"),
    "study outside the folder": ("--budget-tflops 2 --study ../x", "--study is '../x'"),
    "model without tasks": ("--budget-tflops 2 --model llava-hf/llava-1.5-7b-hf", "--target"),
    "missing model folder": ("--budget-tflops 2 --model ./nowhere", "no such folder"),
    "missing target folder": ("--budget-tflops 2 --target nowhere", "no such preset or folder"),
    "benchmark options without benchmarks": (
        "--budget-tflops 2 --model embedded --search-samples 50 --device cuda",
        "--search-samples, --device",
    ),
    "benchmark data without benchmarks": (
        "--budget-tflops 2 --task-data gqa=rows",
        "--task-data: only models that are measured with --tasks",
    ),
    "unknown option": ("--budget-tflops 2 --frobnicate", "--frobnicate"),
    "option without value": ("--budget-tflops", "--budget-tflops"),
}


@pytest.mark.parametrize(("arguments", "named"), WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_is_named_on_stderr_with_status_2_and_nothing_is_written(
    arguments: str,
    named: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(arguments.split()) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert named in output.err
    assert "Traceback" not in output.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["--help"], 0),
        (["--budget-tflops", "0.01"], 2),
        (["--budget-tflops", "2", "--model", "a/b"], 2),
        (["--budget-tflops", "2", "--out", __file__], 2),  # a file, not a folder
    ],
)
def test_help_and_errors_import_nothing_heavy(
    arguments: list[str], status: int, tmp_path: Path
) -> None:
    # As python search/run.py does it, without an installed package.
    source = (
        "import runpy, sys\n"
        f"sys.argv = ['run.py', *{arguments!r}]\n"
        f"sys.path.insert(0, {str(PROGRAM.parent)!r})\n"
        "try:\n"
        f"    runpy.run_path({str(PROGRAM)!r}, run_name='__main__')\n"
        "except SystemExit as end:\n"
        f"    heavy = sorted(set({HEAVY!r}) & set(sys.modules))\n"
        "    print('STATUS', end.code, heavy)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", source], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert f"STATUS {status} []" in ended.stdout


def test_help_names_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    shown = capsys.readouterr().out
    for option in (
        *("--budget-tflops", "--budget", "--model", "--target", "--stages", "--space"),
        *(
            "--strategy",
            "--trials",
            "--timeout",
            "--seed",
            "--study",
            "--out",
            "--dry-run",
            "--quiet",
        ),
    ):
        assert option in shown
