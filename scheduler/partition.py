"""Deals symbols into phases and batches: the same on every machine, as even as whole symbols allow.

Symbols are ordered by a hash of their id and cut into contiguous parts, so that parts differ by at
most one symbol, no part follows the alphabet, and a symbol that joins moves only those next to a
cut.
"""

import zlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Protocol, TypeVar

_NEVER = datetime(1, 1, 1, tzinfo=UTC)


class HasId(Protocol):
    """Anything that stands for one symbol."""

    @property
    def symbol_id(self) -> int: ...


Member = TypeVar("Member", bound=HasId)


def shuffled(members: Iterable[Member]) -> list[Member]:
    """The members in the order of their ids' hash."""
    return sorted(
        members, key=lambda m: (zlib.crc32(m.symbol_id.to_bytes(8, "little")), m.symbol_id)
    )


def deal(members: Sequence[Member], parts: int) -> list[list[Member]]:
    """Cut a sequence into ``parts`` contiguous lists whose lengths differ by at most one."""
    count = len(members)
    return [list(members[count * i // parts : count * (i + 1) // parts]) for i in range(parts)]


def batches(members: Sequence[Member], size: int) -> list[list[Member]]:
    """Cut into the fewest even lists of at most ``size``."""
    return deal(members, -(-len(members) // size)) if members else []


def longest_waiting(members: Iterable[Member], answered: Mapping[int, datetime]) -> list[Member]:
    """The least recently answered first, the never answered before all."""
    return sorted(members, key=lambda m: (answered.get(m.symbol_id, _NEVER), m.symbol_id))


def waiting_rank(members: Sequence[Member], answered: Mapping[int, datetime]) -> tuple[float, ...]:
    """Sort key of a batch: the one whose symbols have waited longest on the whole comes first."""
    waits = [answered.get(member.symbol_id, _NEVER) for member in members]
    return (min(waits).timestamp(), sum(at.timestamp() for at in waits) / len(waits))
