"""A training loop that is bounded in time or steps and continues after a kill."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from pruners.atomic import atomic_path

Loss = Callable[[np.random.Generator], tuple[Tensor, dict[str, float]]]

_WARM_UP_STEPS = 100
_FINAL_SHARE = 0.02
_SMOOTHING = 0.95


@dataclass(frozen=True)
class StageSettings:
    """How one stage is trained.

    Attributes:
        name: Name of its files.
        minutes: Longest training time in minutes, over all runs together; None for no limit.
        steps: Largest number of steps; None for no limit. At least one limit is needed.
        learning_rate: Highest learning rate; it rises for 100 steps and then falls as a cosine.
        weight_decay: AdamW's weight decay, default 0.01.
        save_seconds: Seconds between saves, default 60.
        log_steps: Steps between log lines, default 50.
    """

    name: str
    minutes: float | None
    steps: int | None
    learning_rate: float
    weight_decay: float = 0.01
    save_seconds: float = 60.0
    log_steps: int = 50

    def progress(self, step: int, seconds: float) -> float:
        """Return which share of the stage is done, from 0 to 1."""
        by_time = seconds / (60 * self.minutes) if self.minutes else 0.0
        by_steps = step / self.steps if self.steps else 0.0
        return min(1.0, max(by_time, by_steps))


@dataclass
class StageState:
    """How far a stage has come."""

    step: int = 0
    seconds: float = 0.0
    done: bool = False


def save_state(
    path: Path,
    modules: Mapping[str, nn.Module],
    optimiser: torch.optim.Optimizer,
    state: StageState,
) -> None:
    """Write everything needed to continue, replacing the old file only when it is complete."""
    content = {
        "modules": {name: module.state_dict() for name, module in modules.items()},
        "optimiser": optimiser.state_dict(),
        "state": vars(state),
    }
    with atomic_path(path) as temporary:
        torch.save(content, temporary)


def restore_state(
    path: Path, modules: Mapping[str, nn.Module], optimiser: torch.optim.Optimizer | None
) -> StageState:
    """Read what ``save_state`` wrote; return where the stage stands, its start without a file."""
    if not path.exists():
        return StageState()
    content = torch.load(path, map_location="cpu", weights_only=True)
    for name, module in modules.items():
        module.load_state_dict(content["modules"][name])
    if optimiser is not None:
        optimiser.load_state_dict(content["optimiser"])
    return StageState(**content["state"])


def train_stage(
    settings: StageSettings,
    modules: Mapping[str, nn.Module],
    loss: Loss,
    folder: Path,
    seed: int,
    report: Callable[[dict[str, float]], None],
    on_save: Callable[[StageState], None] | None = None,
) -> StageState:
    """Train until the first limit is reached, continuing where an earlier run was cut off.

    The random numbers of a step depend on seed and step alone. With a limit in steps and one thread
    a continued run gives what an uninterrupted one gives; a limit in time depends on the machine.

    Args:
        settings: Limits and learning rate.
        modules: What is trained, by name.
        loss: Returns the loss and its parts, given the step's random numbers.
        folder: Where ``<name>.pt`` and ``<name>.jsonl`` (the log) are kept.
        seed: Seed of the training run.
        report: Called with every log entry.
        on_save: Called after every save, default nothing.

    Returns:
        Where the stage stands, which is at its end.
    """
    path, log = folder / f"{settings.name}.pt", folder / f"{settings.name}.jsonl"
    parameters = [p for module in modules.values() for p in module.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(
        parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay, betas=(0.9, 0.98)
    )
    state = restore_state(path, modules, optimiser)
    for module in modules.values():
        module.train()
    averages: dict[str, float] = {}
    last_save = last_time = time.monotonic()
    while not state.done:
        progress = settings.progress(state.step, state.seconds)
        decay = max(_FINAL_SHARE, 0.5 * (1 + math.cos(math.pi * progress)))
        rate = settings.learning_rate * min(1.0, (state.step + 1) / _WARM_UP_STEPS) * decay
        for group in optimiser.param_groups:
            group["lr"] = rate
        rng = np.random.default_rng([seed, *settings.name.encode(), state.step])
        value, parts = loss(rng)
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(value)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        for name, part in parts.items():
            averages[name] = _SMOOTHING * averages.get(name, part) + (1 - _SMOOTHING) * part
        state.step += 1
        now = time.monotonic()
        state.seconds += now - last_time
        last_time = now
        progress = settings.progress(state.step, state.seconds)
        state.done = progress >= 1
        if state.step % settings.log_steps == 0 or state.done:
            left = state.seconds * (1 / progress - 1) if progress else math.nan
            entry = {
                "step": state.step,
                "seconds": round(state.seconds, 1),
                "seconds_left": round(left, 1),
                **{name: round(average, 4) for name, average in averages.items()},
            }
            with log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
            report(entry)
        if state.done or now - last_save >= settings.save_seconds:
            save_state(path, modules, optimiser, state)
            last_save = time.monotonic()
            if on_save is not None:
                on_save(state)
    return state
