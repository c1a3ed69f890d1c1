"""Yahoo as the simulator plays it: every quirk on the wire, and the log that admits to it."""

from collections.abc import Iterator

import pytest

from tests.simulated import CLOSE, OPEN, Simulator, moment


@pytest.fixture(scope="module")
def sim() -> Iterator[Simulator]:
    with Simulator() as running:
        yield running


@pytest.fixture(autouse=True)
def at_an_hour_after_the_open(sim: Simulator) -> None:
    sim.move(OPEN + 3600)


def known(
    sim: Simulator, symbol: str, start: float, end: float, at: float
) -> dict[int, tuple[float, ...]]:
    """What a perfect collector knows at ``at`` of the closed minutes."""
    found: dict[int, tuple[float, ...]] = {}
    for minute, versions in sim.truth(symbol, start, end).items():
        revealed = [version[1:] for version in versions if version[0] <= at]
        if revealed:
            found[minute] = revealed[-1]
    return found


@pytest.mark.parametrize("symbol", ["BUSY", "DULL"])
@pytest.mark.parametrize("at", [OPEN + 65, OPEN + 3600, OPEN + 9999.5, CLOSE + 1800], ids=str)
def test_rows_are_the_truth_of_that_instant_and_null_where_nothing_traded(
    sim: Simulator, symbol: str, at: float
) -> None:
    sim.move(at)
    rows = sim.rows(symbol, OPEN - 60, CLOSE)
    closed = {ts: row for ts, row in rows.items() if ts >= OPEN and ts + 60 <= at and ts % 60 == 0}
    expected = known(sim, symbol, OPEN, CLOSE, at)
    assert list(closed) == [minute for minute in range(OPEN, CLOSE, 60) if minute + 60 <= at]
    assert {ts: row for ts, row in closed.items() if row[0] is not None} == expected
    assert {row for ts, row in closed.items() if ts not in expected} <= {(None,) * 5}


def test_the_first_row_says_volume_zero_and_the_others_tell_the_truth(sim: Simulator) -> None:
    truth = known(sim, "BUSY", OPEN, OPEN + 300, OPEN + 3600)
    rows = sim.rows("BUSY", OPEN, OPEN + 300)
    assert rows[OPEN] == (*truth[OPEN][:4], 0)
    assert all(rows[minute] == truth[minute] for minute in range(OPEN + 60, OPEN + 300, 60))


def test_a_null_row_before_the_open_takes_the_false_zero_upon_itself(sim: Simulator) -> None:
    rows = sim.rows("BUSY", OPEN - 60, OPEN + 60)
    assert rows == {
        OPEN - 60: (None,) * 5,
        OPEN: known(sim, "BUSY", OPEN, OPEN + 60, OPEN + 3600)[OPEN],
    }
    assert list(sim.rows("BUSY", OPEN - 60, OPEN + 60, includePrePost="false")) == [OPEN]


def test_the_running_minute_is_a_row_and_again_a_live_row_stamped_with_its_last_trade(
    sim: Simulator,
) -> None:
    minute = OPEN + 3600
    sim.move(minute + 31)
    rows = sim.rows("BUSY", minute - 120, minute + 60)
    stamps = list(rows)
    assert stamps[:3] == [minute - 120, minute - 60, minute]
    assert minute < stamps[3] <= minute + 31
    close = rows[minute][3]
    assert rows[stamps[3]] == (close, close, close, close, 0)


def test_the_live_row_comes_also_when_the_window_ended_before_it(sim: Simulator) -> None:
    minute = OPEN + 3600
    sim.move(minute + 31)
    stamps = list(sim.rows("BUSY", minute - 60, minute))
    assert stamps[0] == minute - 60
    assert minute < stamps[1] <= minute + 31
    assert list(sim.rows("BUSY", minute - 120, minute - 60)) == [minute - 120]


def test_the_close_is_a_row_of_its_own_with_volume_zero(sim: Simulator) -> None:
    sim.move(CLOSE + 600)
    rows = sim.rows("BUSY", CLOSE - 120, CLOSE + 60, includePrePost="false")
    assert list(rows) == [CLOSE - 120, CLOSE - 60, CLOSE]
    (day,) = sim.lines("/admin/truth/bars", symbols="BUSY", interval="1d")
    close = day["versions"][0]["c"]
    assert rows[CLOSE] == (close, close, close, close, 0)


