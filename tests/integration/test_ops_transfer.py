"""Revisions leave by `ops export` and come in by `ops import`: exact, repeatable, bad rows aside."""

import csv
import gzip
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from datetime import date, timedelta

import psycopg
import pytest

from core.clock import SystemClock
from core.errors import StorageError, UnknownSymbolError
from core.words import Interval, Tier
from db import reading
from db.pool import Database
from db.revision_export import Selection, export
from db.revision_import import Importer, NewSymbols
from db.revision_rows import parse
from ops import cli
from ops.revision_files import rows as read_rows
from tests.servers import REPOSITORY, _database
from tests.storage import (
    LONG_AFTER,
    MINUTE,
    OPEN,
    answer,
    at,
    bar,
    daily,
    put,
    rows,
    span,
    symbols,
)  # fmt: skip

pytestmark = pytest.mark.integration

NEW = NewSymbols(Tier.T2, "NYSE", "NYSE")
REVISIONS = """
    SELECT n.name, s.name, s.adjustment, c.ts, c.as_of, c.asked_at, c.status, c.open, c.high, c.low, c.close, c.volume,
           c.vwap, c.trade_count, c.reason, {key}
    FROM {table} c JOIN sources s USING (provider_id)
    JOIN gapless_names(NULL, 'infinity') n ON n.symbol_id = c.symbol_id AND c.ts >= n.valid_from AND c.ts < n.valid_to
    ORDER BY 1, 2, 4, 5
"""


def everything(db):
    """Every stored revision, independent of keys."""
    return [
        rows(db, REVISIONS.format(table=table, key=key))
        for table, key in (("candles_intraday", "c.interval_s"), ("candles_eod", "c.session"))
    ]


@pytest.fixture
def target(postgres_server, template_database) -> Iterator[Database]:
    """Another migrated database, empty."""
    with _database(postgres_server.url, template=template_database) as url:
        database = Database(url, SystemClock(), max_size=4)
        yield database
        database.close()


@pytest.fixture
def run(monkeypatch, tmp_path):
    """The command on a database; its exit code."""
    monkeypatch.chdir(tmp_path)

    def call(db, *words):
        monkeypatch.setenv("DATABASE_URL", db.url)
        return cli.main([str(word) for word in words])

    return call


def history(db, seed, names=("BAC", "SPY", "ZZ")):
    """Random bars with partials, restatements, withdrawals and daily bars from two sources."""
    chance = random.Random(seed)
    ids = symbols(db, *names)
    for step in range(12):
        asked = at(30) + step * 10 * MINUTE
        for source in ("finnhub", "yfinance"):
            given, days = [], []
            for symbol_id in ids.values():
                minutes = [m for m in range(30 if step else 20) if chance.random() < 0.8]
                bars = [
                    bar(
                        m,
                        chance.choice([10.0, 10.1, 1 / 3 + 9, 1e5]),
                        volume=chance.choice([None, 0.0, 100.0, 1e12]),
                        vwap=chance.choice([None, 10.123456789]),
                        trade_count=chance.choice([None, 0, 7]),
                        partial=not step and m == 19,
                    )
                    for m in minutes
                ]
                gone = [span(m, m + 1) for m in range(30) if m not in minutes]
                window = span(0, 30)
                given.append(answer(symbol_id, bars, window=window, asked=asked, lacking=gone))
                days.append(
                    answer(symbol_id, [daily(date(2026, 3, 2), chance.choice([10.0, 11.0]))],
                           window=span(0, 1440), asked=asked + timedelta(days=1))
                )  # fmt: skip
            reason = chance.choice([None, 'split, "2:1"', "répair"])
            put(db, *given, source=source, reason=reason)
            put(db, *days, source=source, interval=Interval.D1)
    return ids


def load(db, path, **options):
    """Import a file without the command; the counts and the rejects."""
    rejects = []
    with read_rows(path) as (lines, _), Importer(db, **options) as importer:
        batch = []
        for line, cells in lines:
            assert not isinstance(cells, str)
            batch.append(parse(line, cells))
            if len(batch) == 100:
                rejects += importer.add(batch)
                batch.clear()
        rejects += importer.add(batch)
    counts = importer.counts
    return (counts.restored, counts.learnt, counts.known, counts.rejected), rejects


