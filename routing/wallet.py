"""Tokens of one provider in the hands of one process: leased in small blocks, used or handed back.

One round trip to Redis brings the tokens of many calls, as many as are likely to be used in time.
What was not used goes back with the next lease. Windows longer than a minute are leased from
PostgreSQL (``db.budgets``) into a pool in Redis, on which the leases draw.
"""

import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson

from core.errors import QueueError, StorageError
from core.words import Share
from routing.account import Account

_BUCKETS = 250
"""A window expires in steps of 1/250 of its length, and is counted longer by up to one."""
RECOVER_S = 120.0
"""Market seconds in which a share of 0 would grow back to all of a limit after 429s."""
_LEAST_LEFT = 0.2
"""A token is not given out any more in the last fifth of its time: the call has to leave, too."""
_AHEAD = 0.5
"""Leased ahead: what is likely to be used in this part of a use-by."""
_RATE_S = 0.2
"""Time over which the rate of calls is averaged."""
_GREED = 8
"""One lease takes at most this part (1/8) of the tightest window."""
_LOOK_AGAIN_S, _LOOK_AGAIN_LONG_S = 0.025, 0.25
"""Refusals are believed for a tenth of the wait within these bounds: others may hand tokens back."""
_LONG_PARTS = 100
"""A block of a long window is 1/100 of it and may be used for 1/100 of its length."""
_LONG_TRANSIT_S, _MARGIN_S = 2.0, 0.2
"""Real seconds within which a block must get from PostgreSQL to Redis, or it goes back."""
_BEGIN_S, _WAIT_FOR_BEGINNER_S = 0.8, 1.2
"""Real seconds in which whoever uses a limit first begins its windows, and the others wait for that."""


@dataclass(frozen=True, slots=True)
class Refused:
    """No token now."""

    why: str
    wait_s: float
    """Market seconds after which asking again makes sense."""


@dataclass(slots=True)
class _Block:
    """Tokens that came with one lease."""

    use_by: float
    calls: int
    ahead: int
    """Market microseconds under which the script booked them; 0: not to be handed back."""
    blocks: Sequence[int]
    arrived_by: float
    """Monotonic seconds until which the booking holds for calls that leave in time."""


_Correction = tuple[int, int, Sequence[int], int]
"""Calls, ``ahead``, blocks, and 0 for never made or 1 for late."""


@dataclass(slots=True)
class Token:
    """The right to make one call until ``use_by``, monotonic seconds. Nobody changes it."""

    use_by: float
    _block: _Block | None = None
    _wallet: "Wallet | None" = None

    def give_back(self) -> None:
        """The call was certainly not made."""
        if self._wallet is not None and self._block is not None:
            self._wallet.take_back(self._block)

    def ended(self, now: float) -> None:
        """The call was made, and has arrived by now if ever."""
        if self._wallet is not None and self._block is not None and now > self._block.arrived_by:
            self._wallet.was_late(self._block)


