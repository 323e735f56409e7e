"""Refusing continuous batching, which answers without the images."""

from __future__ import annotations

from typing import Any

from torch import nn

from pruners.errors import InputError

_NAME = "init_continuous_batching"


class NoContinuousBatching:
    """Keeps a model from starting continuous batching, as `generate_batch` does."""

    def __init__(self, model: nn.Module) -> None:
        """Put the refusal before the class's method.

        Args:
            model: The model.
        """
        self._model = model
        # What the instance itself had by this name, such as another library's wrapper.
        self._before = vars(model).get(_NAME)
        setattr(model, _NAME, _refuse)

    def remove(self) -> None:
        """Give back what was there before."""
        if self._before is None:
            delattr(self._model, _NAME)
        else:
            setattr(self._model, _NAME, self._before)


def _refuse(*args: Any, **kwargs: Any) -> None:
    """Stand in for the method that all ways into continuous batching call."""
    raise InputError(
        "continuous batching (generate_batch, cache_implementation='paged') takes token ids "
        "alone, so that the model answers without its images and nothing is pruned; call generate "
        "with another cache, or remove the schedule to batch text"
    )
