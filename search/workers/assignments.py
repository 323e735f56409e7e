"""What a worker is asked to measure, and what it answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pruners.schedule import Schedule
from search.evaluators import Evaluator, Probe, require_probing
from search.workers.mishaps import counting_no_numbers_as_wrong, naming_lack_of_memory


class Order(Protocol):
    """Anything that a worker can be asked to do; must be picklable."""

    def measure(self, evaluator: Evaluator) -> Any:
        """Do it with the worker's evaluator."""


Measured = NDArray[np.float64] | Probe
"""Scores of an assignment's samples, or probes of them, in the order asked."""


@dataclass(frozen=True)
class Assignment:
    """Samples to be measured under a schedule.

    Attributes:
        schedule: The schedule, with layers of the measured model's depth.
        split: Name of the samples' split.
        indices: Indices into the evaluator's samples of that split.
        probes: Whether to compare with the dense model too.
    """

    schedule: Schedule
    split: str
    indices: tuple[int, ...]
    probes: bool = False

    def measure(self, evaluator: Evaluator) -> Measured:
        """Do it.

        Args:
            evaluator: What measures.

        Returns:
            A probe if that was asked for, else scores.

        Raises:
            SettingsError: A probe was asked for and the evaluator does not probe.
            ModelError: Memory ran out.
            PrunetuneError: The evaluator cannot score the schedule.
        """
        with naming_lack_of_memory(str(self)):
            return counting_no_numbers_as_wrong(self._measured(evaluator), str(self))

    def _measured(self, evaluator: Evaluator) -> Measured:
        if not self.probes:
            return evaluator.score(self.schedule, self.split, self.indices)
        return require_probing(evaluator).probe(self.schedule, self.split, self.indices)

    def __str__(self) -> str:  # shown when workers are lost with it
        return (
            f"{len(self.indices)} samples of the {self.split} split under schedule "
            f"{self.schedule.content_hash[:12]}"
        )


@dataclass(frozen=True)
class Question:
    """What is to be worked out with a model, once, beside samples' scores.

    Attributes:
        ask: Works it out; must be picklable.
        about: What it is, for messages.
    """

    ask: Callable[[Evaluator], Any]
    about: str

    def measure(self, evaluator: Evaluator) -> Any:
        """Do it."""
        return self.ask(evaluator)

    def __str__(self) -> str:
        return self.about