def test_nothing_is_shown_before_it_happened(sim: Simulator) -> None:
    assert max(sim.rows("BUSY", OPEN, CLOSE)) <= OPEN + 3600
    assert sim.rows("BUSY", moment("2024-03-02T15:00"), moment("2024-03-02T16:00")) == {}
    (result,) = sim.chart(
        "BUSY", period1=moment("2024-03-02T15:00"), period2=moment("2024-03-02T16:00")
    ).json["chart"]["result"]
    assert "timestamp" not in result
    assert result["indicators"] == {"quote": [{}]}


def test_a_range_of_days_ends_with_the_session_in_progress(sim: Simulator) -> None:
    (result,) = sim.chart("BUSY", range="5d", includePrePost="false").json["chart"]["result"]
    days = [moment(f"2024-{day}T14:30") for day in ("02-28", "02-29", "03-01", "03-04", "03-05")]
    assert [stamp for stamp in result["timestamp"] if stamp in days] == days
    assert [period[0]["start"] for period in result["meta"]["tradingPeriods"]] == days


def test_daily_rows_are_stamped_with_the_open_and_the_running_day_with_its_last_trade(
    sim: Simulator,
) -> None:
    (result,) = sim.chart("BUSY", range="5d", interval="1d").json["chart"]["result"]
    stamps = result["timestamp"]
    assert stamps[:4] == [
        moment(f"2024-{day}T14:30") for day in ("02-28", "02-29", "03-01", "03-04")
    ]
    assert OPEN + 3500 < stamps[4] <= OPEN + 3600
    (day,) = sim.lines(
        "/admin/truth/bars", symbols="BUSY", interval="1d", start=stamps[3], end=stamps[3] + 1
    )
    newest = [v for v in day["versions"] if v["reveal"] <= OPEN + 3600][-1]
    columns = result["indicators"]["quote"][0]
    shown = [columns[name][3] for name in ("open", "high", "low", "close", "volume")]
    assert shown == [newest[name] for name in "ohlcv"]
    assert result["indicators"]["adjclose"][0]["adjclose"] == columns["close"]


def test_meta_gives_the_offset_of_the_time_of_asking(sim: Simulator) -> None:
    sim.move(moment("2024-03-12T15:00"))
    stamp = moment("2024-03-05T14:30")
    (result,) = sim.chart("BUSY", period1=stamp, period2=stamp + 120).json["chart"]["result"]
    assert result["timestamp"][0] == stamp
    assert (result["meta"]["gmtoffset"], result["meta"]["timezone"]) == (-14400, "EDT")
    assert result["meta"]["exchangeTimezoneName"] == "America/New_York"


@pytest.mark.parametrize(
    ("query", "status", "text"),
    [
        (
            {"period1": OPEN - 9 * 86400, "period2": OPEN},
            422,
            "Only 8 days worth of 1m granularity data",
        ),
        (
            {"period1": OPEN - 40 * 86400, "period2": OPEN - 39 * 86400},
            422,
            "must be within the last 30 days",
        ),
        ({"range": "1mo"}, 422, "Only 8 days"),
        ({"period1": OPEN + 60, "period2": OPEN}, 400, "start date cannot be after end date"),
        ({"period1": CLOSE, "period2": CLOSE + 60}, 400, "Data doesn't exist for startDate"),
        ({"range": "1d", "interval": "7m"}, 400, "interval=7m is not supported"),
        ({"range": "9w"}, 400, "range=9w is not supported"),
        ({"period1": "x", "period2": OPEN}, 400, "period1 and period2"),
    ],
)
def test_bad_questions_get_yahoos_words(
    sim: Simulator, query: dict[str, object], status: int, text: str
) -> None:
    answer = sim.chart("BUSY", **query)
    assert answer.status == status
    assert answer.json["chart"]["result"] is None
    assert text in answer.json["chart"]["error"]["description"]


def test_an_unknown_symbol_is_not_found(sim: Simulator) -> None:
    answer = sim.chart("NOBODY", range="1d")
    assert answer.status == 404
    assert answer.json["chart"]["error"] == {
        "code": "Not Found",
        "description": "No data found, symbol may be delisted",
    }


