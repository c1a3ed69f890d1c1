"""As-of reads against an independent model, and writer processes that are killed and stopped: in short.

``make bench ARGS="storage"`` does the same at full length.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest

from bench.databases import connected
from bench.run import Place
from bench.storage import eight_writers, probes, stalled
from bench.storage.model import Model
from bench.storage.probing import Probing, Reader, census_differs
from bench.storage.story import batch
from core.clock import SystemClock
from db.candles import write
from db.pool import Database
from tests.servers import _database
from tests.storage import OPEN, symbols

pytestmark = pytest.mark.integration

CLOCK = SystemClock()


@pytest.fixture
def place(db: Database, database_url: str) -> Iterator[Place]:
    with connected(database_url) as owner:
        yield Place(database_url, db, owner)


@pytest.fixture
def other_place(postgres_server, template_database) -> Iterator[Place]:
    """A second database, for the result that the first is compared with."""
    with (
        _database(postgres_server.url, template=template_database) as url,
        connected(url) as owner,
    ):
        db = Database(url, CLOCK)
        yield Place(url, db, owner)
        db.close()


@pytest.mark.stress
def test_reads_show_what_was_known_and_never_change_while_processes_write_and_stand_still(
    place, tmp_path
):
    sizes = probes.Sizes(probes=20_000, reads=40, commits=120, reloads=3)

    found = probes.probe(place, CLOCK, tmp_path, sizes)

    assert (found.probes, found.reads, found.reloads) == (20_000, 40, 3)
    assert found.commits >= 120
    assert (found.lookahead, found.misses, found.wrong, found.census_differs) == (0, 0, 0, 0)
    assert (found.changed, found.reload_changed) == (0, 0)


@pytest.mark.stress
def test_writers_killed_at_random_leave_what_one_writer_leaves(place, other_place, tmp_path):
    sizes = eight_writers.Sizes(writers=4, symbols=8, pages=3, kills=4)

    found = eight_writers.ingest(place, other_place, CLOCK, tmp_path, sizes)

    assert found.rows > 8 * 3 * 90
    assert (found.differences, found.surfaced, found.deadlocks_surfaced) == (0, 0, 0)


@pytest.mark.stress
def test_a_writer_that_stands_still_in_a_transaction_is_waited_for_seconds_not_for_ever(
    place, tmp_path
):
    found = stalled.stall(place, CLOCK, tmp_path, seconds=13)

    assert found.other_symbols_s < 3
    assert found.reader_horizon_s < 3
    assert 5 < found.reader_now_s < 15, "until the stuck write is ended"
    assert found.same_symbols_s < 15
    assert (found.errors, found.recovered) == (0, True)


class TestTheProbesNotice:
    """A bench that can't fail proves nothing."""

    @pytest.fixture
    def told(self, place) -> tuple[Place, Model, Probing, dict[str, int]]:
        ids = symbols(place.db, *(f"P{n:02d}" for n in range(42)))
        model, commits = Model([]), list[datetime]()
        for number in range(25):
            one = batch(0, number, sorted(ids.values()), OPEN)
            commits.append(write(place.db, one).as_of)
            model.take(one, commits[-1])
        reader = Reader(place.db, sorted(ids), OPEN)
        return place, model, Probing(reader, model, ids, commits), ids

    def test_nothing_where_nothing_is_wrong(self, told):
        place, model, probing, _ = told
        counted = probing.run(20_000)
        assert {counted[key] for key in ("lookahead", "misses", "wrong")} == {0}
        assert census_differs(place, model) == 0

    @pytest.mark.parametrize(
        ("tampering", "noticed"),
        [
            # Every version a little earlier than its write: shown before it was known.
            ("UPDATE candles_intraday SET as_of = as_of - interval '2 ms'", "lookahead"),
            ("UPDATE candles_intraday SET as_of = as_of + interval '2 ms'", "misses"),
            ("UPDATE candles_intraday SET close = close + 1 WHERE close IS NOT NULL", "wrong"),
            ("DELETE FROM candles_intraday WHERE symbol_id % 2 = 0", "misses"),
        ],
    )
    def test_tampering(self, told, tampering, noticed):
        place, _, probing, _ = told
        place.owner.execute("ALTER TABLE candles_intraday DISABLE TRIGGER append_only")
        place.owner.execute(tampering)

        assert probing.run(20_000)[noticed] > 0

    def test_a_version_too_many(self, told):
        place, model, _, _ = told
        place.owner.execute(
            "INSERT INTO candles_intraday (symbol_id, interval_s, ts, as_of, asked_at, open, high, low, close,"
            " provider_id, status) VALUES (1, 60, %s, %s, %s, 1, 1, 1, 1, 1, 2)",
            [OPEN, OPEN, OPEN + timedelta(days=1)],
        )
        assert census_differs(place, model) == 1


def test_rows_that_only_one_result_has_are_counted_once_each():
    assert sorted(eight_writers.only_in_one([(1,), (1,), (2,)], [(1,), (3,)])) == [
        (1,),
        (2,),
        (3,),
    ]
