"""From settings to workers."""

from __future__ import annotations

from search.evaluators import Evaluator
from search.workers.pool import EvaluatorMaker, OwnProcess, WorkerPool
from search.workers.settings import WorkerSettings


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
    if settings.number is None:
        return OwnProcess(evaluator)
    from search.workers.local import LocalWorker, worker_environments
    from search.workers.supervision import SupervisedPool

    environments = worker_environments(settings.number)
    return SupervisedPool(
        lambda number: LocalWorker(make_evaluator, environments[number]),
        settings.number,
        evaluator.fingerprint,
        settings.patience,
    )
