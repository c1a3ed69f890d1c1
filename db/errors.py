"""Translates the database's errors into ours, once, at the edge of this package."""

import psycopg
import psycopg_pool

from core.errors import (
    ClockMismatchError,
    GaplessError,
    HorizonError,
    StorageError,
    UsageError,
)
from core.log import mask

_RETRY_STATES = frozenset(
    {
        "25P03",  # idle in a transaction for too long: our process stood still in it
        "40P01",  # deadlock
        "40001",  # serialisation
        "55P03",  # lock not available
        "57P01",  # admin shutdown, also pg_terminate_backend
        "57P02",  # crash shutdown
        "57P03",  # cannot connect now
        "53300",  # too many connections
    }
)
CLOCK_BEHIND = "ZG002"
DATA_EXCEPTION = "22000"
"""The value itself can't be stored; its first two digits are the class of all such codes."""


def sqlstate(error: BaseException) -> str | None:
    """The server's code behind an error of ours or of psycopg."""
    cause = error if isinstance(error, psycopg.Error) else error.__cause__
    if isinstance(cause, psycopg.DataError) and cause.sqlstate is None:
        # Refused before the server saw it.
        return DATA_EXCEPTION
    return cause.sqlstate if isinstance(cause, psycopg.Error) else None


def worth_retrying(error: BaseException) -> bool:
    """True when the same transaction may well succeed if it is run again at once."""
    cause = error if isinstance(error, psycopg.Error) else error.__cause__
    if isinstance(cause, psycopg_pool.PoolTimeout):
        return False
    if isinstance(cause, psycopg.Error) and cause.sqlstate is not None:
        return cause.sqlstate in _RETRY_STATES or cause.sqlstate.startswith("08")
    # Without a code the connection itself broke.
    return isinstance(cause, psycopg.OperationalError | psycopg.InterfaceError)


def translate(error: psycopg.Error) -> GaplessError:
    """Our error for one of psycopg's, with the server's hint; raise it ``from`` the original."""
    hint = error.diag.message_hint
    # libpq spreads a refused connection over several lines.
    words = " ".join((error.diag.message_primary or str(error)).split())
    text = mask(words + (f" ({hint})" if hint else ""))
    match error.sqlstate:
        case "ZG001":
            return HorizonError(text)
        case "ZG005":
            return UsageError(text)
        case "ZG003" | "ZG006":
            return ClockMismatchError(text)
        case "42P01" | "42883" | "42703":
            return StorageError(f"the schema is not this version's: {text}; run `ops migrate`")
        case None if isinstance(error, psycopg.OperationalError):
            return _unreachable(text)
        case _:
            return StorageError(f"the database refused a statement: {text}")


def _unreachable(text: str) -> StorageError:
    # libpq gives no code for a connection that was refused, only the server's words.
    if "authentication failed" in text or "pg_hba.conf" in text or 'role "' in text:
        return StorageError(
            f"the database refused the login: {text}; check user and password in DATABASE_URL"
        )
    if 'database "' in text and "does not exist" in text:
        return StorageError(f"{text}; create it, or mend the name in DATABASE_URL")
    return StorageError(
        f"the database can't be reached: {text}; is it running, is DATABASE_URL right?"
    )
