"""What lmms-eval reads at its start, through the entry-point group `lmms_eval.models`."""

from __future__ import annotations

from lmms_eval.models.registry_v2 import ModelManifest


def manifest() -> ModelManifest:
    """Name the model class; it is imported when it is first asked for.

    Returns:
        The manifest of ``--model prunetune``.
    """
    # Not an attribute of the class: torch and transformers would be loaded with lmms-eval's list.
    return ModelManifest(model_id="prunetune", chat_class_path="search.lmms.model.PrunetuneModel")
