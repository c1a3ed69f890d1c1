"""The simulator's configuration says everything that is wrong with it at once."""

from datetime import date
from pathlib import Path

import pytest

from core.clock import Segment
from core.errors import SettingsError
from sim.config import read_config, read_segments
from sim.wire.registry import source_kinds


def read(raw: object):
    return read_config(raw, source_kinds())


def problems(raw: object) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        read(raw)
    return [line.removeprefix("  - ") for line in str(caught.value).splitlines()[1:]]


def test_nothing_given_is_a_market_in_real_time_with_every_source() -> None:
    config = read({})
    assert config.segments == ()
    assert config.market.kind == "seeded"
    assert config.market.symbols == {"T0": 30, "T1": 70, "T2": 200}
    assert list(config.sources) == list(source_kinds())
    assert config.sources["yahoo"].provider == "yfinance"
    assert config.sources["finnhub"].options == {"premium": True, "keys": None}


def test_only_the_named_sources_are_served() -> None:
    assert list(read({"sources": {"finnhub": {}}}).sources) == ["finnhub"]


def test_values_arrive_where_they_belong() -> None:
    config = read(
        {
            "clock": {"segments": [[1000.5, 2000, 160]]},
            "market": {
                "seed": 9,
                "session": "2024-03-05",
                "restate_delay_s": [60, 600],
                "splits": [{"symbol": "A", "session": "2024-03-06", "ratio": 7}],
            },
            "sources": {
                "yahoo": {"limits": [{"units": 60, "seconds": 60}]},
                "finnhub": {
                    "premium": False,
                    "limits": [{"units": 3, "seconds": 1, "capabilities": ["quotes_l1"]}],
                },
            },
            "faults": [
                {"source": "yahoo", "kind": "5xx", "from": "15:00", "minutes": 3, "status": 502}
            ],
        }
    )
    assert config.segments == (Segment(1000.5, 2000.0, 160.0),)
    assert config.market.session == date(2024, 3, 5)
    assert config.market.restate_delay_s == (60, 600)
    assert config.market.splits[0].ratio == 7
    limit = config.sources["yahoo"].limits[0]
    assert (limit.scope, "session" in limit.capabilities) == ("ip", False)
    limit = config.sources["finnhub"].limits[0]
    assert (limit.scope, limit.capabilities) == ("key", frozenset({"quotes_l1"}))
    assert config.faults[0].extra == {"status": 502}


def test_five_mistakes_are_all_listed_with_their_places() -> None:
    found = problems(
        {
            "markt": {},
            "admin_port": 70000,
            "market": {"settle_share": 1.5, "session": "yesterday"},
            "sources": {"bloomberg": {}},
        }
    )
    assert len(found) == 5
    assert any(line.startswith("markt is unknown here") for line in found)
    assert "admin_port is 70000; expected 0 to 65535" in found
    assert "market.settle_share is 1.5; expected 0 to 1" in found
    assert "market.session is 'yesterday'; expected a date YYYY-MM-DD" in found
    assert any(line.startswith("sources.bloomberg is no source of the simulator") for line in found)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ({"market": {"kind": "csv"}}, "market.dir is absent"),
        ({"market": {"kind": "csv", "dir": "/nowhere"}}, "which is no folder"),
        ({"market": {"symbols": {"T9": 1}}}, "market.symbols.T9 is no tier"),
        ({"market": {"settle_s": 90}}, "market.settle_s is 90; expected 2 to 60"),
        ({"market": {"exchanges": {"XNYS": 0}}}, "market.exchanges has no weight above 0"),
        ({"market": {"universe": [{"tier": "T0"}]}}, "market.universe[0].symbol is absent"),
        (
            {"market": {"universe": [{"symbol": "A"}, {"symbol": "A"}]}},
            "market.universe names 'A' more than once",
        ),
        ({"clock": {"segments": [[1, 2, 0]]}}, "clock.segments[0] has speed 0.0"),
        ({"clock": {"segments": [[1, 2]]}}, "expected [real_start, market_start, speed]"),
        ({"sources": {"yahoo": {"premium": True}}}, "sources.yahoo.premium is unknown here"),
        (
            {"sources": {"yahoo": {"limits": [{"units": 1}]}}},
            "sources.yahoo.limits[0].seconds is absent",
        ),
        ({"sources": []}, "sources is []; expected an object"),
        (
            {"faults": [{"source": "yahoo", "kind": "explode", "from": "15:00", "minutes": 1}]},
            "faults[0].kind is 'explode'; expected one of refuse, reset",
        ),
        (
            {"faults": [{"source": "yahoo", "kind": "5xx", "from": "3 pm", "minutes": 1}]},
            "faults[0].from is '3 pm'; expected HH:MM",
        ),
        (
            {
                "faults": [
                    {"source": "yahoo", "kind": "5xx", "from": "2024-03-05T15:00", "minutes": 1}
                ]
            },
            "an ISO instant with Z",
        ),
        (
            {
                "faults": [
                    {"source": "*", "kind": "refuse", "from": "15:00", "minutes": 1, "share": 0.5}
                ]
            },
            "expected capability '*' and share 1",
        ),
    ],
)
def test_each_mistake_has_its_own_words(raw: object, expected: str) -> None:
    found = problems(raw)
    assert len(found) == 1
    assert expected in found[0]


def test_a_document_that_is_no_object_is_refused() -> None:
    with pytest.raises(SettingsError, match="expected a JSON object"):
        read([])


def test_a_csv_market_does_not_restate_unless_asked(tmp_path: Path) -> None:
    market = read({"market": {"kind": "csv", "dir": str(tmp_path)}}).market
    assert (market.settle_share, market.restate_share) == (0.0, 0.0)


def test_no_segments_mean_the_system_clock() -> None:
    assert read_segments({"segments": None}) == ()
    with pytest.raises(SettingsError, match="segments"):
        read_segments({"segments": [1]})
