"""Workers that are actors of a Ray cluster, wherever it has room for a model."""

from __future__ import annotations

import logging
import os
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pruners.errors import SettingsError, WorkerError
from search.evaluators import Evaluator
from search.workers.assignments import Order
from search.workers.pool import EvaluatorMaker

if TYPE_CHECKING:
    from ray import ObjectRef

LOCAL = "local"
"""Address that starts a cluster of this machine alone, which ends with the program."""

_NAMESPACE = "prunetune"
_RUNNING_HERE = Path(tempfile.gettempdir()) / "ray" / "ray_current_cluster"
"""Where `ray start` notes the address of the cluster that this machine is part of."""

_REACHED_WITHIN = 10.0  # seconds


@dataclass(frozen=True)
class RayCluster:
    """A cluster that this process is connected to.

    Attributes:
        gpus_per_worker: GPUs that each worker is given.
        places: Workers that it has room for as far as it is now.
    """

    gpus_per_worker: float
    places: int

    @classmethod
    def connect(cls, address: str, gpus_per_worker: float | None) -> RayCluster:
        """Connect to a cluster.

        Args:
            address: ``"auto"`` for the one that this machine is part of, `LOCAL` for a new one, or
                an address as `ray.init` takes it.
            gpus_per_worker: GPUs of each worker; None for one where the cluster has any, else none.

        Returns:
            The cluster.

        Raises:
            SettingsError: Ray is not installed.
            WorkerError: The cluster cannot be reached.
        """
        # Ray asks whether it may report its use, unless told; this program reports nothing.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray
        except ImportError as error:
            raise SettingsError(
                "--ray-address needs the package ray; pip install 'prunetune[ray]'"
            ) from error
        _check_reachable(address)
        try:
            with _keeping_sigterm():
                ray.init(
                    address=address,
                    namespace=_NAMESPACE,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    include_dashboard=False if address == LOCAL else None,
                )
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise _unreachable(address, str(error).strip().partition("\n")[0]) from error
        available = ray.cluster_resources()
        gpus = available.get("GPU", 0.0)
        if gpus_per_worker is None:
            gpus_per_worker = 1.0 if gpus else 0.0
        places = int(gpus / gpus_per_worker) if gpus_per_worker else 1
        return cls(gpus_per_worker, max(1, places))

    def start_worker(self, make_evaluator: EvaluatorMaker) -> RayWorker:
        """Ask for a worker; it begins when the cluster has a place for it."""
        return RayWorker(make_evaluator, self.gpus_per_worker)

    def disconnect(self) -> None:
        """Leave the cluster; one that this process has started ends."""
        import ray

        ray.shutdown()


class RayWorker:
    """One actor.

    Args:
        make_evaluator: Makes its evaluator, in its process.
        gpus: GPUs that it is given, which no other worker gets; a share may be less than one.
    """

    waits_for_place = True

    def __init__(self, make_evaluator: EvaluatorMaker, gpus: float) -> None:
        import ray

        # Not restarted by Ray: the pool replaces it, and gives what it was doing to another first.
        remote = ray.remote(num_cpus=1, num_gpus=gpus, max_restarts=0)(_Measurer)
        self._actor: Any = remote.remote(make_evaluator)
        self.ready: Future[str] = _answer(self._actor.load.remote)

    def submit(self, order: Order) -> Future[Any]:
        """Begin to measure."""
        return _answer(self._actor.measure.remote, order)

    def is_loss(self, error: BaseException) -> bool:
        """Whether an error says that the actor is gone, or its machine."""
        from ray.exceptions import RayError

        # What the evaluator raises has been taken out of Ray's wrapping.
        return isinstance(error, RayError)

    def end(self, *, at_once: bool) -> None:
        """End the actor."""
        import ray

        ray.kill(self._actor)


class _Measurer:
    """What runs in the actor."""

    def __init__(self, make_evaluator: EvaluatorMaker) -> None:
        self._make_evaluator = make_evaluator
        self._evaluator: Evaluator | None = None

    def load(self) -> str:
        """Make the evaluator; not earlier, as errors then would be the actor's death."""
        self._evaluator = self._make_evaluator()
        return self._evaluator.fingerprint

    def measure(self, order: Order) -> Any:
        """Measure."""
        assert self._evaluator is not None  # loaded first
        return order.measure(self._evaluator)


@contextmanager
def _keeping_sigterm() -> Iterator[None]:
    """Keep what SIGTERM does: Ray would have it end the program at once, with a stack trace."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) is not handler:  # it is set in the main thread only
            signal.signal(signal.SIGTERM, handler)


def _check_reachable(address: str) -> None:
    """Refuse an address where nobody listens: Ray itself would try for many minutes."""
    if address == LOCAL:
        return
    known = address
    if address == "auto":
        known = os.environ.get("RAY_ADDRESS", "")
        if not known and _RUNNING_HERE.exists():
            known = _RUNNING_HERE.read_text().strip()
    host, _, port = known.removeprefix("ray://").rpartition(":")
    if not port.isdigit():
        return  # for Ray to judge
    try:
        socket.create_connection((host, int(port)), timeout=_REACHED_WITHIN).close()
    except OSError as error:
        raise _unreachable(address, f"{known}: {error.strerror or error}") from error


def _unreachable(address: str, reason: str) -> WorkerError:
    return WorkerError(
        f"--ray-address {address}: there is no Ray cluster to connect to ({reason}); start one "
        "with `ray start --head`, or use 'local'"
    )


def _answer(call: Callable[..., ObjectRef[Any]], *arguments: Any) -> Future[Any]:
    """Call an actor; errors of what it runs come as they were raised."""
    answer: Future[Any] = Future()

    def pass_on(done: Future[Any]) -> None:
        from ray.exceptions import RayTaskError

        error = done.exception()
        if error is None:
            answer.set_result(done.result())
        elif isinstance(error, RayTaskError) and isinstance(error.cause, BaseException):
            answer.set_exception(error.cause)
        else:
            answer.set_exception(error)

    call(*arguments).future().add_done_callback(pass_on)
    return answer
