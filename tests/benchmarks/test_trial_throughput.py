"""The throughput benchmark runs, and its ways measure the same samples."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "trial_throughput.py"


@pytest.mark.slow
@pytest.mark.skipif(find_spec("lmms_eval") is None, reason="extra: lmms-eval")
def test_every_way_is_timed_and_the_parts_add_up(tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    command = [sys.executable, str(SCRIPT), "--samples", "40", "--trials", "2", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    figures = json.loads(out.read_text())
    assert set(figures["seconds"]) == {"plain", "one model", "prunetune"}
    assert all(len(values) == 2 for values in figures["seconds"].values())
    assert sum(figures["parts"].values()) == pytest.approx(1)
    for accuracies in zip(*figures["accuracies"].values(), strict=True):
        assert accuracies == pytest.approx([accuracies[0]] * 3, abs=1e-4)
    assert "trials per hour" in done.stdout