class Wallet:
    """Tokens in hand for one share and one cost."""

    def __init__(self, budget: Account, costs: tuple[int, ...], share: Share) -> None:
        self._budget = budget
        self._share = share
        self._paying = [i for i, cost in enumerate(costs) if cost > 0]
        self._limits = [budget.limits[i] for i in self._paying]
        self._scopes = [budget.scopes[i] for i in self._paying]
        self._costs = [costs[i] for i in self._paying]
        self._keys = [budget.keys[0], *(budget.keys[1 + i] for i in self._paying)]
        self._facts = orjson.dumps(
            {
                "recover": round(RECOVER_S * 1e6),
                "hold": round(budget.hold_s * 1e6),
                "limits": [
                    {
                        "units": limit.units,
                        "window": round(limit.window_s * 1e6),
                        "step": math.ceil(limit.window_s * 1e6 / _BUCKETS),
                        "cost": cost,
                        "long": budget.is_long(limit),
                    }
                    for limit, cost in zip(self._limits, self._costs, strict=True)
                ],
            }
        )
        self._most = max(
            1,
            min(
                (
                    limit.units // (cost * _GREED)
                    for limit, cost in zip(self._limits, self._costs, strict=True)
                ),
                default=1,
            ),
        )
        self._lock = threading.Lock()
        self._crowd = 0
        self._crowd_lock = threading.Lock()
        self._block: _Block | None = None
        self._corrections: list[_Correction] = []
        self._given = 0
        self._rate = 0.0
        self._leased_at = budget.clock.monotonic()
        self._refused: Refused | None = None
        self._refused_at = self._refused_until = 0.0
        self._lost_since: float | None = None

    def take(self) -> Token | Refused:
        """One call's tokens, or why there are none."""
        clock = self._budget.clock
        if not self._limits:
            return Token(math.inf)
        if self._lock.acquire(blocking=False):
            # Mostly there are tokens in hand, and nobody else asks at this very moment.
            try:
                token = self._from_hand(clock.monotonic())
            finally:
                self._lock.release()
            if token is not None:
                return token
        with self._crowd_lock:
            self._crowd += 1
        try:
            with self._lock:
                now = clock.monotonic()
                if (token := self._from_hand(now)) is not None:
                    return token
                if self._refused is not None and now < self._refused_until:
                    passed = (now - self._refused_at) * clock.speed
                    return replace(self._refused, wait_s=max(0.001, self._refused.wait_s - passed))
                answer = self._lease()
                if isinstance(answer, Refused):
                    self._refused, self._refused_at = answer, clock.monotonic()
                    wait_s = clock.real_seconds(answer.wait_s)
                    patience = max(_LOOK_AGAIN_S, min(_LOOK_AGAIN_LONG_S, wait_s / 10))
                    self._refused_until = self._refused_at + min(wait_s, patience)
                else:
                    self._refused = None
                return answer
        finally:
            with self._crowd_lock:
                self._crowd -= 1

    def take_back(self, block: _Block) -> None:
        """A token was not used: it goes back into hand while it is good, else to the fleet."""
        with self._lock:
            if block is self._block:
                block.calls += 1
            else:
                self._hand_back(block, 1)

    def was_late(self, block: _Block) -> None:
        """A call may have arrived later than it was booked for: book it anew, while it counts."""
        late = [(1, block.ahead, block.blocks, 1)]
        try:
            self._ask(0, "a" * len(self._limits), late)
        except QueueError:
            with self._lock:
                self._corrections += late

    def burn(self) -> None:
        """Tokens in hand are not to be used: the provider asked us to stop."""
        with self._lock:
            if self._block is not None:
                self._hand_back(self._block, self._block.calls)
                self._block = None

    def look(self, said: Mapping[str, int] | None = None) -> str:
        """What the windows hold, as ``lua/lease.lua`` tells without leasing.

        Args:
            said: Limit -> units that count as used at least, by the provider's word.
        """
        used = [(said or {}).get(limit.name, -1) for limit in self._limits]
        return self._ask(0, "a" * len(self._limits), [], said=used if said else ())

    def _from_hand(self, now: float) -> Token | None:
        block = self._block
        if block is None:
            return None
        if now >= block.use_by - _LEAST_LEFT * self._budget.use_by_s:
            self._hand_back(block, block.calls)
            self._block = None
            return None
        if block.calls < 1:
            return None
        block.calls -= 1
        self._given += 1
        return Token(block.use_by, block, self)

    def _hand_back(self, block: _Block, calls: int) -> None:
        if calls > 0 and block.ahead > 0:
            self._corrections.append((calls, block.ahead, block.blocks, 0))

    def _lease(self) -> Token | Refused:
        """Ask the fleet for as many calls as will likely be used, one at least."""
        clock, letters = self._budget.clock, "a" * len(self._limits)
        now = clock.monotonic()
        elapsed = max(now - self._leased_at, 1e-3)
        self._rate += (self._given / elapsed - self._rate) * min(1.0, elapsed / _RATE_S)
        self._leased_at, self._given = now, 0
        likely = math.ceil(self._rate * self._budget.use_by_s * _AHEAD)
        wanted = min(self._most, max(likely, self._crowd, 1))
        for _ in range(4):
            asked, hold_s = clock.monotonic(), self._budget.hold_s
            # Corrections are sent once: if the reply is lost, they may have been made.
            corrections, self._corrections = self._corrections, []
            try:
                calls, ahead, wait, code, index, blocks, sequence = self._ask(
                    wanted, letters, corrections, hold_s
                )
            except QueueError:
                return Refused("Redis does not answer, no tokens in hand", clock.speed * 0.25)
            self._budget.sequence = max(self._budget.sequence, int(sequence))
            if code == "ok":
                self._lost_since = None
                self._budget.spent = True
                self._block = _Block(
                    asked + self._budget.use_by_s, int(calls), int(ahead), blocks, asked + hold_s
                )
                token = self._from_hand(clock.monotonic())
                return token or Refused("the lease came too late to be used", 0.001)
            if code == "lost":
                letters, refused = self._begin()
            elif code == "fill":
                refused = self._fill(int(index), wanted)
            else:
                return Refused(self._reason(code, int(index), wait / 1e6), max(wait / 1e6, 0.001))
            if refused is not None:
                return refused
        return Refused("the budget is taken faster than it comes", 0.01 * clock.speed)

    def _ask(
        self,
        calls: int,
        letters: str,
        corrections: "Sequence[_Correction]",
        hold_s: float = 0.0,
        said: Sequence[int] = (),
    ) -> Any:
        state = self._budget.state
        args = [
            self._facts,
            state.segments(),
            calls,
            self._share.value,
            letters,
            round(hold_s * 1e6),
            orjson.dumps(corrections) if corrections else b"[]",
            # A look says what the provider says; a lease says what was the last that we know of.
            orjson.dumps(said) if not calls else self._budget.sequence,
        ]
        return state.run("lease", self._keys, args)

    def _begin(self) -> tuple[str, Refused | None]:
        """Nobody knows what was spent: begin from nothing at a first use, else from full windows."""
        budget, clock = self._budget, self._budget.clock
        full = "f" * len(self._limits)
        if not budget.unknown.isdisjoint(self._scopes):
            # Only windows that are absent are begun; whoever else begins one does it full as well.
            self._note_first_use()
            return full, None
        if budget.long_windows is None:
            return (full if budget.spent else "e" * len(self._limits)), None
        now = clock.monotonic()
        if self._lost_since is None:
            try:
                letters = "".join(
                    "e" if budget.long_windows.first_use(scope) else "f" for scope in self._scopes
                )
            except StorageError as error:
                return "", Refused(f"the database can't say what was spent: {error}", clock.speed)
            if "e" in letters and clock.monotonic() - now < _BEGIN_S:
                return letters, None
            self._lost_since = clock.monotonic()
        # Whoever used it first is about to begin from nothing: give way, for longer than it takes.
        if now - self._lost_since < _WAIT_FOR_BEGINNER_S:
            return "", Refused("counting begins", clock.speed * 0.05)
        return full, None

    def _note_first_use(self) -> None:
        """A process that starts later should not take windows that began full for unused ones."""
        if self._budget.long_windows is None:
            return
        for scope in self._scopes:
            try:
                self._budget.long_windows.first_use(scope)
            except StorageError:
                return

    def _fill(self, index: int, wanted: int) -> Refused | None:
        """Lease a block of a long window from PostgreSQL into the pool in Redis."""
        budget, clock = self._budget, self._budget.clock
        limit, cost, scope = self._limits[index], self._costs[index], self._scopes[index]
        ledger = budget.long_windows
        assert ledger is not None, "only a ledger's windows are filled"
        fastest = budget.fastest()
        valid_s = max(limit.window_s / _LONG_PARTS, fastest)
        asked = clock.monotonic()
        try:
            block = ledger.lease(
                scope,
                share=self._share,
                units=limit.units,
                window_s=limit.window_s,
                wanted=max(wanted * cost, limit.units // _LONG_PARTS),
                least=cost,
                hold_s=valid_s + fastest * (_LONG_TRANSIT_S + budget.longest_hold_s),
                linger_s=limit.window_s / _LONG_PARTS,
            )
            if block.block_id and clock.monotonic() - asked > _LONG_TRANSIT_S - _MARGIN_S:
                ledger.refund(block.block_id, block.units)
                return Refused("the database is slow to lease", clock.speed * 0.25)
            dry_s = 0.0 if block.block_id else min(block.frees_in_s, valid_s)
            args: list[str | bytes | int | float] = [
                budget.state.segments(),
                self._share.value,
                block.block_id,
                block.units,
                round(valid_s * 1e6),
                round(dry_s * 1e6),
            ]
            left_block, left_units = budget.state.run(
                "fill", [self._keys[0], self._keys[1 + index]], args
            )
            if left_block:
                ledger.refund(int(left_block), int(left_units))
        except StorageError as error:
            return Refused(f"the database can't lease {scope}: {error}", clock.speed)
        except QueueError:
            return Refused("Redis does not answer, no tokens in hand", clock.speed * 0.25)
        if block.block_id:
            return None
        return Refused(self._reason("full", index, block.frees_in_s), max(block.frees_in_s, 0.001))

    def _reason(self, code: str, index: int, wait_s: float) -> str:
        if code == "paused":
            return f"asked to wait by the provider, {wait_s:.1f} s more"
        if code == "yields":
            return "budget kept for live work"
        if code == "filling":
            return "budget is being leased"
        limit = self._limits[max(index, 0)]
        if code == "impossible":
            cost = self._costs[max(index, 0)]
            return f"a call costs {cost} of the {limit.units} units per {limit.window_s:g} s"
        return f"budget used up: {limit.units} per {limit.window_s:g} s, frees in {wait_s:.1f} s"
