"""What the router tells whoever counts: the workers wire it to Prometheus."""

from typing import Protocol

from core.words import Capability


class Observer(Protocol):
    """Called from worker threads; must be quick and thread-safe.

    Changes of a breaker's state go to pybreaker listeners instead, see ``Router.add_listener``.
    """

    def selected(self, capability: Capability, source: str) -> None:
        """A call was routed."""
        ...

    def answered(self, source: str, endpoint: str, latency_s: float) -> None:
        """A call was answered."""
        ...

    def failed(self, source: str, endpoint: str, code: str) -> None:
        """A call failed."""
        ...


class Silent:
    """Counts nothing."""

    def selected(self, capability: Capability, source: str) -> None: ...

    def answered(self, source: str, endpoint: str, latency_s: float) -> None: ...

    def failed(self, source: str, endpoint: str, code: str) -> None: ...
