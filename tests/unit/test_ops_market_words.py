"""What ``ops up`` says of the market's hours, and of what it starts."""

from datetime import UTC, date, datetime

import pytest

from core.sessions import Calendar, Session
from core.windows import Window
from ops.status_lines import market_words
from ops.up import starting_words


def session(day: int, opens: str = "14:30", closes: str = "21:00", month: int = 11) -> Session:
    label = date(2026, month, day)
    first, last = (
        datetime.fromisoformat(f"{label} {word}").replace(tzinfo=UTC) for word in (opens, closes)
    )
    return Session(label, (Window(first, last),))


# Thursday 26 November 2026 is Thanksgiving; the Friday after it is a half day.
NYSE = Calendar(
    "NYSE", 1, date(2026, 11, 1), date(2026, 12, 31),
    [session(25), session(27, closes="18:00"), session(30), session(1, month=12)],
)  # fmt: skip


@pytest.mark.parametrize(
    ("now", "said"),
    [
        ("2026-11-25 14:30", "NYSE open until 21:00Z"),
        ("2026-11-27 14:00", "NYSE closed; next session Friday 14:30Z"),
        ("2026-11-27 18:00", "NYSE closed; next session Monday 14:30Z"),
        ("2026-11-28 12:00", "NYSE closed (Saturday); next session Monday 14:30Z"),
        ("2026-11-26 12:00", "NYSE closed (holiday); next session Friday 14:30Z"),
        ("2026-11-10 12:00", "NYSE closed (holiday); next session 2026-11-25 14:30Z"),
    ],
)
def test_a_closed_market_is_said_with_its_reason_and_its_next_session(now: str, said: str) -> None:
    assert market_words(NYSE, datetime.fromisoformat(now).replace(tzinfo=UTC)) == said


def test_past_the_last_known_session_the_mend_is_said() -> None:
    said = market_words(NYSE, datetime(2026, 12, 5, tzinfo=UTC))
    assert "ops calendar publish NYSE" in said


def test_a_market_that_never_closes_is_open() -> None:
    day = session(25, "00:00", "23:59").segments[0]
    whole = Session(date(2026, 11, 25), (Window(day.start, datetime(2026, 11, 26, tzinfo=UTC)),))
    crypto = Calendar("24/7", 1, date(2026, 11, 25), date(2026, 11, 25), [whole])
    assert market_words(crypto, datetime(2026, 11, 25, 3, tzinfo=UTC)) == "24/7 open"


@pytest.mark.parametrize(
    ("database", "redis", "said"),
    [
        (None, None, "starting PostgreSQL, Valkey, the scheduler and the workers on this machine ..."),
        (
            "postgresql://me:hunter2@db/gapless",
            None,
            ("starting Valkey, the scheduler and the workers on this machine; the database is yours "
            "(postgresql://me:***@db/gapless) ..."),
        ),
        (
            "postgresql://db/gapless",
            "redis://cache/0",
            ("starting the scheduler and the workers on this machine; the database is yours "
            "(postgresql://db/gapless); Redis is yours (redis://cache/0) ..."),
        ),
    ],
)  # fmt: skip
def test_up_names_what_it_starts_and_what_the_user_brought(database, redis, said) -> None:
    assert starting_words(database, redis) == said
