"""Recorded bars as a market: the file's own floats, its own symbols, its own exchange."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from core.errors import SettingsError
from sim.config import MarketConfig
from sim.market.model import Market, build_market

RECORDED = Path(__file__).resolve().parents[3] / "shared" / "recorded" / "bars"
HEADER = "ts,open,high,low,close,volume\n"


def moment(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


def write(folder: Path, symbol: str, day: str, rows: list[str]) -> None:
    path = folder / symbol / f"{day}.csv"
    path.parent.mkdir(exist_ok=True)
    path.write_text(HEADER + "".join(f"{row}\n" for row in rows))


def minutes(start: str, count: int) -> list[str]:
    begin = datetime.fromisoformat(start)
    return [
        f"{begin + timedelta(minutes=n):%Y-%m-%dT%H:%M}:00Z,10,11,9,10.5,100" for n in range(count)
    ]


def market(folder: Path, session: str | None = None, calendar: str | None = None) -> Market:
    day = date.fromisoformat(session) if session else None
    return build_market(MarketConfig(kind="csv", dir=folder, session=day, calendar=calendar), 0.0)


def test_values_are_exactly_the_files(tmp_path: Path) -> None:
    write(
        tmp_path,
        "A",
        "2024-03-05",
        ["2024-03-05T14:30:00Z,17212.12,17216.55,0.1000,17208.8801,110.66042"],
    )
    of = market(tmp_path, calendar="XNYS")
    (bar,) = of.versions("A", moment("2024-03-05T14:30"))
    assert bar == (0, moment("2024-03-05T14:31"), 17212.12, 17216.55, 0.1, 17208.8801, 110.66042)


def test_rows_outside_regular_hours_are_there_but_not_regular(tmp_path: Path) -> None:
    write(
        tmp_path,
        "A",
        "2024-03-05",
        [f"2024-03-05T{at}:00Z,10,10,10,10,1" for at in ("13:00", "14:30", "21:00", "23:15")],
    )
    of = market(tmp_path, calendar="XNYS")
    day = of.day(of.universe.instruments[0], of.session)
    traded = [minute for row, minute in enumerate(day.minutes) if day.versions(row)]
    assert [datetime.fromtimestamp(m, UTC).strftime("%H:%M") for m in traded] == [
        "13:00", "14:30", "21:00", "23:15",
    ]  # fmt: skip
    assert int(day.grid.regular.sum()) == 390
    assert [m for m in traded if day.grid.regular[day.minutes.index(m)]] == [
        moment("2024-03-05T14:30")
    ]


def test_the_daily_bar_is_of_regular_hours_alone(tmp_path: Path) -> None:
    write(
        tmp_path,
        "A",
        "2024-03-05",
        [
            "2024-03-05T13:00:00Z,1,99,1,50,7",
            "2024-03-05T14:30:00Z,10,12,9,11,100",
            "2024-03-05T20:59:00Z,11,13,10,12,50",
            "2024-03-05T21:00:00Z,12,98,2,60,9",
        ],
    )
    of = market(tmp_path, calendar="XNYS")
    (bar,) = of.day(of.universe.instruments[0], of.session).daily
    assert bar[2:] == (10, 13, 9, 12, 150)


def test_only_symbols_with_a_file_for_the_session_take_part(tmp_path: Path) -> None:
    write(tmp_path, "A", "2024-03-05", minutes("2024-03-05T14:30", 390))
    write(tmp_path, "B", "2024-03-04", minutes("2024-03-04T14:30", 390))
    assert [one.symbol for one in market(tmp_path, "2024-03-05").universe.instruments] == ["A"]
    assert market(tmp_path).session.day == date(2024, 3, 5)


def test_a_session_that_no_file_has_names_those_that_are_there(tmp_path: Path) -> None:
    write(tmp_path, "A", "2024-03-05", minutes("2024-03-05T14:30", 390))
    with pytest.raises(SettingsError, match="there are files for 2024-03-05"):
        market(tmp_path, "2024-03-06")


@pytest.mark.parametrize(
    ("start", "count", "exchange"),
    [
        ("2024-03-05T14:30", 390, "XNYS"),
        ("2024-03-05T09:00", 900, "XNYS"),
        ("2024-03-05T03:45", 375, "XBOM"),
        ("2024-03-05T00:00", 1440, "24/7"),
        ("2024-03-05T08:00", 510, "XLON"),
    ],
)
def test_the_exchange_is_inferred_from_the_hours(
    tmp_path: Path, start: str, count: int, exchange: str
) -> None:
    write(tmp_path, "A", "2024-03-05", minutes(start, count))
    of = market(tmp_path)
    assert of.universe.instruments[0].exchange == exchange
    assert f"A: exchange {exchange} inferred" in of.notes[0]


def test_universe_csv_comes_before_inference_and_the_named_calendar(tmp_path: Path) -> None:
    write(tmp_path, "A", "2024-03-05", minutes("2024-03-05T14:30", 390))
    write(tmp_path, "B", "2024-03-05", minutes("2024-03-05T14:30", 390))
    (tmp_path / "universe.csv").write_text("symbol,exchange,tier\nA,NASDAQ,T1\n")
    of = market(tmp_path, calendar="XTSE")
    assert {
        one.symbol: (one.exchange, one.sessions.code, one.tier) for one in of.universe.instruments
    } == {
        "A": ("NASDAQ", "XNYS", "T1"),
        "B": ("XTSE", "XTSE", "T0"),
    }
    assert of.notes == []


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (["2024-03-05T14:30:00Z,1,1,1,1,x"], "line 2"),
        (["2024-03-05T14:30:00Z,1,1,1,1"], "line 2"),
        (["2024-03-05T14:30:30Z,1,1,1,1,1"], "expected a whole minute"),
        (["2024-03-05T14:30:00,1,1,1,1,1"], "expected a whole minute with Z"),
        (["2024-03-05T14:30:00Z,nan,1,1,1,1"], "finite numbers"),
        (["2024-03-05T14:31:00Z,1,1,1,1,1", "2024-03-05T14:31:00Z,1,1,1,1,1"], "line 3"),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(
    tmp_path: Path, rows: list[str], expected: str
) -> None:
    write(tmp_path, "A", "2024-03-05", rows)
    with pytest.raises(SettingsError, match=expected):
        market(tmp_path)


def test_another_header_is_refused(tmp_path: Path) -> None:
    (tmp_path / "A").mkdir()
    (tmp_path / "A" / "2024-03-05.csv").write_text("time,o,h,l,c,v\n")
    with pytest.raises(SettingsError, match="expected 'ts,open,high,low,close,volume'"):
        market(tmp_path)


def test_a_universe_file_without_its_columns_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "A", "2024-03-05", minutes("2024-03-05T14:30", 1))
    (tmp_path / "universe.csv").write_text("ticker,tier\nA,T0\n")
    with pytest.raises(SettingsError, match="lacks the column\\(s\\) exchange, symbol"):
        market(tmp_path)


def test_yesterdays_file_gives_the_previous_close(tmp_path: Path) -> None:
    write(
        tmp_path,
        "A",
        "2024-03-04",
        ["2024-03-04T20:59:00Z,1,8,1,7.5,1", "2024-03-04T21:30:00Z,9,9,9,9,1"],
    )
    write(tmp_path, "A", "2024-03-05", ["2024-03-05T14:30:00Z,10,10,10,10,1"])
    of = market(tmp_path, calendar="XNYS")
    quote = of.quote(of.universe.instruments[0], moment("2024-03-05T14:31"))
    assert quote is not None
    assert quote.previous_close == 7.5


@pytest.mark.parametrize(
    ("session", "symbols"),
    [
        ("2013-10-08", {"BAC": "XNYS", "SPY": "XNYS"}),
        ("2014-06-06", {"AAPL": "XNYS"}),
        ("2014-06-09", {"AAPL": "XNYS"}),
        ("2019-07-10", {"YESBANK": "XBOM"}),
        ("2022-12-13", {"BTCBUSD": "24/7"}),
    ],
)
def test_recorded_days_find_their_symbols_and_exchanges(
    session: str, symbols: dict[str, str]
) -> None:
    if not RECORDED.is_dir():
        pytest.skip(f"needs the recorded bars in {RECORDED}")
    of = market(RECORDED, session)
    assert {one.symbol: one.exchange for one in of.universe.instruments} == symbols
    for one in of.universe.instruments:
        path = RECORDED / one.symbol / f"{session}.csv"
        rows = [line.split(",") for line in path.read_text().splitlines()[1:]]
        for cells in rows:
            (bar,) = of.versions(one.symbol, moment(cells[0].removesuffix("Z")))
            assert bar[2:] == tuple(float(cell) for cell in cells[1:])
