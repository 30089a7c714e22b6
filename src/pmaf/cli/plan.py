"""Which items are worked on together: a batch cut into boxes whose items lie side by side in the file."""

from __future__ import annotations

from math import prod
from typing import NamedTuple

__all__ = ["Cell", "Plan"]


class Cell(NamedTuple):
    """Some items of a batch, as a box and as a stretch of the items counted one after the other.

    Attributes:
        start: the first item.
        stop: the one behind the last.
        box: a slice for each dimension of the batch.
    """

    start: int
    stop: int
    box: tuple[slice, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """The box's shape."""
        return tuple(part.stop - part.start for part in self.box)


class Plan:
    """A batch cut into cells of about ``size`` items.

    With the last dimension running fastest, a box is one stretch of the file if it is one index wide in the first
    dimensions, any width in the next and full in the others: so that is how the batch is cut, and a cell can be read
    with one slice, written in one place, and be one chunk of a Zarr array.

    Args:
        batch: the dimensions of the batch, possibly none.
        size: how many items a cell may have, at least one.

    Example:
        >>> from pmaf.cli.plan import Plan
        >>> plan = Plan((4, 6), 13)
        >>> len(plan), plan.chunk, plan[1].start, plan[1].box
        (2, (2, 6), 12, (slice(2, 4, None), slice(0, 6, None)))
    """

    def __init__(self, batch: tuple[int, ...], size: int) -> None:
        self.batch = batch
        self.items = prod(batch)
        axis, inner = len(batch), 1  # what lies behind the axis that is cut
        while axis > 0 and inner * batch[axis - 1] <= size:
            axis -= 1
            inner *= batch[axis]
        self._cut, self._inner = axis - 1, inner  # -1: nothing is cut
        self._step = max(1, size // max(1, inner))
        self._pieces = -(-batch[axis - 1] // self._step) if axis else 1

    @property
    def chunk(self) -> tuple[int, ...]:
        """The shape of a cell that is not at an end."""
        if self._cut < 0:
            return self.batch
        return (1,) * self._cut + (min(self._step, self.batch[self._cut]),) + self.batch[self._cut + 1 :]

    def __len__(self) -> int:
        """How many cells there are."""
        return prod(self.batch[: max(0, self._cut)]) * self._pieces if self.items else 0

    def __getitem__(self, at: int) -> Cell:
        """The cell of that number.

        Raises:
            IndexError: if there is none.
        """
        if not 0 <= at < len(self):
            raise IndexError(at)
        if self._cut < 0:
            return Cell(0, self.items, tuple(slice(0, size) for size in self.batch))
        outer, piece = divmod(at, self._pieces)
        size = self.batch[self._cut]
        first = piece * self._step
        last = min(first + self._step, size)
        index = self.index(outer, self.batch[: self._cut])
        box = (
            *(slice(i, i + 1) for i in index),
            slice(first, last),
            *(slice(0, n) for n in self.batch[self._cut + 1 :]),
        )
        return Cell((outer * size + first) * self._inner, (outer * size + last) * self._inner, box)

    @staticmethod
    def index(item: int, batch: tuple[int, ...]) -> tuple[int, ...]:
        """Where an item stands in a batch.

        Args:
            item: its number, counted with the last dimension running fastest.
            batch: the dimensions.

        Returns:
            An index for each dimension.
        """
        index: list[int] = []
        for size in reversed(batch):
            item, i = divmod(item, size)
            index.append(i)
        return tuple(reversed(index))
