"""Whether the parts of a model that hooks are on are still where the model runs them."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from pruners.errors import ModelError


class PartsInPlace:
    """Notices when another module has taken the place of a part.

    peft puts a module of its own in the place of each one that it adapts. Hooks on the one before
    would go on reading it, and answers would be those of two models mixed.
    """

    def __init__(self, model: nn.Module, parts: Iterable[nn.Module]) -> None:
        """Remember where parts are.

        Args:
            model: The model.
            parts: Modules somewhere inside it.
        """
        wanted = set(map(id, parts))
        self._model = model
        self._parts = {path: part for path, part in model.named_modules() if id(part) in wanted}

    def check(self) -> None:
        """Check that all parts are where they were.

        Raises:
            ModelError: Another module is in the place of one.
        """
        for path, part in self._parts.items():
            found = _at(self._model, path)
            # What torch.compile makes of a part runs it.
            if found is not part and getattr(found, "_orig_mod", None) is not part:
                raise ModelError(
                    f"{path} has been replaced by a {type(found).__name__} since the schedule was "
                    "applied, as peft does; remove the schedule before such a change, and apply it "
                    "again afterwards"
                )


def _at(model: nn.Module, path: str) -> nn.Module | None:
    try:
        return model.get_submodule(path)
    except AttributeError:
        return None
