"""Workers that are processes of this machine, one per accelerator where there are any."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from typing import Any

from search.evaluators import Evaluator
from search.workers.assignments import Order
from search.workers.pool import EvaluatorMaker

VISIBLE_DEVICES = "CUDA_VISIBLE_DEVICES"


class LocalWorker:
    """One spawned process.

    It has an executor of its own, as one that is killed makes its whole executor unusable.

    Args:
        make_evaluator: Makes its evaluator, in the process.
        environment: Environment variables to set there.
    """

    waits_for_place = False

    def __init__(self, make_evaluator: EvaluatorMaker, environment: Mapping[str, str]) -> None:
        self._executor = ProcessPoolExecutor(
            max_workers=1,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_settle_in,
            initargs=(dict(environment),),
        )
        others = set(multiprocessing.active_children())
        with _ctrl_c_held_back():  # which a starting interpreter would end at with a traceback
            self.ready: Future[str] = self._executor.submit(_load, make_evaluator)
        self.processes: Sequence[BaseProcess] = [
            child for child in multiprocessing.active_children() if child not in others
        ]

    def submit(self, order: Order) -> Future[Any]:
        """Begin to measure."""
        return self._executor.submit(_measure, order)

    def is_loss(self, error: BaseException) -> bool:
        """Whether an error says that the process is gone."""
        return isinstance(error, BrokenProcessPool)

    def end(self, *, at_once: bool) -> None:
        """End the process."""
        if at_once:
            for process in self.processes:
                process.kill()
        self._executor.shutdown(wait=True, cancel_futures=True)


def worker_environments(workers: int) -> list[dict[str, str]]:
    """Divide this machine among workers.

    Args:
        workers: How many there are.

    Returns:
        Environment variables of each: one accelerator, in turn, where there are any; and, unless
        the user has said how many, as many threads as it has of the processor cores that this
        process may use.
    """
    devices = _cuda_devices()
    threads = max(1, _cores() // workers)
    environments = []
    for number in range(workers):
        environment = {}
        if devices:
            environment[VISIBLE_DEVICES] = devices[number % len(devices)]
        if "OMP_NUM_THREADS" not in os.environ:
            environment["OMP_NUM_THREADS"] = str(threads)
        environments.append(environment)
    return environments


def _cores() -> int:
    """Processor cores that this process may use: in a job of a cluster, a part of the machine's."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1  # macOS binds no process to cores


def _cuda_devices() -> list[str]:
    """Names of the CUDA devices that this process may use."""
    if VISIBLE_DEVICES in os.environ:
        return [name for name in os.environ[VISIBLE_DEVICES].split(",") if name.strip()]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


_evaluators: list[Evaluator] = []
"""In a worker's process, its evaluator: an executor gives its process no other place for it."""


@contextmanager
def _ctrl_c_held_back() -> Iterator[None]:
    """Hold Ctrl-C back, here until the end, in processes started meanwhile until they settle in."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _settle_in(environment: Mapping[str, str]) -> None:
    """Prepare a worker's process; the model is loaded later."""
    os.environ.update(environment)
    # Ctrl-C reaches all processes of a terminal. The driver decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    threading.Thread(target=_end_with_driver, daemon=True).start()


def _end_with_driver() -> None:
    """End when the driver has ended, however it ended; nobody would wait for the answer."""
    driver = multiprocessing.parent_process()
    if driver is not None:
        driver.join()
        os._exit(1)


def _load(make_evaluator: EvaluatorMaker) -> str:
    _evaluators.append(make_evaluator())
    return _evaluators[-1].fingerprint


def _measure(order: Order) -> Any:
    return order.measure(_evaluators[-1])