@pytest.mark.parametrize(
    "name", ["a.csv", "a.csv.gz", "a.ndjson", "a.ndjson.zst", "a.jsonl", "a.parquet"]
)
def test_revisions_come_back_exactly_in_every_format(db, target, run, tmp_path, name, capsys):
    history(db, name)
    source = everything(db)
    assert {row[6] for row in source[0]} == {0, 1, 2, 3}
    assert source[1]
    assert run(db, "export", "--output", name) == 0
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert run(target, "import", name, "--create-symbols") == 0
    assert everything(target) == source
    total = sum(map(len, source))
    assert f"{total:,} restored as they were known" in capsys.readouterr().err
    assert run(target, "import", name) == 0
    assert f"{total:,} known already, 0 rejected" in capsys.readouterr().err
    assert everything(target) == source


@pytest.mark.parametrize("seed", range(3))
def test_reads_of_the_past_find_what_the_other_database_knew(db, target, tmp_path, run, seed):
    ids = history(db, seed)
    run(db, "export", "--output", "a.parquet")
    load(target, tmp_path / "a.parquet", create=NEW)
    known = sorted({row[4] for table in everything(db) for row in table})
    with db.transaction() as conn:
        known.append(reading.safe_as_of(conn))
    for as_of in random.Random(seed).sample(known, 8):
        for interval in (Interval.M1, Interval.M5, Interval.D1):
            one, other = (
                reading.candles(
                    database, list(ids), interval, span(0, 1440), as_of=as_of, every_source=True
                )
                for database in (db, target)
            )
            assert one == other
    first = reading.candles(target, list(ids), Interval.M1, span(0, 30), as_of=known[0])
    assert first, "names were known then, too"


def test_an_export_as_of_an_instant_leaves_out_what_was_learnt_later(db, symbol, target, run):
    put(db, answer(symbol, [bar(0), bar(1)]))
    with db.transaction() as conn:
        then = reading.safe_as_of(conn)
    before = everything(db)
    put(db, answer(symbol, [bar(1, 20.0), bar(2)], asked=LONG_AFTER + MINUTE))
    run(db, "export", "SPY", "--as-of", then.isoformat(), "--output", "a.csv")
    run(target, "import", "a.csv", "--create-symbols")
    assert everything(target) == before
    assert run(db, "export", "--as-of", "2999-01-01T00:00:00Z", "--output", "b.csv") == 2


def test_a_selection_is_by_symbol_window_interval_and_source(db, run, tmp_path):
    history(db, 7)
    words = ("--start", "2026-03-02T14:35:00Z", "--end", "2026-03-02T14:40:00Z", "--interval", "1m")
    run(db, "export", "SPY", *words, "--provider", "finnhub", "--output", "a.csv")
    with (tmp_path / "a.csv").open() as file:
        found = list(csv.DictReader(file))
    assert {(row["symbol"], row["provider"], row["interval"]) for row in found} == {
        ("SPY", "finnhub", "1m")
    }
    assert {row["ts"][11:16] for row in found} <= {f"14:{m}" for m in range(35, 40)}
    assert run(db, "export", "NOPE", "--output", "b.csv") == 2
    assert run(db, "export", "--interval", "5m", "--output", "b.csv") == 2
    assert not (tmp_path / "b.csv").exists()


