"""Distinct values in the order in which they came, each with a number: what is shared travels once."""

from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


class Numbered(Generic[T]):
    """Gives out 1, 2, 3 ... as PostgreSQL counts the elements of an array."""

    def __init__(self) -> None:
        self._numbers: dict[T, int] = {}
        self._last: tuple[T, int] | None = None

    def number(self, value: T) -> int:
        """The value's number; a new value gets the next."""
        last = self._last
        if last is not None and last[0] == value:
            # Most often it is the one before; comparing is cheaper than hashing.
            return last[1]
        number = self._numbers.setdefault(value, len(self._numbers) + 1)
        self._last = value, number
        return number

    def __iter__(self) -> Iterator[T]:
        """The values by number."""
        return iter(self._numbers)
