"""From checked settings to a finished run."""

from __future__ import annotations

import warnings
from functools import partial

from search.display import Display
from search.settings import CommandSettings
from studies.terminal import console


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
    from studies.storage import StudyFolder

    plan = make_plan(settings)
    display = Display(console(), quiet=settings.quiet)
    if settings.dry_run:
        from search.explaining import explain

        _quieten_libraries()
        continued = StudyFolder.check(plan.folder, plan.identity, settings.storage)
        explain(plan, settings.search, display, continued=continued)
        return 0
    with StudyFolder.open(plan.folder, plan.identity, settings.storage) as folder:
        from search.interruption import Interruption
        from search.job import Job
        from search.model_choice import make_evaluator
        from search.workers.starting import start_workers
        from studies.trial_storage import storage_errors

        _quieten_libraries()
        maker = partial(make_evaluator, plan.choice, settings.tasks, settings.search.seed)
        with (
            storage_errors(folder.trials_in, settings.storage),
            Interruption() as interruption,
            start_workers(settings.workers, maker, plan.evaluator) as pool,
        ):
            Job(plan, settings.search, folder, display, interruption, command, pool).run()
        return interruption.exit_status


def _quieten_libraries() -> None:
    """Leave the terminal to this program: Optuna and transformers print as they work."""
    import optuna
    from transformers.utils.logging import disable_progress_bar

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # Optuna asks for heartbeats in its own loop only; ours are given by `TrialStorage.keep_alive`.
    warnings.filterwarnings("ignore", message="Heartbeat of storage", category=UserWarning)
    disable_progress_bar()
