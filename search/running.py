"""From checked settings to a finished run."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING

from pruners.errors import PrunetuneError
from search.display import Display
from search.settings import CommandSettings
from studies.terminal import console

if TYPE_CHECKING:
    from search.planning import Plan
    from studies.storage import StudyFolder
    from studies.storage_address import StorageAddress


def run_settings(settings: CommandSettings, command: str) -> int:
    """Run what the settings ask for.

    Args:
        settings: Checked settings.
        command: The command line, for provenance.

    Returns:
        Exit status: 0 when done, 128 + signal when interrupted.

    Raises:
        PrunetuneError: The run is refused, or fails.
    """
    # Imported late, so that --help and wrong values need none of it.
    from search.planning import make_plan

    plan = make_plan(settings)
    display = Display(console(), quiet=settings.quiet)
    if settings.dry_run:
        from search.explaining import explain
        from studies.storage import StudyFolder

        _quieten_optuna()
        continued = StudyFolder.check(plan.folder, plan.identity, settings.storage)
        explain(plan, settings.search, display, continued=continued)
        return 0
    with _opened(plan, settings.storage) as folder:
        from search.interruption import Interruption
        from search.job import Job
        from search.model_choice import make_evaluator
        from search.workers.starting import start_workers
        from studies.trial_storage import storage_errors

        _quieten_optuna()
        maker = partial(make_evaluator, plan.choice, settings.tasks, settings.search.seed)
        with (
            storage_errors(folder.trials_in, settings.storage),
            Interruption() as interruption,
            start_workers(settings.workers, maker, plan.evaluator) as pool,
        ):
            Job(plan, settings.search, folder, display, interruption, command, pool).run()
        return interruption.exit_status


@contextmanager
def _opened(plan: Plan, storage: StorageAddress | None) -> Iterator[StudyFolder]:
    """Hold the study's folder; a new study that ends before anything is measured leaves none.

    The command that mends what was wrong, a device or a mistyped option, may be another study's.
    """
    from studies.deleting import delete_study
    from studies.storage import StudyFolder

    is_worthless = False
    try:
        with StudyFolder.open(plan.folder, plan.identity, storage) as folder:
            try:
                yield folder
            except (PrunetuneError, KeyboardInterrupt):
                is_worthless = not folder.continued and folder.scores.is_empty
                raise
    finally:
        if is_worthless:
            with suppress(PrunetuneError):  # what is said is why the run failed
                delete_study(plan.folder, None if storage is None else storage.url)


def _quieten_optuna() -> None:
    """Leave the terminal to this program: Optuna prints as it works."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # Optuna asks for heartbeats in its own loop only; ours are given by `TrialStorage.keep_alive`.
    warnings.filterwarnings("ignore", message="Heartbeat of storage", category=UserWarning)
