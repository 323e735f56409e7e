"""A Ray cluster for tests: real processes on this machine, nodes that come and go."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

_MEGABYTE = 1 << 20


class RayNodes:
    """A cluster whose first node has no room for workers."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self._cluster = Cluster(initialize_head=True, head_node_args=_arguments(0))
        self._nodes: list[Any] = []

    @property
    def address(self) -> str:
        """Where programs connect to."""
        return str(self._cluster.address)

    def join(self, workers: int) -> None:
        """Let a node join that has room for so many workers."""
        self._nodes.append(self._cluster.add_node(**_arguments(workers)))

    def leave(self) -> None:
        """Kill the node that joined last."""
        self._cluster.remove_node(self._nodes.pop(), allow_graceful=False)

    def worker_processes(self) -> list[int]:
        """List the processes of all actors that measure."""
        found = []
        for node in self._nodes:
            raylet = node.all_processes["raylet"][0].process.pid
            for child in _children(raylet):
                title = Path(f"/proc/{child}/cmdline").read_bytes()
                if title.startswith(b"ray::_Measurer"):
                    found.append(child)
        return found

    def kill_worker(self) -> int:
        """Kill one process that measures, and return its number."""
        process = self.worker_processes()[0]
        os.kill(process, signal.SIGKILL)
        return process

    def close(self) -> None:
        """End all processes."""
        self._cluster.shutdown()


@contextmanager
def ray_nodes(*workers: int) -> Iterator[RayNodes]:
    """Start a cluster with nodes that have room for so many workers each."""
    helpers = str(Path(__file__).parent)
    path = os.environ.get("PYTHONPATH")
    changes = {
        "RAY_USAGE_STATS_ENABLED": "0",
        # Actors import evaluators of tests from here.
        "PYTHONPATH": helpers if path is None else f"{helpers}{os.pathsep}{path}",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in changes.items():
            patch.setenv(name, value)
        nodes = RayNodes()
        try:
            for number in workers:
                nodes.join(number)
            yield nodes
        finally:
            nodes.close()


def _arguments(workers: int) -> dict[str, Any]:
    return {
        "num_cpus": workers,
        "num_gpus": 0,
        "object_store_memory": 80 * _MEGABYTE,
        "include_dashboard": False,
    }


def _children(process: int) -> list[int]:
    tasks = Path(f"/proc/{process}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]
