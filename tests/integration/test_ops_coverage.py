"""What `ops coverage`, `ops gaps`, `ops cursor` and `ops bars` say of what is there and what is not."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from core.bars import Bar
from core.windows import Window
from core.words import Interval, Tier
from db import backfill, calendars, universe
from db.backfill import NewJob
from db.evidence import Failure
from ops.cli import main
from tests.storage import MINUTE, answer, put

pytestmark = pytest.mark.integration


@pytest.fixture
def midnight(db) -> datetime:
    """A day ago: that day has ended."""
    today = db.clock.now().replace(hour=0, minute=0, second=0, microsecond=0)
    return today - timedelta(days=1)


@pytest.fixture
def say(db, database_url, midnight, monkeypatch, tmp_path, capsys):
    """BUSY trades round the clock; runs a command, gives its exit code and what it printed."""
    days = [midnight + timedelta(days=n) for n in range(-3, 3)]
    opens = [int(day.timestamp()) for day in days]
    payload = {
        "calendar": "24/7",
        "known_from": days[0].date().isoformat(),
        "known_until": days[-1].date().isoformat(),
        "sessions": [
            [day.date().isoformat(), [[at, at + 86_400]]]
            for day, at in zip(days, opens, strict=True)
        ],
    }
    calendars.publish(db, payload)
    universe.load(
        db, [("BUSY", Tier.T0, "24/7", "24/7"), ("DULL", Tier.T2, "24/7", "24/7")], "test"
    )
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("GAPLESS_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[int, str, str]:
        code = main(list(words))
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


@pytest.fixture
def busy(db, say) -> int:
    with db.transaction() as conn:
        return universe.resolve(conn, ["BUSY"])["BUSY"].symbol_id


def iso(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def ten_bars(start: datetime) -> list[Bar]:
    return [Bar(start + n * MINUTE, 10.0, 11.0, 9.0, 10.0, 5.0) for n in range(10)]


def day_of(midnight: datetime) -> list[str]:
    label = midnight.date().isoformat()
    return ["--start", label, "--end", label]


def stretches(text: str) -> list[tuple[str, str, str]]:
    return [(row["start_ts"], row["end_ts"], row["state"]) for row in json.loads(text)]


def test_a_day_of_which_nobody_was_asked_says_so(say, midnight) -> None:
    code, out, _ = say("coverage", "BUSY", *day_of(midnight))
    (line,) = [line.split() for line in out.splitlines() if "BUSY" in line]
    assert code == 0
    assert line[:6] == [
        "BUSY",
        "1m",
        iso(midnight),
        iso(midnight + timedelta(days=1)),
        "not",
        "asked",
    ]


def test_what_was_asked_lies_between_what_was_not(db, say, busy, midnight) -> None:
    noon = midnight + timedelta(hours=12)
    put(db, answer(busy, ten_bars(noon), asked=noon + timedelta(hours=1)))
    _, out, _ = say("coverage", "busy", *day_of(midnight), "--json")
    assert stretches(out) == [
        (iso(midnight), iso(noon), "not asked"),
        (iso(noon), iso(noon + 10 * MINUTE), "covered"),
        (iso(noon + 10 * MINUTE), iso(midnight + timedelta(days=1)), "not asked"),
    ]


def test_the_same_failure_is_one_row_and_waiting_work_is_no_hole(db, say, busy, midnight) -> None:
    day = Window(midnight, midnight + timedelta(days=1))
    for minute in range(3):
        asked = day.end + minute * MINUTE
        failure = Failure(busy, day, asked, "failed", "unavailable", "no route to host")
        put(db, failures=[failure])
    backfill.enqueue(db, [NewJob(busy, Interval.M1, day, Tier.T0, "operator")])
    _, out, _ = say("coverage", "BUSY", *day_of(midnight), "--json")
    assert [(row["state"], row["times"]) for row in json.loads(out)] == [("failed", 3), ("gap", 1)]


def test_intervals_are_not_mixed_and_t2_is_seen_by_the_day(say, midnight) -> None:
    _, out, _ = say("coverage", "BUSY", "DULL", *day_of(midnight), "--json")
    assert [(row["symbol"], row["interval"]) for row in json.loads(out)] == [
        ("BUSY", "1m"),
        ("DULL", "1d"),
    ]
    _, out, _ = say("coverage", "BUSY", *day_of(midnight), "--interval", "1d", "--json")
    assert [row["interval"] for row in json.loads(out)] == ["1d"]


def test_no_gaps_is_no_good_news_while_nobody_has_answered(db, say, busy, midnight) -> None:
    code, out, _ = say("gaps")
    today = midnight + timedelta(days=1)
    assert code == 1
    assert "no source has answered anything yet" in out
    # Listed today, so today's session is the first that anything is expected of.
    assert f"judged since {iso(today)}" in out
    assert "ops enqueue-backfill" in out

    put(db, answer(busy, ten_bars(midnight), asked=midnight + timedelta(hours=1)))
    day = Window(midnight, today)
    backfill.enqueue(db, [NewJob(busy, Interval.M1, day, Tier.T0, "operator")])
    code, out, _ = say("gaps")
    assert code == 0
    assert f"every minute expected since {iso(today)} is stored or explained" in out
    assert "1 backfill row by hand or coordinator pending" in out


def test_a_cursor_of_a_derived_interval_is_that_of_its_minutes(db, say, busy, midnight) -> None:
    code, out, _ = say("cursor", "BUSY", "5m")
    assert code == 1
    assert "5m bars are made from 1m bars" in out
    assert "no source has a settled answer for BUSY 1m yet" in out

    put(db, answer(busy, ten_bars(midnight), asked=midnight + timedelta(hours=1)))
    code, out, _ = say("cursor", "busy", "15m")
    assert code == 0
    assert out.splitlines()[-1].split() == ["yfinance", iso(midnight), iso(midnight + 10 * MINUTE)]


def test_a_read_of_before_anything_was_known_says_when_it_was(db, say, busy, midnight) -> None:
    put(db, answer(busy, ten_bars(midnight), asked=midnight + timedelta(hours=1)))
    (known,) = {row[0] for row in _as_of(db)}
    early = ["--as-of", iso(midnight)]
    code, out, err = say("bars", "busy", *day_of(midnight), *early)
    assert (code, out) == (0, "")
    assert f"nothing was known of BUSY in [{iso(midnight)}" in err
    assert f"learnt at {known.astimezone(UTC):%Y-%m-%dT%H:%M:%S}" in err

    nobody = [
        "--start",
        iso(midnight + timedelta(hours=2)),
        "--end",
        iso(midnight + timedelta(hours=3)),
    ]
    _, _, err = say("bars", "BUSY", *nobody, *early)
    assert f"no bars in [{nobody[1]}" in err
    assert "ops coverage BUSY" in err


def _as_of(db):
    with db.transaction() as conn:
        return conn.execute("SELECT DISTINCT as_of FROM candles_intraday").fetchall()
