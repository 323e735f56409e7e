"""What is known of a pruned cache, noted on the cache itself, and its lock."""

from __future__ import annotations

from dataclasses import replace
from functools import cache as made_once
from typing import Any

import torch
from torch import Tensor
from transformers import Cache

from pruners.cache import PrunedCache
from pruners.errors import InputError

_ATTRIBUTE = "prunetune_pruned"


def remember(cache: Any, pruned: PrunedCache) -> None:
    """Note on a cache what a prefill left in it, and lock it; copies of it have the note too."""
    setattr(cache, _ATTRIBUTE, pruned)
    kind: Any = type(cache)
    if not issubclass(kind, _FollowingRows):
        cache.__class__ = _following(kind)
    lock(cache)


def remember_padding(cache: Any, *, padded: bool) -> None:
    """Note on a pruned cache that a step has brought padding."""
    pruned: PrunedCache = getattr(cache, _ATTRIBUTE)
    if padded and not pruned.padded:
        remember(cache, replace(pruned, padded=True))


def recall(cache: Any) -> PrunedCache | None:
    """Recall what a cache holds; None for none, an empty one, or one of an unpruned call."""
    pruned: PrunedCache | None = getattr(cache, _ATTRIBUTE, None)
    if pruned is not None and cache.get_seq_length(0) == 0:
        # Emptied: whatever fills it next is not what the prefill left.
        delattr(cache, _ATTRIBUTE)
        unlock(cache)
        cache.__class__ = cache.plain
        return None
    return pruned


def lock(cache: Any) -> None:
    """Keep a model from going on with a pruned cache, unless a schedule's hooks unlock it.

    The lock is an attribute of this one cache, before its class's method: copies have it too, and
    no reference leads from it to the cache, which is freed as soon as nobody uses it.
    """
    pruned: PrunedCache = getattr(cache, _ATTRIBUTE)
    if pruned.dropped:
        cache.update = _refuse


def unlock(cache: Any) -> None:
    """Let the call under way add to a cache."""
    vars(cache).pop("update", None)


def _refuse(*args: Any, **kwargs: Any) -> None:
    """Stand in for a cache's `update` between the calls of a pruned model."""
    raise InputError(
        "the cache was filled under a schedule that is not applied any more: its layers hold "
        "different numbers of tokens, which the model alone does not know of; apply the schedule "
        "again, or start with a new cache"
    )


class _FollowingRows(Cache):  # type: ignore[misc]
    """What is known of a pruned cache follows its sequences; a class before the cache's own."""

    plain: type[Cache]
    """The cache's own class."""

    def reorder_cache(self, beam_idx: Tensor) -> None:
        super().reorder_cache(beam_idx)
        self._follow(beam_idx)

    def batch_select_indices(self, indices: Tensor) -> None:
        super().batch_select_indices(indices)
        self._follow(indices)

    def batch_repeat_interleave(self, repeats: int) -> None:
        super().batch_repeat_interleave(repeats)
        pruned: PrunedCache = getattr(self, _ATTRIBUTE)
        rows = torch.arange(len(pruned.first.source), device=pruned.first.source.device)
        self._follow(rows.repeat_interleave(repeats))

    def _follow(self, rows: Tensor) -> None:
        pruned: PrunedCache = getattr(self, _ATTRIBUTE)
        setattr(self, _ATTRIBUTE, pruned.of(rows))

    def __reduce__(self) -> tuple[Any, ...]:
        # The class is made by `_following`, where pickle would not find it by name.
        return _empty, (self.plain,), vars(self)


@made_once
def _following(kind: Any) -> Any:
    """Make the class of pruned caches of a kind."""
    return type(f"Pruned{kind.__name__}", (_FollowingRows, kind), {"plain": kind})


def _empty(kind: Any) -> Any:
    """Make a cache of a class that follows its rows, for copies to fill."""
    following = _following(kind)
    return following.__new__(following)
