"""What a wire is: it understands a request, answers it from a feed, and knows its vendor's refusals."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

from sim.feed import Feed
from sim.limits import Headroom, Violation

JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Ask:
    """One HTTP request, its path without the wire's prefix and with ``//`` collapsed."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    address: str
    """Client's address."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One HTTP answer."""

    status: int
    body: bytes
    content_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class Call:
    """What a request means."""

    endpoint: str
    """Short name for the log."""
    capability: str
    """``bars_1m``, ``bars_eod``, ``quotes_l1``, ``meta`` or ``session``."""
    answer: Callable[[Feed], Reply]
    symbols: Sequence[str] = ()
    key: str = ""
    """Whose limits it counts against; never logged."""
    feed: str = ""
    """Which of its feeds, where a vendor has more than one; each is a source of the pipeline's."""
    prepare: Callable[[Feed], Iterator[None]] | None = None
    """Builds in small steps what ``answer`` needs, where that is much."""
    weight: int = 1
    """Units that it takes of every limit."""


class Wire(Protocol):
    """One provider's protocol."""

    prefix: ClassVar[str]
    """First part of its paths, which a client may leave out."""
    base_path: ClassVar[str]
    """What a client's base URL ends with."""

    def understand(self, ask: Ask) -> Call:
        """Find out what is asked; a bad question is a call whose answer says so."""
        ...

    def too_many(self) -> Reply:
        """The vendor's answer to a client over its limit."""
        ...

    def over_limit(self, violation: Violation, call: Call) -> Reply:
        """The same, where the vendor's words name the limit or the key."""
        del violation, call
        return self.too_many()

    def banned(self, address: str, at: float) -> Violation | None:
        """What this client is locked out for at ``at``, whatever its windows hold; most vendors do not."""
        del address, at
        return None

    def throttled_200(self) -> Reply:
        """The vendor's throttle message under a good status."""
        ...

    def expired_key(self) -> Reply:
        """The vendor's answer to a key that it takes no more; those without keys have none of their own."""
        return Reply(401, b'{"error":"unauthorized"}')

    def outage(self, status: int) -> Reply:
        """The vendor's page when it is broken."""
        ...

    def quota_headers(self, room: Headroom) -> Mapping[str, str]:
        """Headers that tell a client what it has left."""
        ...


def fixed(endpoint: str, capability: str, reply: Reply, *, key: str = "") -> Call:
    """A call whose answer needs no market."""
    return Call(endpoint, capability, lambda _feed: reply, key=key)
