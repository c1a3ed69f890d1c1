"""Binance as the simulator plays it, asked by the vendor's own client."""

import csv
from collections.abc import Iterator
from datetime import datetime
from itertools import pairwise
from typing import Any

import pytest
from binance_common.configuration import ConfigurationRestAPI
from binance_common.errors import BadRequestError, RateLimitBanError, TooManyRequestsError
from binance_sdk_spot.spot import Spot

from tests.servers import REPOSITORY
from tests.simulated import Simulator, moment

COINS = [
    {"symbol": "BUSYUSDT", "tier": "T0", "exchange": "24/7"},
    {"symbol": "DULLUSDT", "tier": "T2", "exchange": "24/7"},
]
AT = moment("2024-03-05T12:00")
NOON = AT * 1000
HOUR = 3_600_000


def client(sim: Simulator, **words: Any) -> Any:
    # The client repeats what fails three times, a second apart.
    made = ConfigurationRestAPI(base_path=sim.url("binance"), retries=0, timeout=10_000, **words)
    api = Spot(config_rest_api=made).rest_api
    api._session.trust_env = False
    return api


@pytest.fixture(scope="module")
def sim() -> Iterator[Simulator]:
    with Simulator(at=AT, market={"universe": COINS}, sources={"binance": {}}) as running:
        yield running


@pytest.fixture(autouse=True)
def at_noon(sim: Simulator) -> None:
    sim.move(AT)


def klines(asker: Any, symbol: str, interval: str = "1m", **words: Any) -> list[list[Any]]:
    return asker.klines(symbol, interval, **words).data()


def known(sim: Simulator, symbol: str, start: float, end: float) -> dict[int, tuple[float, ...]]:
    return {
        minute: [version for version in versions if version[0] <= AT][-1][1:]
        for minute, versions in sim.truth(symbol, start, end).items()
    }


def test_the_client_reads_minutes_in_twelve_columns(sim: Simulator) -> None:
    rows = klines(client(sim), "BUSYUSDT", start_time=NOON - HOUR, end_time=NOON - 1)

    assert {len(row) for row in rows} == {12}
    assert [row[6] - row[0] for row in rows] == [59_999] * 60
    traded = {row[0] // 1000: tuple(map(float, row[1:6])) for row in rows if row[8]}
    assert traded == known(sim, "BUSYUSDT", AT - 3600, AT)


def test_a_minute_without_trades_repeats_the_last_price(sim: Simulator) -> None:
    rows = klines(client(sim), "DULLUSDT", start_time=NOON - 2 * HOUR, end_time=NOON - 1)

    assert len(rows) == 120
    traded = known(sim, "DULLUSDT", AT - 7200, AT)
    assert {row[0] // 1000 for row in rows if row[8]} == set(traded)
    assert 0 < len(traded) < 120
    for before, row in pairwise(rows):
        if not row[8]:
            assert row[1:5] == [before[4]] * 4
            assert float(row[5]) == float(row[7]) == 0


def test_with_a_start_the_oldest_come_and_without_the_newest(sim: Simulator) -> None:
    asker = client(sim)

    oldest = klines(asker, "BUSYUSDT", start_time=NOON - 10 * HOUR, limit=5)
    newest = klines(asker, "BUSYUSDT", limit=5)

    assert [row[0] for row in oldest] == [NOON - 10 * HOUR + n * 60_000 for n in range(5)]
    assert newest[-1][0] in {NOON, NOON - 60_000}
    assert len(newest) == 5
    assert len(klines(asker, "BUSYUSDT", start_time=NOON - 20 * HOUR, limit=5000)) == 1000
    assert len(klines(asker, "BUSYUSDT", start_time=NOON - 20 * HOUR)) == 500


def test_the_last_row_is_the_running_minute(sim: Simulator) -> None:
    sim.move(AT + 40)

    rows = klines(client(sim), "BUSYUSDT", start_time=NOON - 60_000)

    assert [row[0] for row in rows] == [NOON - 60_000, NOON]
    assert sim.log()[-1]["inline"][-1][-1] == "partial"


def test_days_open_at_midnight_utc(sim: Simulator) -> None:
    start = moment("2024-03-03T00:00") * 1000

    rows = klines(client(sim), "BUSYUSDT", "1d", start_time=start)

    assert [row[0] for row in rows] == [start + n * 86_400_000 for n in range(3)]
    assert [row[6] - row[0] for row in rows] == [86_399_999] * 3


def test_the_client_may_ask_for_microseconds(sim: Simulator) -> None:
    asker = client(sim, time_unit="MICROSECOND")

    (row,) = klines(asker, "BUSYUSDT", start_time=NOON - 60_000, limit=1)

    assert (row[0], row[6]) == ((NOON - 60_000) * 1000, NOON * 1000 - 1)


def test_the_client_reads_the_book_of_one_of_some_and_of_all(sim: Simulator) -> None:
    asker = client(sim)

    one = asker.ticker_book_ticker(symbol="BUSYUSDT")
    some = asker.ticker_book_ticker(symbols=["DULLUSDT", "BUSYUSDT"])
    everybody = asker.ticker_book_ticker()

    assert float(one.data().actual_instance.bid_price) < float(one.data().actual_instance.ask_price)
    assert [row.symbol for row in some.data().actual_instance] == ["DULLUSDT", "BUSYUSDT"]
    assert len(everybody.data().actual_instance) == 2
    assert some.headers["Date"] == "Tue, 05 Mar 2024 12:00:00 GMT"


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        ({"symbol": "NOPE"}, -1121, "Invalid symbol."),
        ({"symbols": ["BUSYUSDT", "NOPE"]}, -1121, "Invalid symbol."),
        ({"symbol": "busy/usdt"}, -1100, "Illegal characters found in parameter"),
        ({"symbols": ["busy"]}, -1100, "Illegal characters found in parameter"),
        ({"symbols": ["BUSYUSDT", "BUSYUSDT"]}, -1151, "multiple times"),
        ({"symbol": "BUSYUSDT", "symbols": ["BUSYUSDT"]}, -1128, "Combination"),
    ],
)
def test_a_question_about_a_wrong_symbol_is_refused_whole(sim, words, code: int, text: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        client(sim).ticker_book_ticker(**words)

    assert (caught.value.status_code, text in str(caught.value)) == (code, True)


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("", -1102),
        ("symbol=BUSYUSDT", -1102),
        ("symbol=BUSYUSDT&interval=7m", -1120),
        ("symbol=BUSYUSDT&interval=1h", -1120),
        ("symbol=BUSYUSDT&interval=1m&startTime=noon", -1100),
        ("symbol=BUSYUSDT&interval=1m&limit=0", -1130),
    ],
)
def test_bad_questions_have_binances_codes(sim: Simulator, query: str, code: int) -> None:
    answer = sim.ask("GET", f"{sim.url('binance')}/api/v3/klines?{query}")

    assert (answer.status, answer.json["code"]) == (400, code)


