"""What sources answered besides bars: lacking time, failures, refused rows, raw replies."""

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from core.windows import Window
from db.pool import Connection
from db.sql import sql

_LEVEL = 1
"""zlib level: replies are JSON that shrinks tenfold even so, and live writes should not wait."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A window that was asked for in vain."""

    symbol_id: int
    window: Window
    asked_at: datetime
    outcome: str
    """``failed``, ``refused`` or ``not_entitled``."""
    code: str
    """The error's short word."""
    detail: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """A row of an answer that can't be a bar."""

    symbol_id: int
    ts: datetime
    asked_at: datetime
    reason: str
    payload: bytes | None
    """The bytes that said so, None where the reply is kept anyway."""


@dataclass(frozen=True, slots=True)
class Payload:
    """A raw reply, kept for a short time so that a bar can be traced to its bytes."""

    source: str
    endpoint: str
    symbols: Sequence[str]
    asked_at: datetime
    status: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Note:
    """One row of fetch_evidence."""

    symbol_id: int
    window: Window
    asked_at: datetime
    outcome: str
    settled: bool = False
    lacking: Sequence[Window] = ()
    code: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class PackedPayload:
    """A reply compressed outside of the transaction, whose locks nobody should hold longer for it."""

    payload: Payload
    body: bytes


def pack(payloads: Iterable[Payload]) -> list[PackedPayload]:
    """Compress replies; do it before the transaction."""
    return [PackedPayload(payload, zlib.compress(payload.body, _LEVEL)) for payload in payloads]


def add_notes(
    conn: Connection, notes: Sequence[Note], *, interval_s: int, provider_id: int, as_of: datetime
) -> None:
    """Append evidence; rows that are there already (the same ask) add nothing."""
    if not notes:
        return
    conn.execute(
        sql("evidence", "add_evidence"),
        {
            "interval_s": interval_s,
            "provider_id": provider_id,
            "as_of": as_of,
            "ids": [note.symbol_id for note in notes],
            "starts": [note.window.start for note in notes],
            "ends": [note.window.end for note in notes],
            "asked": [note.asked_at for note in notes],
            "outcomes": [note.outcome for note in notes],
            "settled": [note.settled for note in notes],
            "lacking": [multirange(note.lacking) for note in notes],
            "codes": [note.code for note in notes],
            "details": [note.detail for note in notes],
        },
    )


def failure_notes(failures: Iterable[Failure]) -> list[Note]:
    """Evidence rows of failed asks."""
    return [
        Note(f.symbol_id, f.window, f.asked_at, f.outcome, code=f.code, detail=f.detail)
        for f in failures
    ]


def refusal_notes(refusals: Iterable[Refusal], length: timedelta) -> list[Note]:
    """Evidence rows of refused bars, each over its own bar."""
    return [
        Note(
            r.symbol_id,
            Window(r.ts, r.ts + length),
            r.asked_at,
            "refused",
            code="bad_row",
            detail=r.reason,
        )
        for r in refusals
    ]


def add_quarantine(
    conn: Connection,
    refusals: Sequence[Refusal],
    *,
    interval_s: int,
    provider_id: int,
    as_of: datetime,
) -> None:
    """Put refused rows aside with their reason and bytes."""
    for refusal in refusals:
        conn.execute(
            sql("evidence", "add_quarantine"),
            {
                "symbol_id": refusal.symbol_id,
                "interval_s": interval_s,
                "provider_id": provider_id,
                "ts": refusal.ts,
                "asked_at": refusal.asked_at,
                "as_of": as_of,
                "reason": refusal.reason,
                "payload": None
                if refusal.payload is None
                else zlib.compress(refusal.payload, _LEVEL),
            },
        )


def add_payloads(
    conn: Connection, payloads: Sequence[PackedPayload], *, provider_id: int, as_of: datetime
) -> None:
    """Keep raw replies; the same bytes of the same ask are kept once."""
    if not payloads:
        return
    given = [packed.payload for packed in payloads]
    conn.execute(
        sql("evidence", "add_payloads"),
        {
            "provider_id": provider_id,
            "as_of": as_of,
            "asked": [payload.asked_at for payload in given],
            "endpoints": [payload.endpoint for payload in given],
            "statuses": [payload.status for payload in given],
            "symbols": ["\n".join(payload.symbols) for payload in given],
            "bodies": [packed.body for packed in payloads],
        },
    )


def multirange(windows: Iterable[Window]) -> str:
    """PostgreSQL's text for windows."""
    return "{" + ",".join(f"[{w.start.isoformat()},{w.end.isoformat()})" for w in windows) + "}"