def session(sim: Simulator) -> tuple[dict[str, str], str]:
    cookie = {"Cookie": sim.yahoo("/").headers["Set-Cookie"].partition(";")[0]}
    return cookie, sim.yahoo("/v1/test/getcrumb", headers=cookie).body.decode()


def test_quotes_need_cookie_and_crumb(sim: Simulator) -> None:
    cookie, crumb = session(sim)
    assert sim.yahoo("/").status == 404
    path, query = "/v7/finance/quote", {"symbols": "BUSY,NOBODY,DULL"}
    for words in (
        {"params": query},
        {"params": query, "headers": cookie},
        {"params": query | {"crumb": crumb}, "cookies": {}},
        {"params": query | {"crumb": "wrong"}, "headers": cookie},
    ):
        sim.http.cookies.clear()
        refused = sim.yahoo(path, **words)
        assert refused.status == 401
        assert refused.json["finance"]["error"]["description"] == "Invalid Crumb"
    rows = sim.yahoo(path, params=query | {"crumb": crumb}, headers=cookie).json["quoteResponse"][
        "result"
    ]
    assert [row["symbol"] for row in rows] == ["BUSY", "DULL"]
    assert rows[0]["bid"] < rows[0]["ask"]
    assert rows[0]["marketState"] == "REGULAR"


def test_a_crumb_needs_the_cookie(sim: Simulator) -> None:
    sim.http.cookies.clear()
    answer = sim.yahoo("/v1/test/getcrumb")
    assert answer.status == 401
    assert answer.json["finance"]["error"]["description"] == "Invalid Cookie"


def test_crumbs_grow_old_where_the_config_says_so() -> None:
    with Simulator(sources={"yahoo": {"crumb_ttl_s": 600}}) as sim:
        cookie, crumb = session(sim)
        words = {"params": {"symbols": "BUSY", "crumb": crumb}, "headers": cookie}
        assert sim.yahoo("/v7/finance/quote", **words).status == 200
        sim.move(OPEN + 3600 + 600)
        assert sim.yahoo("/v7/finance/quote", **words).status == 401


def test_the_cookie_belongs_to_yahoo_for_clients_that_keep_its_names(sim: Simulator) -> None:
    named = sim.yahoo("/", headers={"Host": "fc.yahoo.com:8080"}).headers["Set-Cookie"]
    assert "Domain=.yahoo.com" in named
    assert "Domain" not in sim.yahoo("/").headers["Set-Cookie"]


def test_paths_work_with_and_without_the_prefix_and_with_double_slashes(sim: Simulator) -> None:
    root = sim.handle.endpoints["sources"]["yahoo"]["root_url"]
    query = f"?period1={OPEN}&period2={OPEN + 60}&interval=1m"
    bodies = {
        sim.ask("GET", root + path + query).body
        for path in (
            "/v8/finance/chart/BUSY",
            "/yahoo/v8/finance/chart/BUSY",
            "//v8//finance/chart/BUSY",
        )
    }
    assert len(bodies) == 1
    assert sim.ask("GET", f"{root}/nowhere").status == 404


def test_the_consent_pages_lead_to_a_cookie(sim: Simulator) -> None:
    page = sim.yahoo("/consent").body.decode()
    assert 'name="csrfToken"' in page
    assert 'name="sessionId"' in page
    posted = sim.ask(
        "POST", sim.url("yahoo") + "/v2/collectConsent?sessionId=1", data={"agree": "agree"}
    )
    assert posted.headers["Set-Cookie"].startswith("A3=")


def test_prices_become_four_byte_floats_where_asked() -> None:
    with Simulator(sources={"yahoo": {"float32": True}}) as sim:
        row = sim.rows("BUSY", OPEN, OPEN + 120)[OPEN + 60]
        truth = known(sim, "BUSY", OPEN + 60, OPEN + 120, OPEN + 3600)[OPEN + 60]
        assert row[3] != truth[3]
        assert row[3] == pytest.approx(truth[3], rel=1e-6)
        assert row[4] == truth[4]


