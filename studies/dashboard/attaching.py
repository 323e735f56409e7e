"""Notes and artifacts of a study, written to its Optuna storage for the dashboard to show."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pruners.errors import StudyError
from studies.dashboard.notes import OURS, study_note, trial_note
from studies.file_names import scores_file
from studies.kept_tokens import find_gallery
from studies.plots import write_figures
from studies.reading import StoredBudget, StoredStudy
from studies.trial_access import find_optuna_study

if TYPE_CHECKING:
    import optuna
    from optuna.artifacts import FileSystemArtifactStore

ARTIFACTS_FOLDER = "artifacts"
"""Folder of a study that keeps what is attached to it."""


def attach(study: StoredStudy, storage: optuna.storages.RDBStorage) -> FileSystemArtifactStore:
    """Write a study's notes, and keep its figures, scores and schedules as artifacts.

    What earlier calls attached is replaced; notes and artifacts of the user's stay.

    Args:
        study: The study.
        storage: The storage of its trials.

    Returns:
        The store of the artifacts.

    Raises:
        StudyError: Something cannot be written.
    """
    from optuna.artifacts import FileSystemArtifactStore

    found = [
        (stored, find_optuna_study(storage, study.path, study.identity, stored.budget))
        for stored in study.budgets
    ]
    begun = [(stored, optuna_study) for stored, optuna_study in found if optuna_study is not None]
    folder = study.path / ARTIFACTS_FOLDER
    try:
        folder.mkdir(exist_ok=True)
        store = FileSystemArtifactStore(folder)
        with tempfile.TemporaryDirectory(prefix="prunetune-") as temporary:
            figures = write_figures(
                study, Path(temporary), ("svg",), "page", find_gallery(study.path)
            )
            for stored, optuna_study in begun:
                _attach_budget(study, stored, optuna_study, store, figures)
    except OSError as error:
        raise StudyError(
            f"{folder} cannot be written ({error.strerror or error}); the dashboard keeps figures "
            "and notes in the study: copy the study's folder and show the copy"
        ) from error
    return store


def _attach_budget(
    study: StoredStudy,
    stored: StoredBudget,
    optuna_study: optuna.Study,
    store: FileSystemArtifactStore,
    figures: Sequence[Path],
) -> None:
    from optuna_dashboard.artifact import get_artifact_path

    shown = {
        figure.stem: get_artifact_path(optuna_study, _upload(optuna_study, store, figure))
        for figure in figures
        if figure.suffix == ".svg"
    }
    if stored.schedule_path is not None:
        for file in (stored.schedule_path, scores_file(stored.schedule_path)):
            if file.exists():
                _upload(optuna_study, store, file)
    _write_note(optuna_study, study_note(study, stored, shown))
    if stored.schedule is not None:
        _note_exported_trial(stored, stored.schedule.content_hash, optuna_study)


def _note_exported_trial(
    stored: StoredBudget, content_hash: str, optuna_study: optuna.Study
) -> None:
    import optuna

    assert stored.schedule is not None
    for record in stored.trials:
        if record.content_hash == content_hash:
            frozen = optuna_study.trials[record.number]
            trial = optuna.trial.Trial(optuna_study, frozen._trial_id)
            _write_note(trial, trial_note(stored.schedule))
            return


def _upload(optuna_study: optuna.Study, store: FileSystemArtifactStore, file: Path) -> str:
    """Attach a file in place of the one of the same name, if there is one."""
    from optuna.artifacts import get_all_artifact_meta, upload_artifact

    for known in get_all_artifact_meta(optuna_study):
        if known.filename == file.name:
            with file.open("rb") as content:
                store.write(known.artifact_id, content)
            return known.artifact_id
    return upload_artifact(artifact_store=store, file_path=str(file), study_or_trial=optuna_study)


def _write_note(noted: optuna.Study | optuna.Trial, text: str) -> None:
    """Write a note, unless there is one of the user's."""
    from optuna_dashboard import get_note, save_note

    present = get_note(noted)
    if not present.strip() or (OURS in present and present != text):
        save_note(noted, text)
