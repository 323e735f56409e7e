"""How many patches each layer of the vision tower sees, when tokens leave inside it.

One rule for the runtime and for pricing; importing it needs no torch.
"""

from __future__ import annotations

from itertools import accumulate

from pruners.errors import ScheduleMismatchError
from pruners.scorers import Downsampling, TokenMatching, TowerScorer


def feature_index(layers: int, feature_layer: int) -> int:
    """Find the tower layer whose output the projector reads.

    Args:
        layers: Layers of the tower.
        feature_layer: Index into the tower's hidden states, which start with the embeddings.

    Returns:
        Index of the layer, counted from 0; -1 stands for the embeddings.
    """
    return feature_layer - 1 if feature_layer >= 0 else layers + feature_layer


def merged_per_layer(patches: int, alive: int, layers: int) -> tuple[int, ...]:
    """Spread ToMe's merges over the tower (its section 3: the same number r after each layer).

    A remainder goes to the first layers, one each. One matching merges at most half of the patches
    there are. That can only be too few after the last of the layers, which leaves the fewest; it
    then takes several matchings (`matching_rounds`), so that every count is met.

    Args:
        patches: Patches that enter the tower.
        alive: Patches left after the last of the layers.
        layers: Layers that merges follow: those before the layer that makes the features.

    Returns:
        Merges after each of the layers; they add up to ``patches - alive``.

    Raises:
        ScheduleMismatchError: `alive` is out of range, or there is no layer to merge after.
    """
    _check_counts(patches, alive, layers)
    if alive == patches:
        return (0,) * layers  # Of a tower without such layers, nothing is asked.
    share, remainder = divmod(patches - alive, layers)
    return tuple(share + (layer < remainder) for layer in range(layers))


def matching_rounds(patches: int, merged: int) -> tuple[int, ...]:
    """Split the merges after one layer into matchings, each of at most half of the patches.

    Args:
        patches: Patches before.
        merged: Merges, fewer than `patches`.

    Returns:
        Merges of each matching; one entry whenever one suffices.
    """
    rounds: list[int] = []
    while merged > 0:
        count = min(merged, patches // 2)
        rounds.append(count)
        patches -= count
        merged -= count
    return tuple(rounds)


def flow_layers(feature: int) -> tuple[int, ...]:
    """List the layers after which FlowCut drops tokens (released code: every second one).

    Args:
        feature: Index of the layer that makes the features.

    Returns:
        Rising indices; the last is ``feature - 1``, where the count is forced.
    """
    return tuple(range((feature - 1) % 2, feature, 2))


def tower_tokens(
    scorer: TowerScorer, patches: int, alive: int, layers: int, feature_layer: int
) -> tuple[int, ...]:
    """Count the patches that enter each layer of the tower, without the CLS token.

    ToMe's and a smaller image's counts are exact. FlowCut's depend on the image; given is the most
    there can be: all patches until the layer that makes the features.

    Args:
        scorer: How tokens leave.
        patches: Patches of the dense model.
        alive: Patches that leave the tower.
        layers: Layers of the tower.
        feature_layer: Index into the tower's hidden states that the projector reads.

    Returns:
        One count per layer.

    Raises:
        ScheduleMismatchError: `alive` is out of range, or no layer precedes the one that makes the
            features.
    """
    if isinstance(scorer, Downsampling):
        _check_counts(patches, alive, layers)
        return (alive,) * layers
    feature = feature_index(layers, feature_layer)
    _check_counts(patches, alive, feature)
    if isinstance(scorer, TokenMatching):
        merged = merged_per_layer(patches, alive, feature)
        entering = list(accumulate(merged, lambda left, count: left - count, initial=patches))
    else:
        entering = [patches] * feature + [alive]
    return tuple(entering + [alive] * (layers - len(entering)))


def _check_counts(patches: int, alive: int, layers: int) -> None:
    if not 1 <= alive <= patches:
        raise ScheduleMismatchError(
            f"{alive} patches should leave a vision tower that {patches} enter; expected 1 to "
            f"{patches}: change the stage's retention"
        )
    if layers < 1 and alive < patches:
        raise ScheduleMismatchError(
            "tokens should leave inside the vision tower, but no layer of it comes before the one "
            "that makes the features; use a scorer that prunes after the tower"
        )
