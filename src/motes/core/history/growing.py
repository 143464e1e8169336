"""Lists that only grow, as values: a longer one shares its storage with the shorter ones that it came from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Generic, TypeVar, overload

T = TypeVar("T")


class Growing(Sequence[T], Generic[T]):
    """A sequence that is never changed: `plus` makes one with another item at its end, at the cost of that item.

    Wherever an interrupt falls, what was there before is still what it was.

    >>> one = Growing([1])
    >>> two = one.plus(2)
    >>> list(one), list(two), list(one.plus(3))
    ([1], [1, 2], [1, 3])
    """

    __slots__ = ("_length", "_store")

    def __init__(self, items: Iterable[T] = ()):
        self._store = list(items)
        self._length = len(self._store)

    def plus(self, item: T) -> Growing[T]:
        """The items of this one, and `item`."""
        longer: Growing[T] = Growing()
        longer._store = self._store if len(self._store) == self._length else self._store[: self._length]
        longer._store.append(item)
        longer._length = self._length + 1
        return longer

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> list[T]: ...
    def __getitem__(self, index: int | slice) -> T | list[T]:
        if isinstance(index, slice):
            return self._store[: self._length][index]
        if not -self._length <= index < self._length:
            raise IndexError(f"there are {self._length} items, and none at {index}")
        return self._store[index % self._length]
