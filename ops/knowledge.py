"""The ``--as-of`` and ``--provider`` words of reading commands."""

from collections.abc import Sequence
from datetime import datetime

from core.errors import UsageError
from core.windows import Window
from core.words import Interval
from db import reading
from db.pool import Database
from db.sources import source_names
from ops import output
from ops.times import instant


def as_of(db: Database, text: str | None) -> datetime | None:
    """The instant of knowledge that a word names; None reads the newest.

    Raises:
        UsageError: no instant, or one whose answer can still change.
    """
    if not text:
        return None
    asked = instant(text, "--as-of")
    with db.transaction() as conn:
        newest = reading.safe_as_of(conn)
    if asked > newest:
        now = db.clock.now()
        when = (
            f"in the future (market time is {output.text(now)})"
            if asked > now
            else f"after {output.text(newest)}, and what is learnt since then may still change"
        )
        raise UsageError(
            f"--as-of is {output.text(asked)}, {when}; leave --as-of out to read the newest"
        )
    return asked


def providers(db: Database, typed: Sequence[str] | None) -> list[str] | None:
    """Source names, each known.

    Raises:
        UsageError: a name that never was a source here.
    """
    if not typed:
        return None
    with db.transaction() as conn:
        known = sorted(source_names(conn).values())
    unknown = [name for name in typed if name not in known]
    if unknown:
        raise UsageError(
            f"provider {', '.join(map(repr, unknown))} is unknown; "
            + (f"expected one of {', '.join(known)}" if known else "none has been asked here yet")
        )
    return list(typed)


def why_nothing(
    db: Database, symbols: Sequence[str], interval: Interval, span: Window, asked: datetime | None
) -> str:
    """Why a read found no bar: nobody had it yet at that instant, or nobody has it."""
    hint = f"`ops coverage {' '.join(symbols)}` says why"
    if asked is None:
        return f"no bars in {span}; {hint}"
    first = reading.first_known(db, symbols, interval, span)
    if first is None or first <= asked:
        return f"no bars in {span} as of {output.text(asked)}; {hint}"
    return (
        f"nothing was known of {', '.join(symbols)} in {span} at {output.text(asked)}; "
        f"the first of it was learnt at {output.text(first)}"
    )
