"""A folder of bar files as a source: which files are read, and what becomes of a bad row."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from core.clock import SystemClock
from core.errors import (
    BadRequestError,
    MalformedPayloadError,
    ProviderUnavailableError,
    SymbolNotFoundError,
)
from core.sessions import Calendar, Session
from core.windows import Window
from core.words import Capability
from providers.base import Page, Request
from providers.csv import CsvFolder

OPEN = datetime(2024, 3, 6, 14, 30, tzinfo=UTC)
HOURS = Window(OPEN, OPEN + timedelta(hours=6.5))
NEW_YORK = Calendar(
    "XNYS", 1, date(2024, 1, 1), date(2024, 12, 31), [Session(date(2024, 3, 6), (HOURS,))]
)
HEADER = "ts,open,high,low,close,volume\n"
GOOD = "2024-03-06T14:30:00Z,1,2,0.5,1.5,900\n"


def ask(folder: Path, capability: Capability = Capability.BARS_1M, window: Window = HOURS) -> Page:
    provider = CsvFolder(folder, SystemClock())
    (call,) = provider.plan(Request(capability, ("AAPL",), window))
    return provider.parse(call, provider.send(call, 1.0), NEW_YORK)


def put(folder: Path, text: str, name: str = "2024-03-06.csv") -> Path:
    path = folder / "AAPL" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize(
    "text",
    [
        HEADER + GOOD,
        "\ufeff" + HEADER + GOOD,
        (HEADER + GOOD).replace("\n", "\r\n"),
        HEADER + GOOD.rstrip(),
        HEADER + "\n" + GOOD + "\n",
        "volume,note,ts,close,low,high,open\n900,x,2024-03-06T14:30:00Z,1.5,0.5,2,1\n",
        HEADER + "2024-03-06T09:30:00-05:00,1,2,0.5,1.5,900\n",
        'ts, open, high, low, close, volume\n"2024-03-06T14:30:00Z", 1, 2, 0.5, 1.5, 900\n',
    ],
    ids=["plain", "mark", "windows", "no last newline", "blank", "order", "offset", "spaces"],
)
def test_files_are_read_as_people_write_them(tmp_path: Path, text: str) -> None:
    put(tmp_path, text)

    page = ask(tmp_path)

    assert page.rejects == []
    (bar,) = page.bars["AAPL"]
    assert (bar.ts, bar.open, bar.high, bar.low, bar.close) == (OPEN, 1.0, 2.0, 0.5, 1.5)
    assert bar.volume == 900.0


def test_empty_prices_are_an_absent_bar_and_an_empty_volume_is_unknown(tmp_path: Path) -> None:
    put(tmp_path, HEADER + "2024-03-06T14:30:00Z,,,,,\n2024-03-06T14:31:00Z,1,1,1,1,\n")

    page = ask(tmp_path)

    assert [(bar.ts.minute, bar.volume) for bar in page.bars["AAPL"]] == [(31, None)]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("yesterday,1,2,0.5,1.5,900", "ts is 'yesterday'"),
        ("2024-03-06T14:31:00,1,2,0.5,1.5,900", "it has no zone; end it with Z"),
        ("2024-03-06T14:31:00Z,1,0.2,0.5,1.5,900", "out of order"),
        ("2024-03-06T14:31:00Z,one,2,0.5,1.5,900", "open is 'one'; expected a number"),
        ("2024-03-06T14:31:00Z,1,2", "low is None; expected a number"),
        ("2024-03-06T14:31:00Z,1,2,0.5,nan,900", "not all finite"),
    ],
)
def test_a_bad_row_is_reported_with_file_and_line_and_spoils_no_other(
    tmp_path: Path, row: str, reason: str
) -> None:
    put(tmp_path, HEADER + GOOD + row + "\n" + "2024-03-06T14:32:00Z,1,2,0.5,1.5,1\n")

    page = ask(tmp_path)

    assert [bar.ts.minute for bar in page.bars["AAPL"]] == [30, 32]
    ((symbol, ts, why),) = page.rejects
    assert symbol == "AAPL"
    assert HOURS.contains(ts)
    assert why.startswith("AAPL/2024-03-06.csv line 3: ")
    assert reason in why


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"time,open,high,low,close,volume\n", "'ts' is not in list"),
        (b"", "'ts' is not in list"),
        (HEADER.encode() + b"\xff\xfe\x00", "codec can't decode"),
        (HEADER.encode() + b'"2024', "unexpected end of data"),
    ],
)
def test_a_file_that_is_no_bar_file_is_malformed_by_name(
    tmp_path: Path, content: bytes, words: str
) -> None:
    put(tmp_path, "").write_bytes(content)

    with pytest.raises(MalformedPayloadError, match=r"read AAPL/2024-03-06\.csv") as found:
        ask(tmp_path)

    assert words in str(found.value)
    assert "header ts,open,high,low,close,volume" in str(found.value)


def test_days_without_a_file_have_no_bars(tmp_path: Path) -> None:
    put(tmp_path, HEADER + GOOD, "2024-01-02.csv")

    assert list(ask(tmp_path).bars["AAPL"]) == []


def test_a_session_that_crosses_midnight_utc_is_found_beside_its_date(tmp_path: Path) -> None:
    put(tmp_path, HEADER + GOOD, "2024-03-07.csv")

    assert len(ask(tmp_path).bars["AAPL"]) == 1


def test_daily_bars_come_from_their_own_file_and_are_never_made(tmp_path: Path) -> None:
    put(tmp_path, HEADER + GOOD)
    with pytest.raises(SymbolNotFoundError, match=r"no AAPL/daily\.csv"):
        ask(tmp_path, Capability.BARS_EOD)

    put(tmp_path, "session,open,high,low,close,volume\n2024-03-06,1,2,1,2,7\n", "daily.csv")

    (bar,) = ask(tmp_path, Capability.BARS_EOD).bars["AAPL"]
    assert (bar.session, bar.ts, bar.volume) == (date(2024, 3, 6), OPEN, 7.0)


def test_a_symbol_without_a_folder_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(SymbolNotFoundError, match="no folder AAPL"):
        ask(tmp_path)


@pytest.mark.parametrize("symbol", ["..", ".", "", "a/b", "../AAPL", "/etc", "a\0b"])
def test_no_symbol_leads_out_of_the_folder(tmp_path: Path, symbol: str) -> None:
    with pytest.raises(BadRequestError, match="the name of a folder is expected"):
        CsvFolder(tmp_path, SystemClock()).plan(Request(Capability.BARS_1M, (symbol,), HOURS))


def test_a_file_that_can_not_be_read_is_unavailable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(tmp_path, HEADER)

    def refuse(_self: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    # Not by its mode: root may read everything.
    monkeypatch.setattr(Path, "read_bytes", refuse)

    with pytest.raises(ProviderUnavailableError, match=r"2024-03-06\.csv: Permission denied"):
        ask(tmp_path)


def test_recorded_bars_of_new_york_are_read_whole(shared_recorded: Path) -> None:
    hours = Window(
        datetime(2013, 10, 8, 13, 30, tzinfo=UTC), datetime(2013, 10, 8, 20, 0, tzinfo=UTC)
    )
    calendar = Calendar(
        "XNYS", 1, date(2013, 1, 1), date(2013, 12, 31), [Session(date(2013, 10, 8), (hours,))]
    )
    provider = CsvFolder(shared_recorded / "bars", SystemClock())
    (call,) = provider.plan(Request(Capability.BARS_1M, ("SPY",), hours))

    page = provider.parse(call, provider.send(call, 1.0), calendar)

    assert len(page.bars["SPY"]) == 390
    assert page.rejects == []
