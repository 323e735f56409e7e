"""The commands that are run."""

from __future__ import annotations

ANALYTIC = ("--model", "analytic")
FRONT = [*ANALYTIC, "--budget-tflops", "2", "4", "--study", "front", "--trials"]