def test_half_an_import_and_then_the_whole_is_the_whole(db, target, run, tmp_path):
    history(db, 3)
    run(db, "export", "--output", "a.csv")
    lines = (tmp_path / "a.csv").read_text().splitlines(keepends=True)
    (tmp_path / "half.csv").write_text("".join(lines[: len(lines) // 2]))
    load(target, tmp_path / "half.csv", create=NEW)
    assert run(target, "import", "a.csv", "--create-symbols") == 0
    assert everything(target) == everything(db)


def test_a_killed_import_that_is_repeated_ends_right(db, symbol, run, tmp_path, wait_until):
    times = [OPEN + n * MINUTE for n in range(40_000)]
    lines = [
        f"SPY,1m,{ts:%FT%TZ},csv,{ts + MINUTE:%FT%TZ},final,{ts + MINUTE:%FT%TZ},10,11,9,10,{n}\n"
        for n, ts in enumerate(times)
    ]
    (tmp_path / "a.csv").write_text(HEADER + "".join(lines))
    environment = os.environ | {"DATABASE_URL": db.url, "PYTHONPATH": str(REPOSITORY)}
    count = "SELECT count(*) FROM candles_intraday"
    with subprocess.Popen(
        [sys.executable, "-m", "ops", "import", "a.csv"], cwd=tmp_path, env=environment
    ) as killed:
        wait_until(lambda: rows(db, count)[0][0] > 0, seconds=30)
        killed.kill()
    assert 0 < rows(db, count)[0][0] < len(times)
    assert run(db, "import", "a.csv") == 0
    found = rows(db, "SELECT ts, as_of - ts, volume FROM candles_intraday ORDER BY ts, as_of")
    assert found == [(ts, MINUTE, float(n)) for n, ts in enumerate(times)]


class TestSeriesWithRows:
    """Into a series that was asked for here an import is new knowledge."""

    @pytest.fixture
    def file(self, db, symbol, run, tmp_path):
        """Minute 0 stays, 1 is restated, 2 is new, 3 withdrawn, as the other database knew them."""
        put(db, answer(symbol, [bar(0), bar(1), bar(3)], asked=LONG_AFTER))
        for number in (1, 2):
            late = LONG_AFTER + number * MINUTE
            given = [bar(0), bar(1, 20.0), bar(2)]
            put(db, answer(symbol, given, window=span(0, 4), asked=late, lacking=[span(3, 4)]))
        run(db, "export", "--output", "a.ndjson")
        return tmp_path / "a.ndjson"

    def test_as_of_is_now_and_the_original_is_kept_in_the_reason(self, db, target, file):
        mine = symbols(target, "SPY")["SPY"]
        first = put(target, answer(mine, [bar(0), bar(1), bar(3)], asked=LONG_AFTER - MINUTE))
        before = everything(target)[0]
        counts, rejects = load(target, file)
        assert (counts, rejects) == ((0, 3, 3, 0), [])
        added = [row for row in everything(target)[0] if row not in before]
        original = {(row[3], row[10]): row[4] for row in everything(db)[0]}
        assert [((row[3] - OPEN) / MINUTE, row[6], row[10]) for row in added] == [
            (1, 2, 20.0),
            (2, 1, 10.0),
            (3, 3, None),
        ]
        for row in added:
            assert row[4] > first.as_of
            known = original[row[3], row[10]]
            assert row[14].startswith(f"import: known elsewhere at {known.isoformat()}")
            assert row[5] in {LONG_AFTER + MINUTE, LONG_AFTER + 2 * MINUTE}
        past = reading.candles(target, ["SPY"], Interval.M1, span(0, 9), as_of=first.as_of)
        assert [row["close"] for row in past] == [10.0, 10.0, 10.0]

    def test_the_same_import_twice_adds_nothing(self, target, file):
        mine = symbols(target, "SPY")["SPY"]
        put(target, answer(mine, [bar(0, 7.0), bar(9)], asked=LONG_AFTER - MINUTE))
        load(target, file)
        once = everything(target)
        counts, _ = load(target, file)
        assert counts[:2] == (0, 0)
        assert everything(target) == once

    def test_an_older_ask_does_not_replace_a_newer_one(self, target, file):
        mine = symbols(target, "SPY")["SPY"]
        given = [bar(m, 50.0) for m in range(4)]
        put(target, answer(mine, given, asked=LONG_AFTER + timedelta(days=1)))
        before = everything(target)
        assert load(target, file)[0][:2] == (0, 0)
        assert everything(target) == before

    def test_importing_into_the_database_that_it_came_from_adds_nothing(self, db, file):
        before = everything(db)
        assert load(db, file)[0][:2] == (0, 0)
        assert everything(db) == before

    def test_a_restored_series_that_is_collected_is_closed_for_restoring(self, target, run, file):
        load(target, file, create=NEW)
        mine = rows(target, "SELECT symbol_id FROM symbol_names LIMIT 1")[0][0]
        restored = everything(target)[0]
        put(target, answer(mine, [bar(0), bar(1, 20.0), bar(2)], asked=LONG_AFTER + 9 * MINUTE))
        assert everything(target)[0] == restored, "an identical answer adds nothing"
        text = (
            file.read_text()
            .replace('"close":20.0', '"close":20.5')
            .replace('"status":"revised"', '"status":"revised"')
        )
        later = json.dumps((LONG_AFTER + 20 * MINUTE).isoformat())
        changed = [json.loads(line) for line in text.splitlines()]
        changed = [{**r, "asked_at": json.loads(later)} for r in changed if r["close"] == 20.5]
        (file.parent / "b.ndjson").write_text("".join(json.dumps(r) + "\n" for r in changed))
        counts, rejects = load(target, file.parent / "b.ndjson")
        assert (counts, rejects) == ((0, 1, 0, 0), [])

    def test_news_can_be_asked_for_where_nothing_is_stored(self, target, file):
        counts, _ = load(target, file, create=NEW, as_news=True)
        assert counts[0] == 0
        newest = rows(target, "SELECT min(as_of) FROM candles_intraday")[0][0]
        assert newest > rows(target, "SELECT min(as_of) FROM symbols")[0][0]
        once = everything(target)
        assert load(target, file)[0][:2] == (0, 0)
        assert everything(target) == once


def test_no_horizon_passes_the_start_of_a_restoring_import(db, symbol, target, run, tmp_path):
    put(db, answer(symbol, [bar(0), bar(1)]))
    run(db, "export", "--output", "a.csv")
    with read_rows(tmp_path / "a.csv") as (lines, _):
        revisions = [parse(line, cells) for line, cells in lines if not isinstance(cells, str)]
    with target.transaction() as conn:
        start = rows(target, "SELECT gapless_now()")[0][0]
    with Importer(target, NEW) as importer:
        importer.add(revisions[:1])
        with target.transaction() as conn:
            held = reading.safe_as_of(conn)
        importer.add(revisions[1:])
        with target.transaction() as conn:
            assert reading.safe_as_of(conn) == held
    with target.transaction() as conn:
        assert reading.safe_as_of(conn) > held >= start - timedelta(milliseconds=1)


HEADER = "symbol,interval,ts,provider,as_of,status,asked_at,open,high,low,close,volume\n"
GOOD = (
    "SPY,1m,2026-03-02T14:30:00Z,csv,2026-03-02T14:31:05Z,final,2026-03-02T14:31:01Z,10,11,9,10,5\n"
)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("1m", "2m", "interval is '2m'; expected 1m or 1d"),
        ("1m", "1d", "a daily bar needs a date"),
        ("T14:30:00Z", "T14:30:00", "expected a time with a zone"),
        ("T14:30:00Z", "T14:30:07Z", "starts on the minute"),
        ("final", "odd", "status is 'odd'; expected partial, final"),
        ("final", "withdrawn", "a withdrawn bar has values"),
        (",10,11,", ",,11,", "open, high, low or close is missing"),
        (",10,11,", ",x,11,", "open is 'x'; expected a number"),
        (",10,11,", ",12,11,", "out of order"),
        (",10,11,", ",nan,11,", "not all finite"),
        ("SPY", "S PY", "symbol is 'S PY'; expected a word"),
        (",5", ",5,6", "13 cells, expected 12"),
        ("2026-03-02T14:31:05Z", "2999-03-02T14:31:05Z", "is not yet past here"),
    ],
)  # fmt: skip
def test_a_bad_row_goes_aside_with_its_line_and_reason(db, symbol, run, tmp_path, old, new, reason):
    other = GOOD.replace("14:30", "14:32")
    (tmp_path / "a.csv").write_text(HEADER + GOOD + GOOD.replace(old, new, 1) + other)
    assert run(db, "import", "a.csv") == 1
    with (tmp_path / "a.csv.rejected.csv").open() as file:
        [rejected] = csv.DictReader(file)
    assert rejected["line"] == "3"
    assert reason in rejected["reason"]
    assert len(everything(db)[0]) == 2


def test_rejects_of_an_earlier_run_go_when_the_file_is_mended(db, symbol, run, tmp_path):
    (tmp_path / "a.csv").write_text(HEADER + GOOD + GOOD.replace("final", "odd"))
    assert run(db, "import", "a.csv") == 1
    (tmp_path / "a.csv").write_text(HEADER + GOOD)
    assert run(db, "import", "a.csv") == 0
    assert not (tmp_path / "a.csv.rejected.csv").exists()


def test_broken_lines_of_json_and_bytes_go_aside(db, symbol, run, tmp_path):
    good = dict(zip(HEADER.strip().split(","), GOOD.strip().split(","), strict=True))
    lines = [json.dumps(good).encode(), b"{", b"[1]", b"\xff\xfe", b"", b"{}"]
    (tmp_path / "a.ndjson.gz").write_bytes(gzip.compress(b"\n".join(lines)))
    assert run(db, "import", "a.ndjson.gz") == 1
    with (tmp_path / "a.ndjson.gz.rejected.csv").open() as file:
        assert [row["line"] for row in csv.DictReader(file)] == ["2", "3", "4", "6"]
    assert len(everything(db)[0]) == 1


def test_two_versions_with_one_as_of_cannot_both_be_right(db, symbol, tmp_path):
    (tmp_path / "a.csv").write_text(HEADER + GOOD + GOOD + GOOD.replace(",10,5", ",10,6"))
    counts, rejects = load(db, tmp_path / "a.csv")
    assert counts == (1, 0, 1, 1)
    assert [line for line, _ in rejects] == [4]


def test_prices_of_another_adjustment_are_not_mixed_in(db, symbol, tmp_path):
    put(db, answer(symbol, [bar(0)]), source="csv")
    header, row = HEADER.replace("volume", "adjustment"), GOOD.replace(",10,5", ",10,split")
    (tmp_path / "a.csv").write_text(header + row)
    _, [(line, reason)] = load(db, tmp_path / "a.csv")
    assert line == 2
    assert "raw here, split in the file" in reason


def test_what_the_universe_lacks_is_named_with_the_mend(db, symbol, run, tmp_path, capsys):
    (tmp_path / "a.csv").write_text(HEADER + GOOD.replace("SPY", "NEW1"))
    assert run(db, "import", "a.csv") == 2
    message = capsys.readouterr().err
    assert "NEW1 is not in the universe" in message
    assert "--create-symbols" in message
    with pytest.raises(UnknownSymbolError):
        load(db, tmp_path / "a.csv")
    assert (
        run(db, "import", "a.csv", "--create-symbols", "--tier", "T1", "--exchange", "NASDAQ") == 0
    )
    assert rows(db, "SELECT tier, calendar, exchange FROM universe WHERE symbol = 'NEW1'") == [
        ("T1", "NYSE", "NASDAQ")
    ]


def test_files_that_can_not_be_one_are_refused(db, symbol, run, tmp_path, capsys):
    (tmp_path / "a.csv").write_text("symbol,close\nSPY,1\n")
    assert run(db, "import", "a.csv") == 2
    assert "lacks the columns interval, ts, provider" in capsys.readouterr().err
    assert run(db, "import", "nowhere.csv") == 2
    (tmp_path / "a.txt").write_text("x")
    assert run(db, "import", "a.txt") == 2
    assert "does not tell its format" in capsys.readouterr().err
    (tmp_path / "b.parquet").write_text("x")
    assert run(db, "import", "b.parquet") == 2
    assert run(db, "export", "--format", "parquet") == 2


def test_rows_stream_whatever_the_length(db, symbol, tmp_path, monkeypatch):
    put(db, answer(symbol, [bar(m) for m in range(390)]))
    monkeypatch.setattr("db.copy_arrow.BATCH_ROWS", 100)
    monkeypatch.setattr("db.copy_arrow.stream.__kwdefaults__", {"batch_rows": 100})
    with export(db, Selection()) as found:
        sizes = [batch.num_rows for part in found.parts for batch in part]
    assert sizes == [100, 100, 100, 90]


def test_a_read_of_the_file_goes_no_further_than_it_is_asked(tmp_path):
    path = tmp_path / "a.csv"
    with path.open("w") as file:
        file.write(HEADER)
        file.writelines(GOOD for _ in range(200_000))
    with read_rows(path) as (lines, position):
        next(lines)
        assert position.fraction < 0.1


class TestBars:
    """`ops bars` streams the winner's bars in every format."""

    WORDS = ("bars", "SPY", "--start", "2026-03-02T14:30:00Z", "--end", "2026-03-02T15:00:00Z")

    def test_text_formats_go_to_stdout(self, db, symbol, run, capfdbinary):
        put(db, answer(symbol, [bar(0, 10.5), bar(1, volume=None)]))
        assert run(db, *self.WORDS, "--format", "csv") == 0
        head, first, second = capfdbinary.readouterr().out.decode().splitlines()
        assert head.startswith("symbol,interval,ts,open,high,low,close,volume,vwap")
        assert first.startswith(
            '"SPY","1m","2026-03-02T14:30:00Z",10.5,11.5,9.5,10.5,100,,,"yfinance","final",'
        )
        assert ",10,11,9,10,,,," in second
        assert run(db, *self.WORDS, "--format", "ndjson") == 0
        found = [json.loads(line) for line in capfdbinary.readouterr().out.splitlines()]
        assert [(row["ts"], row["close"], row["volume"]) for row in found] == [
            ("2026-03-02T14:30:00Z", 10.5, 100.0),
            ("2026-03-02T14:31:00Z", 10.0, None),
        ]

    def test_a_table_is_for_people(self, db, symbol, run, capsys):
        assert run(db, *self.WORDS) == 0
        assert "no bars in" in capsys.readouterr().err
        put(db, answer(symbol, [bar(0, 10.5), bar(1)]))
        assert run(db, *self.WORDS, "--interval", "5m") == 0
        head, row = capsys.readouterr().out.splitlines()
        assert head.split()[:5] == ["symbol", "interval", "ts", "open", "high"]
        assert row.split()[:4] == ["SPY", "5m", "2026-03-02T14:30:00Z", "10.5"]
        assert run(db, *self.WORDS, "--format", "table", "--output", "a.csv") == 2

    def test_a_file_says_what_knowledge_it_is_of(self, db, symbol, run, tmp_path, capsys):
        import pyarrow.parquet as pq  # noqa: PLC0415

        put(db, answer(symbol, [bar(0), bar(1)]))
        assert run(db, *self.WORDS, "--output", "a.parquet") == 0
        assert "2 bars as of " in capsys.readouterr().err
        table = pq.read_table(tmp_path / "a.parquet")
        assert table.column("ts").to_pylist() == [at(0), at(1)]
        assert run(db, *self.WORDS, "--format", "parquet") == 2


@pytest.mark.parametrize("more", [True, False], ids=["in mid-import", "after the last batch"])
def test_a_hold_that_was_lost_stops_the_import(db, symbol, tmp_path, more):
    (tmp_path / "a.csv").write_text(HEADER + GOOD + GOOD.replace("14:30", "14:40"))
    with read_rows(tmp_path / "a.csv") as (lines, _):
        revisions = [parse(line, cells) for line, cells in lines if not isinstance(cells, str)]
    importer = Importer(db).__enter__()
    importer.add(revisions[:1])
    with psycopg.connect(db.url, autocommit=True) as admin:
        admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'gapless-import' AND datname = current_database()"
        )
    if more:
        with pytest.raises(StorageError):
            importer.add(revisions[1:])
    with pytest.raises(StorageError):
        importer.__exit__(None, None, None)
    assert load(db, tmp_path / "a.csv")[0] == (1, 0, 1, 0)
