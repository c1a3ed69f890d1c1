"""What a wallet asks of the budget that it belongs to, and of who counts long windows."""

from typing import Protocol

from core.clock import Clock
from core.words import Share
from db.budgets import Block
from providers.base import Limit
from routing.state import RoutingState


class LongWindows(Protocol):
    """Where long windows are counted: ``db.budgets.LongWindowLedger``."""

    def first_use(self, scope: str) -> bool: ...

    def lease(
        self,
        scope: str,
        *,
        share: Share,
        units: int,
        window_s: float,
        wanted: int,
        least: int,
        hold_s: float,
        linger_s: float,
    ) -> Block: ...

    def refund(self, block_id: int, units: int) -> None: ...

    def used(self, scope: str) -> tuple[int, int]: ...


class Account(Protocol):
    """What a wallet draws on: ``budgets.Budget``."""

    limits: tuple[Limit, ...]
    scopes: list[str]
    keys: list[str]
    state: RoutingState
    clock: Clock
    long_windows: LongWindows | None
    use_by_s: float
    spent: bool
    sequence: int
    unknown: frozenset[str]

    @property
    def hold_s(self) -> float: ...

    @property
    def longest_hold_s(self) -> float: ...

    def is_long(self, limit: Limit) -> bool: ...

    def fastest(self) -> float: ...
