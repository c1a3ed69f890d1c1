"""Polygon's pages and plans against the simulated market: what is left open is asked, what is refused is said."""

import itertools
from datetime import timedelta

import pytest

from core.errors import AuthRejectedError, BadRequestError, NotEntitledError, ProviderError
from core.windows import Window
from core.words import Capability
from providers.base import Request
from sim.server import start
from tests.contract.conftest import NEW_YORK, Case, MakeCase, World, between

HOUR = between("2024-03-07T14:30", "2024-03-07T15:30")
WEEK = between("2024-03-01T00:00", "2024-03-07T00:00")


def turned(case: Case, capability: Capability, window: Window) -> list[Window]:
    """Ask page after page as workers do; the windows that each reply answered."""
    answered: list[Window] = []
    bars = []
    rest: Window | None = window
    while rest is not None:
        (call,) = case.provider.plan(Request(capability, ("BUSY",), rest))
        page = case.provider.parse(call, case.provider.send(call, 5.0), NEW_YORK)
        bars += page.bars["BUSY"]
        begun, rest = rest.start, page.rest.get("BUSY")
        answered.append(Window(begun, rest.start if rest else window.end))
    starts = [bar.ts for bar in bars]
    assert starts == sorted(set(starts))
    return answered


@pytest.mark.parametrize(
    ("capability", "window", "pages"),
    [(Capability.BARS_1M, HOUR, 3), (Capability.BARS_EOD, WEEK, 1)],
)
def test_page_after_page_answers_the_window_once(
    make_case: MakeCase, world: World, capability: Capability, window: Window, pages: int
) -> None:
    with start(world.config(polygon={"page_rows": 25})) as sim:
        case = make_case("polygon", polygon_base_url=world.base_url("polygon", sim))

        answered = turned(case, capability, window)

        assert len(answered) == pages
        assert len(world.served("polygon", sim)) == pages
    assert answered[0].start == window.start
    assert answered[-1].end == window.end
    assert all(a.end == b.start for a, b in itertools.pairwise(answered))


def test_days_are_turned_too(make_case: MakeCase, world: World) -> None:
    with start(world.config(polygon={"page_rows": 2})) as sim:
        case = make_case("polygon", polygon_base_url=world.base_url("polygon", sim))

        answered = turned(case, Capability.BARS_EOD, WEEK)

    # Friday and Monday, then Tuesday and Wednesday.
    assert [window.length for window in answered] == [timedelta(days=4), timedelta(days=2)]


@pytest.mark.parametrize(
    ("source", "settings", "capability", "window", "error"),
    [
        ({"keys": ["another"]}, {}, Capability.BARS_1M, HOUR, AuthRejectedError),
        ({"plan": "basic"}, {}, Capability.BARS_1M, HOUR, BadRequestError),
        ({"plan": "basic"}, {}, Capability.QUOTES_L1, None, NotEntitledError),
        ({}, {"polygon_plan": "basic"}, Capability.QUOTES_L1, None, NotEntitledError),
    ],
    ids=["wrong key", "today", "snapshot", "known before"],
)
def test_what_key_and_plan_do_not_reach_is_told_apart(
    make_case: MakeCase, world: World, source, settings, capability, window, error
) -> None:
    with start(world.config(polygon=source)) as sim:
        case = make_case("polygon", polygon_base_url=world.base_url("polygon", sim), **settings)
        with pytest.raises(ProviderError) as caught:
            case.page(capability, "BUSY", window)

    assert type(caught.value) is error
    assert "POLYGON_" in str(caught.value)


def test_the_free_plan_gets_what_it_asks_for(make_case: MakeCase, world: World) -> None:
    yesterday = between("2024-03-06T14:30", "2024-03-06T21:00")
    with start(world.config(polygon={"plan": "basic"})) as sim:
        url = world.base_url("polygon", sim)
        case = make_case("polygon", polygon_base_url=url, polygon_plan="basic")

        bars = case.bars(Capability.BARS_1M, "BUSY", yesterday)

    assert len(bars) == 390
