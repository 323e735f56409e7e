"""Which of a vision tower's features a model may hand its projector to be pruned."""

from __future__ import annotations

from pruners.errors import UnsupportedModelError, shown


def check_feature_layer(layer: object) -> int:
    """Check that a projector reads one layer of its tower.

    Args:
        layer: `vision_feature_layer` of the model's configuration.

    Returns:
        The layer, an index into the tower's hidden states.

    Raises:
        UnsupportedModelError: It reads several.
    """
    if not isinstance(layer, int):
        raise UnsupportedModelError(
            f"vision_feature_layer is {shown(layer)}; schedules can be applied to models whose "
            "projector reads one layer"
        )
    return layer


def check_select_strategy(strategy: object, *, class_token: bool) -> None:
    """Check that a projector reads patches alone, and all of them.

    Args:
        strategy: `vision_feature_select_strategy` of the model's configuration.
        class_token: Whether the tower has a CLS token.

    Raises:
        UnsupportedModelError: It reads the CLS token as well, or leaves out a patch.
    """
    expected = "default" if class_token else "full"
    if strategy != expected:
        raise UnsupportedModelError(
            f"vision_feature_select_strategy is {shown(strategy)}, but pruning needs {expected!r}: "
            "visual tokens are patches alone"
        )
