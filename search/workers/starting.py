"""From settings to workers."""

from __future__ import annotations

from search.evaluators import Evaluator
from search.workers.pool import EvaluatorMaker, OwnProcess, WorkerPool
from search.workers.settings import WorkerSettings
from search.workers.supervision import DEFAULT_PATIENCE, SupervisedPool


def start_workers(
    settings: WorkerSettings, make_evaluator: EvaluatorMaker, evaluator: Evaluator
) -> WorkerPool:
    """Start whoever shall measure.

    Args:
        settings: How many, and where.
        make_evaluator: Makes the evaluator of each worker, in its process.
        evaluator: The same evaluator in this process; its weights are not loaded by workers.

    Returns:
        The workers; to be closed.

    Raises:
        PrunetuneError: They cannot be started.
    """
    if settings.in_own_process:
        return OwnProcess(evaluator)
    fingerprint, patience = evaluator.fingerprint, settings.patience or DEFAULT_PATIENCE
    if settings.ray_address is not None:
        from search.workers.on_ray import RayCluster

        cluster = RayCluster.connect(settings.ray_address, settings.gpus)
        return SupervisedPool(
            lambda number: cluster.start_worker(make_evaluator),
            settings.number or cluster.places,
            fingerprint,
            patience,
            on_close=cluster.disconnect,
        )
    from search.workers.local import LocalWorker, worker_environments

    environments = worker_environments(settings.number or 1)
    return SupervisedPool(
        lambda number: LocalWorker(make_evaluator, environments[number]),
        len(environments),
        fingerprint,
        patience,
    )
