"""Times and universe files as people write them."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from core.errors import UsageError
from core.words import Tier
from ops.times import edge_instant, instant, session_date
from ops.universe_files import read


def test_a_time_with_an_offset_becomes_utc() -> None:
    assert instant("2025-03-10T09:30:00-04:00", "--start") == datetime(
        2025, 3, 10, 13, 30, tzinfo=UTC
    )
    assert instant("2025-03-10T13:30:00Z", "--start") == datetime(2025, 3, 10, 13, 30, tzinfo=UTC)


def test_a_time_without_a_zone_is_refused_with_the_mend() -> None:
    with pytest.raises(UsageError, match="write 2025-03-10T13:30:00Z for UTC"):
        instant("2025-03-10T13:30:00", "--start")


@pytest.mark.parametrize("word", ["2025-03-10", "2025-03-10Z"])
def test_a_date_is_no_instant_and_where_a_session_does_it_is_offered(word: str) -> None:
    with pytest.raises(UsageError, match=r"a date, .* such as 2025-03-10T21:00:00Z"):
        instant(word, "--as-of")
    with pytest.raises(UsageError, match="write 2025-03-10 for the session"):
        edge_instant(word, "--start")


def test_only_a_bare_date_is_a_session() -> None:
    assert session_date("2025-03-10") is not None
    assert session_date("2025-03-10T00:00:00Z") is None
    assert session_date("yesterday-x") is None


def write(folder: Path, text: str) -> Path:
    path = folder / "universe.csv"
    path.write_text(text)
    return path


def test_our_own_layout_is_read_with_tier_and_exchange(tmp_path: Path) -> None:
    rows = read(
        write(tmp_path, "symbol,tier,exchange\nAAPL,T0,NASDAQ\nTCS,T1,NSE\n"), default_tier=Tier.T2
    )
    assert [(r.symbol, r.tier, r.calendar) for r in rows] == [
        ("AAPL", Tier.T0, "NYSE"),
        ("TCS", Tier.T1, "NSE"),
    ]


def test_symbols_alone_get_the_default_tier(tmp_path: Path) -> None:
    assert [
        r.tier for r in read(write(tmp_path, "symbol\nAAPL\nMSFT\n"), default_tier=Tier.T1)
    ] == [Tier.T1] * 2


def test_every_bad_row_is_listed_with_its_line(tmp_path: Path) -> None:
    path = write(
        tmp_path, "symbol,tier,exchange\nAAPL,T9,NYSE\nMSFT,T0,MARS\nIBM,T1,NYSE\nIBM,T1,NYSE\n"
    )
    with pytest.raises(UsageError) as caught:
        read(path, default_tier=Tier.T2)
    message = str(caught.value)
    assert "line 2: tier 'T9' of AAPL is unknown" in message
    assert "line 3: exchange 'MARS' is unknown" in message
    assert "symbol IBM stands 2 times" in message
    assert "nothing was loaded" in message


def test_a_wrong_column_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has the columns ticker, tier; expected symbol"):
        read(write(tmp_path, "ticker,tier\nAAPL,T0\n"), default_tier=Tier.T2)


def test_the_nasdaq_directory_is_read_without_its_test_issues_and_footer(tmp_path: Path) -> None:
    text = (
        "Symbol|Security Name|Market Category|Test Issue|Financial Status|Round Lot Size|ETF|NextShares\n"
        "AAPL|Apple Inc.|Q|N|N|100|N|N\n"
        "ZVZZT|Test|G|Y|N|100|N|N\n"
        "File Creation Time: 1120202521:31|||||||\n"
    )
    rows = read(write(tmp_path, text), default_tier=Tier.T2)
    assert [(r.symbol, r.exchange, r.calendar) for r in rows] == [("AAPL", "NASDAQ", "NYSE")]


def test_the_other_listed_directory_has_exchange_letters_and_share_classes(tmp_path: Path) -> None:
    text = (
        "ACT Symbol|Security Name|Exchange|CQS Symbol|ETF|Round Lot Size|Test Issue|NASDAQ Symbol\n"
        "BRK.B|Berkshire|N|BRK.B|N|100|N|BRK.B\n"
        "SPY|SPDR|P|SPY|Y|100|N|SPY\n"
    )
    rows = read(write(tmp_path, text), default_tier=Tier.T2)
    assert [(r.symbol, r.exchange) for r in rows] == [("BRK-B", "NYSE"), ("SPY", "ARCA")]


def test_a_file_that_is_not_there_is_said_plainly(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="can't be read"):
        read(tmp_path / "nothing.csv", default_tier=Tier.T2)
