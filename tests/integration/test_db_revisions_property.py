"""Any sequence of answers leaves exactly the revisions of an independent model, as of every instant."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.clock import SystemClock
from core.windows import runs
from core.words import Tier
from db import universe
from db.pool import Database
from tests.servers import _database
from tests.storage import MINUTE, OPEN, answer, at, bar, put, rows, span

pytestmark = pytest.mark.integration

MINUTES = 4
_NUMBERS = count()


@dataclass
class Version:
    status: str
    close: float | None
    volume: float | None
    asked: int


@dataclass
class Model:
    """What one source's series should hold: the rules, told once more in the plainest way."""

    history: dict[int, list[tuple[datetime, Version]]] = field(default_factory=dict)
    absent_in_last: dict[int, bool] = field(default_factory=dict)
    last_asked: int | None = None

    def newest(self, minute: int) -> Version | None:
        return self.history[minute][-1][1] if self.history.get(minute) else None

    def answered(self, as_of: datetime, asked: int, bars, lacking, settled_minutes, window) -> None:
        for minute, (close, volume, partial) in bars.items():
            version = self.changed(self.newest(minute), close, volume, partial, asked)
            if version is not None:
                self.history.setdefault(minute, []).append((as_of, version))
        newer = self.last_asked is None or asked > self.last_asked
        for minute in lacking & settled_minutes:
            stored = self.newest(minute)
            stays = stored is not None and stored.status != "withdrawn"
            if newer and stays and self.absent_in_last.get(minute):
                gone = Version("withdrawn", None, None, asked)
                self.history[minute].append((as_of, gone))
        if self.last_asked is None or asked >= self.last_asked:
            for minute in window & settled_minutes:
                self.absent_in_last[minute] = minute in lacking
            self.last_asked = asked

    def changed(self, stored, close, volume, partial, asked) -> Version | None:
        if stored is None:
            return Version("partial" if partial else "final", close, volume, asked)
        if asked < stored.asked or (partial and stored.status != "partial"):
            return None
        if not partial and stored.status == "partial":
            return Version("final", close, volume, asked)
        merged = stored.volume if volume is None else volume
        if (close, merged) == (stored.close, stored.volume):
            return None
        return Version("partial" if partial else "revised", close, merged, asked)

    def as_of(self, instant: datetime) -> dict[int, tuple[str, float | None, float | None]]:
        known = {}
        for minute, versions in self.history.items():
            visible = [version for as_of, version in versions if as_of <= instant]
            if visible:
                known[minute] = (visible[-1].status, visible[-1].close, visible[-1].volume)
        return known


@st.composite
def answers(draw):
    """Who answers, over which minutes, what: closed or growing bars, restated, lacking, repeated."""
    start = draw(st.integers(0, MINUTES - 1))
    end = draw(st.integers(start + 1, MINUTES))
    # Times of asking grow by one, mostly; a late write of an earlier ask comes in between.
    asked_back = draw(st.sampled_from([0, 0, 1]))
    settled = draw(st.sampled_from([MINUTES, MINUTES, start, end - 1]))
    bars, lacking = {}, set()
    for minute in range(start, end):
        kind = draw(st.sampled_from(["closed", "closed", "closed", "partial", "lacking", "silent"]))
        if kind == "lacking":
            lacking.add(minute)
        elif kind != "silent":
            close = draw(st.sampled_from([10.0, 10.0, 11.0]))
            bars[minute] = (close, draw(st.sampled_from([None, 5.0, 6.0])), kind == "partial")
    source = draw(st.sampled_from(["yfinance", "yfinance", "finnhub"]))
    return source, (start, end), asked_back, settled, bars, lacking


@pytest.fixture(scope="module")
def database(postgres_server, template_database) -> Iterator[Database]:
    with _database(postgres_server.url, template=template_database) as url:
        db = Database(url, SystemClock())
        yield db
        db.close()


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.lists(answers(), min_size=1, max_size=9), st.booleans())
def test_stored_revisions_equal_the_model_as_of_every_instant(database, sequence, twice):
    name = f"S{next(_NUMBERS)}"
    universe.load(database, [(name, Tier.T0, "NYSE", "")], "test", replace=False)
    with database.transaction() as conn:
        symbol_id = universe.resolve(conn, [name])[name].symbol_id
    models = {"yfinance": Model(), "finnhub": Model()}
    instants = []
    for number, (source, (start, end), back, settled, bars, lacking) in enumerate(sequence):
        asked = 10 * number - 15 * back
        given_bars = [
            bar(minute, close, volume=volume, partial=partial)
            for minute, (close, volume, partial) in sorted(bars.items())
        ]
        given_answer = answer(
            symbol_id,
            given_bars,
            window=span(start, end),
            asked=OPEN + timedelta(hours=1, seconds=asked),
            settled=at(settled),
            lacking=runs((at(minute) for minute in sorted(lacking)), MINUTE),
        )
        result = put(database, given_answer, source=source)
        models[source].answered(
            result.as_of, asked, bars, lacking, set(range(settled)), set(range(start, end))
        )
        instants.append(result.as_of)
        if twice:
            again = put(database, given_answer, source=source)
            assert (again.final, again.revised, again.partial, again.withdrawn) == (0, 0, 0, 0)

    for instant in [*instants, *(i - timedelta(microseconds=1) for i in instants)]:
        found: dict[str, dict] = {"yfinance": {}, "finnhub": {}}
        for ts, provider, status, close, volume in rows(
            database,
            "SELECT ts, provider, status, close, volume"
            " FROM candles_all_as_of(%s, '1m', NULL, NULL, %s)",
            [name],
            instant,
        ):
            found[provider][(ts - OPEN) // MINUTE] = (status, close, volume)
        assert found == {source: model.as_of(instant) for source, model in models.items()}
