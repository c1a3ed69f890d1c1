"""What the command line says to bad input: the thing, the value, the mend, and never a traceback."""

from pathlib import Path

import psycopg
import pytest

from ops.cli import main

pytestmark = pytest.mark.integration

DAY = ["--start", "2026-11-18", "--end", "2026-11-18"]
ENQUEUE = ["enqueue-backfill", "AAPL", "--interval", "1m"]


@pytest.fixture
def said(database_url: str, redis_url: str, tmp_path: Path, monkeypatch, capsys):
    """Runs a command in a folder of its own; gives its exit code and what it printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("REDIS_URL", redis_url)
    monkeypatch.setenv("GAPLESS_HOME", str(tmp_path / "home"))
    universe = tmp_path / "universe.csv"
    universe.write_text("symbol,tier,exchange\nAAPL,T0,XNYS\n")

    def run(*words: str) -> tuple[int, str]:
        try:
            code = main(list(words))
        except SystemExit as stop:  # argparse's own way out
            code = int(stop.code or 0)
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    assert run("universe", "load", str(universe))[0] == 0
    published = run("calendar", "publish", "NYSE", "--start", "2026-11-01", "--end", "2026-11-30")
    assert published[0] == 0
    return run


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["bars", "NOSUCH", *DAY], ["NOSUCH", "ops universe load --add"]),
        (["bars", "AAPLE", *DAY], ["AAPLE", "did you mean AAPL?"]),
        (["bars", "AAPL", *DAY, "--provider", "foo"], ["'foo' is unknown"]),
        (["bars", "AAPL", *DAY, "--as-of", "2026-11-18"], ["a date", "2026-11-18T21:00:00Z"]),
        (["bars", "AAPL", *DAY, "--as-of", "2026-11-18Z"], ["a date", "2026-11-18T21:00:00Z"]),
        (["bars", "AAPL", *DAY, "--as-of", "2097-11-18T00:00:00Z"], ["in the future", "leave --as-of out"]),
        (["bars", "AAPL", "--start", "2026-11-18Z", "--end", "2026-11-18"], ["write 2026-11-18 for the session"]),
        (["bars", "AAPL", "--interval", "7m", *DAY], ["'7m'", "expected 1m, 5m"]),
        (["bars", "AAPL", "--start", "2026-11-19", "--end", "2026-11-17"], ["swap --start"]),
        (["bars", "AAPL", "--start", "noon", "--end", "2026-11-17"], ["'noon'", "2026-11-20T14:30"]),
        (["coverage", "NOSUCH", *DAY], ["NOSUCH", "ops universe load --add"]),
        (["cursor", "NOSUCH", "1m"], ["NOSUCH", "ops universe show"]),
        (["cursor", "AAPL", "1m", "foo"], ["'foo' is unknown"]),
        ([*ENQUEUE[:3], "2m", *DAY], ["'2m'", "expected 1m or 1d"]),
        (["enqueue-backfill", "NOSUCH", *ENQUEUE[2:], *DAY], ["NOSUCH", "ops universe load"]),
        (["enqueue-backfill", "--tier", "T9", *ENQUEUE[2:], *DAY], ["'T9'", "T0, T1 or T2"]),
        (["enqueue-backfill", *ENQUEUE[2:], *DAY], ["--tier T0 or --file"]),
        (["enqueue-backfill", "--file", "none.txt", *ENQUEUE[2:], *DAY], ["none.txt", "No such file"]),
        ([*ENQUEUE, "--start", "2026-11-18T10:00", "--end", "2026-11-18"], ["without a zone", "10:00Z"]),
        ([*ENQUEUE, "--start", "2097-11-18", "--end", "2097-11-18"], ["is known from"]),
        ([*ENQUEUE, "--start", "2026-11-18", "--end", "2026-11-17"], ["swap --start"]),
        ([*ENQUEUE, *DAY, "--provider", "nosuch"], ["ALLOW_SOURCE_OVERRIDE=true"]),
        (["gaps", "--tier", "T5"], ["'T5'", "T0, T1 or T2"]),
        (["universe", "retier", "T7", "AAPL"], ["'T7'", "T0, T1 or T2"]),
        (["providers", "disable", "nosuch", "--reason", "x"], ["'nosuch'", "yfinance"]),
        (["providers", "test", "nosuch"], ["'nosuch'", "yfinance"]),
        (["calendar", "publish", "NYSE", "--start", "2026-12-31", "--end", "2026-01-01"], ["swap the two"]),
        (["calendar", "publish", "NYSE", "--start", "2026-13-01", "--end", "2026-01-01"], ["expected YYYY-MM-DD"]),
        (["calendar", "publish", "MARS", "--start", "2026-01-01", "--end", "2026-01-31"], ["'MARS' is unknown"]),
        (["calendar", "show", "LSE"], ["calendar XLON is not published", "publish XLON"]),
        (["--log-level", "loud", "status"], ["'LOUD'", "DEBUG"]),
        (["nosuch"], ["'nosuch'", "enqueue-backfill"]),
    ],
    ids=lambda value: " ".join(value[:3]) if isinstance(value, list) else None,
)  # fmt: skip
def test_a_wrong_word_is_named_with_its_mend(said, words: list[str], expected: list[str]) -> None:
    code, printed = said(*words)

    assert code == 2
    assert "Traceback" not in printed
    for part in expected:
        assert part in printed


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ticker,tier\nA,T0\n", ["columns ticker, tier", "expected symbol"]),
        ("symbol;tier\nA;T0\n", ["separated by semicolons", "symbol,tier,exchange"]),
        ("symbol,tier\nA\xe9,T0\n", ["is not UTF-8 text", "0xe9"]),
        ("symbol,tier\nA,T0\nB,T7\nA,T1\n", ["2 problem(s)", "line 3", "'T7'", "A stands 2 times"]),
    ],
)
def test_a_bad_universe_file_changes_nothing(said, tmp_path: Path, text, expected) -> None:
    file = tmp_path / "bad.csv"
    file.write_bytes(text.encode("latin-1"))

    code, printed = said("universe", "load", str(file))

    assert code == 2
    for part in expected:
        assert part in printed
    assert "AAPL" in said("universe", "show")[1]


def test_an_exchange_stands_for_the_calendar_that_it_trades_on(said) -> None:
    code, printed = said("calendar", "show", "XNYS", "--days", "0")
    assert code == 0
    assert "NYSE: version 1" in printed
    code, printed = said(
        "calendar", "publish", "LSE", "--start", "2026-11-01", "--end", "2026-11-30"
    )
    assert (code, printed.split(":")[0]) == (0, "XLON")


def test_settings_with_an_unknown_provider_or_name_are_told(said, tmp_path: Path) -> None:
    file = tmp_path / "my.env"
    file.write_text("POLICY_EOD=yfinance,foo\nPOLICY_QUOTE_L1=finnhub\nTIER_MAXS__T0=5\n")
    code, printed = said("validate", "--settings", str(file))
    assert code == 1
    assert "POLICY_EOD names 'foo'" in printed
    assert "alpaca.iex" in printed
    assert "POLICY_QUOTE_L1 in" in printed
    assert "did you mean POLICY_QUOTES_L1?" in printed
    assert "TIER_MAXS__T0" not in printed

    file.write_text("NOPE=1\nPOSTGRES_PASSWORD=x\nCADENCE_T0__bars_1m=30\n")
    code, printed = said("validate", "--settings", str(file))
    assert code == 0
    assert "NOPE in" in printed
    assert "POSTGRES_PASSWORD" not in printed
    assert "CADENCE" not in printed


def test_a_database_that_is_not_there_is_said_without_its_password(said, monkeypatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://me:hunter2@127.0.0.1:1/db")

    code, printed = said("status")

    assert code == 1
    assert "can't be reached" in printed
    assert "DATABASE_URL" in printed
    assert "hunter2" not in printed
    assert len(printed.strip().splitlines()) == 1


def test_a_changed_migration_is_refused_and_nothing_is_done(said, database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as conn:
        conn.execute("UPDATE schema_migrations SET checksum = 'x' WHERE name LIKE '0003%%'")

    code, printed = said("migrate")

    assert code == 1
    assert "0003_candles" in printed
    assert "Traceback" not in printed


def test_a_window_that_has_expired_is_refused(said, monkeypatch) -> None:
    monkeypatch.setenv("CANDLE_RETENTION_DAYS", "30")
    said("calendar", "publish", "NYSE", "--start", "2025-11-01", "--end", "2026-11-30")

    code, printed = said(*ENQUEUE, "--start", "2025-11-18", "--end", "2025-11-18")

    assert code == 2
    assert "CANDLE_RETENTION_DAYS=30" in printed


def test_a_calendar_that_nobody_published_is_named(said, tmp_path: Path) -> None:
    file = tmp_path / "more.csv"
    file.write_text("symbol,tier,exchange\nRELIANCE,T0,XNSE\n")
    assert said("universe", "load", "--add", str(file))[0] == 0

    code, printed = said("enqueue-backfill", "RELIANCE", *ENQUEUE[2:], *DAY)

    assert code == 2
    assert "calendar NSE is not published" in printed
    assert "ops calendar publish" in printed