def test_the_first_row_is_honest_where_asked() -> None:
    with Simulator(sources={"yahoo": {"first_row_zero": False}}) as sim:
        assert (
            sim.rows("BUSY", OPEN, OPEN + 60)[OPEN]
            == known(sim, "BUSY", OPEN, OPEN + 60, OPEN + 3600)[OPEN]
        )


def test_after_a_split_the_past_is_shown_in_new_shares() -> None:
    split = {"symbol": "BUSY", "session": "2024-03-06", "ratio": 4}
    with Simulator(at=CLOSE + 3600, market={"splits": [split]}) as sim:
        before = sim.rows("BUSY", OPEN - 60, OPEN + 300)
        sim.move(moment("2024-03-06T15:00"))
        after = sim.rows("BUSY", OPEN - 60, OPEN + 300)
        assert [row[3] for row in list(after.values())[1:]] == pytest.approx(
            [(row[3] or 0) / 4 for row in list(before.values())[1:]], abs=1e-6
        )
        assert {row[7] for row in sim.log()[-1]["inline"]} == {"adjusted"}
        events = sim.chart("BUSY", range="5d", interval="1d", events="div,splits").json
        (found,) = events["chart"]["result"][0]["events"]["splits"].values()
        assert (found["date"], found["splitRatio"]) == (moment("2024-03-06T14:30"), "4:1")


def test_a_slow_feed_shows_the_market_of_a_while_ago() -> None:
    with Simulator(at=OPEN + 599, sources={"yahoo": {"delay_s": 90}, "finnhub": {}}) as sim:
        stamps = [stamp for stamp in sim.rows("BUSY", OPEN, CLOSE) if stamp % 60 == 0]
        assert max(stamps) == OPEN + 480
        assert max(sim.candles("BUSY", OPEN, CLOSE)["t"]) == OPEN + 540


def test_tokyo_and_mumbai_have_a_null_row_before_each_open() -> None:
    universe = [
        {"symbol": "T", "tier": "T0", "exchange": "XTKS"},
        {"symbol": "M", "tier": "T0", "exchange": "XBOM"},
    ]
    with Simulator(at=moment("2024-03-05T09:00"), market={"universe": universe}) as sim:
        for symbol, opens in (("T", "00:00"), ("T", "03:30"), ("M", "03:45")):
            start = moment(f"2024-03-05T{opens}")
            rows = sim.rows(symbol, start - 60, start + 60)
            assert rows[start - 60] == (None,) * 5
            assert rows[start][4]


@pytest.mark.parametrize("at", [OPEN + 31, OPEN + 3631, OPEN + 3600, CLOSE + 30, CLOSE + 7200])
@pytest.mark.parametrize("query", [{}, {"interval": "1d"}, {"includePrePost": "false"}], ids=str)
def test_the_log_accounts_for_every_row_that_was_sent(
    sim: Simulator, at: float, query: dict[str, str]
) -> None:
    sim.move(at)
    sent = sim.rows("DULL", OPEN - 4 * 86400, CLOSE + 3600, **query)
    entry = sim.log()[-1]
    interval = query.get("interval", "1m")
    truth = {
        row["ts"]: row["versions"]
        for row in sim.lines(
            "/admin/truth/bars",
            symbols="DULL",
            interval=interval,
            start=OPEN - 5 * 86400,
            end=CLOSE + 3600,
        )
    }
    logged: dict[int, tuple[float, ...]] = {}
    for symbol, minutes, numbers in entry.get("served", []):
        assert symbol == "DULL"
        for minute, number in zip(minutes, numbers, strict=True):
            version = truth[minute][number]
            assert version["reveal"] <= entry["answered"]
            logged[minute] = tuple(version[name] for name in "ohlcv")
    for symbol, stamp, *values, kind in entry.get("inline", []):
        assert symbol == "DULL"
        assert kind in {"partial", "first", "live", "close"}
        assert stamp not in logged
        logged[stamp] = tuple(values)
    assert logged == {stamp: row for stamp, row in sent.items() if row[0] is not None}
    assert entry["window"] == [OPEN - 4 * 86400, CLOSE + 3600]
    assert entry["capability"] == ("bars_eod" if interval == "1d" else "bars_1m")