def test_weight_fills_any_minute_and_the_header_tells_it() -> None:
    limits = [{"units": 10, "seconds": 60}]
    with Simulator(
        at=AT, market={"universe": COINS}, sources={"binance": {"limits": limits}}
    ) as tight:
        asker = client(tight)
        used = [
            asker.ticker_book_ticker(symbols=["BUSYUSDT"]),
            asker.ticker_book_ticker(symbol="BUSYUSDT"),
        ]
        tight.move(AT + 30)
        used.append(asker.klines("BUSYUSDT", "1m", limit=1))
        weights = [reply.headers["X-MBX-USED-WEIGHT-1M"] for reply in used]
        assert weights == ["4", "6", "8"]
        assert [limit.count for limit in used[-1].rate_limits][:1] == [8]
        url = tight.url("binance") + "/api/v3/ticker/bookTicker"
        refused = tight.ask("GET", url)
        assert (refused.status, refused.json["code"]) == (429, -1003)
        assert "current limit is 10 request weight per 1 MINUTE" in refused.json["msg"]
        assert refused.headers["Retry-After"] == "30"
        assert asker.klines("BUSYUSDT", "1m", limit=1).headers["X-MBX-USED-WEIGHT-1M"] == "10"
        with pytest.raises(TooManyRequestsError):
            asker.klines("BUSYUSDT", "1m", limit=1)
        tight.move(AT + 61)
        assert asker.ticker_book_ticker().headers["X-MBX-USED-WEIGHT-1M"] == "8"
        assert [row["violation"] is None for row in tight.log()].count(False) == 2


def test_who_goes_on_asking_is_banned_and_longer_the_second_time() -> None:
    limits = [{"units": 2, "seconds": 60}]
    with Simulator(
        at=AT, market={"universe": COINS}, sources={"binance": {"limits": limits}}
    ) as tight:
        url, lengths = tight.url("binance") + "/api/v3/klines?symbol=BUSYUSDT&interval=1m", []
        for market in (AT, AT + 600):
            tight.move(market)
            statuses = [tight.ask("GET", url).status for _ in range(13)]
            assert statuses == [200] + [429] * 10 + [418] * 2
            lengths.append(int(tight.ask("GET", url).headers["Retry-After"]))
            with pytest.raises(RateLimitBanError, match="IP banned until"):
                client(tight).klines("BUSYUSDT", "1m")
        assert lengths == [120, 240]
        tight.move(AT + 600 + 239)
        assert tight.ask("GET", url).status == 418
        tight.move(AT + 600 + 241)
        assert tight.ask("GET", url).status == 200


def test_a_recorded_day_comes_back_number_by_number() -> None:
    file = REPOSITORY.parent / "shared" / "recorded" / "bars" / "BTCBUSD" / "2022-12-13.csv"
    if not file.is_file():
        pytest.skip(f"{file} is not on this machine")
    with file.open(newline="") as lines:
        written = {
            int(datetime.fromisoformat(row["ts"]).timestamp()): tuple(
                float(row[name]) for name in ("open", "high", "low", "close", "volume")
            )
            for row in csv.DictReader(lines)
        }
    market = {
        "kind": "csv",
        "dir": str(file.parent.parent),
        "session": "2022-12-13",
        "calendar": "24/7",
        "settle_share": 0,
        "restate_share": 0,
    }
    with Simulator(at=moment("2022-12-14T00:10"), market=market, sources={"binance": {}}) as replay:
        asker, start = client(replay), moment("2022-12-13T00:00") * 1000
        rows = [
            row
            for n in (0, 720)
            for row in klines(asker, "BTCBUSD", start_time=start + n * 60_000, limit=720)
        ]

    assert {row[0] // 1000: tuple(map(float, row[1:6])) for row in rows} == written
