"""Batches that are halved for good when memory runs out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class ShrinkingBatches:
    """Works on items a batch at a time; a batch that needs more memory than there is is halved.

    Attributes:
        size: Items per batch; it never grows again.
    """

    def __init__(self, size: int, on_shrink: Callable[[int], None] = lambda size: None) -> None:
        """Start with batches of a size.

        Args:
            size: Items per batch.
            on_shrink: Called with the new size each time it is halved.
        """
        self.size = size
        self._on_shrink = on_shrink

    def run(
        self,
        items: Sequence[Item],
        work: Callable[[Sequence[Item]], Result],
        failure: Callable[[Sequence[Item], Exception], Exception],
    ) -> Iterator[tuple[Sequence[Item], Result]]:
        """Work on all items, in order.

        Args:
            items: The items.
            work: Does a batch.
            failure: Makes the error to raise of what `work` raised, for a batch that fails for
                another reason, or of one item.

        Yields:
            Each batch with its result.

        Raises:
            Exception: What `failure` makes.
        """
        start = 0
        while start < len(items):
            batch = items[start : start + self.size]
            done = self._tried(batch, work, failure)
            if done:
                yield batch, done[0]
                start += len(batch)
            else:
                self._shrink(len(batch) // 2)

    def _tried(
        self,
        batch: Sequence[Item],
        work: Callable[[Sequence[Item]], Result],
        failure: Callable[[Sequence[Item], Exception], Exception],
    ) -> tuple[Result, ...]:
        """Do a batch; nothing when it has to be tried again with fewer items."""
        try:
            return (work(batch),)
        except Exception as error:
            if len(batch) == 1 or not is_out_of_memory(error):
                raise failure(batch, error) from error
        # Out of the except clause, which holds on to the batch's tensors.
        return ()

    def _shrink(self, size: int) -> None:
        from accelerate.utils.memory import clear_device_cache

        clear_device_cache(garbage_collection=True)
        self.size = size
        self._on_shrink(size)


def is_out_of_memory(error: Exception) -> bool:
    """Say whether an error means that a smaller batch might do.

    Args:
        error: What a batch raised.

    Returns:
        Whether it tells of missing memory, on the CPU or on an accelerator.
    """
    from accelerate.utils.memory import should_reduce_batch_size

    return bool(should_reduce_batch_size(error))
