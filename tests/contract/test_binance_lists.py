"""A list with a symbol that Binance does not know: refused once, then asked without it."""

import pytest

from core.errors import RateLimitedError, SymbolNotFoundError
from core.words import Capability
from providers.base import Page, Request, SessionNotReadyError
from sim.server import start
from tests.contract.conftest import SYMBOLS, Case, MakeCase, World, between


def ask(case: Case, *symbols: str) -> Page:
    (call,) = case.provider.plan(Request(Capability.QUOTES_L1, symbols, None))
    return case.provider.parse(call, case.provider.send(call, 3.0), None)


def test_a_stranger_costs_one_refusal_and_one_look_at_the_whole_book(
    make_case: MakeCase, world: World
) -> None:
    case = make_case("binance")
    before = len(world.served("binance"))

    with pytest.raises(SessionNotReadyError, match="a symbol that it does not know"):
        ask(case, *SYMBOLS, "NOPE")
    pages = [ask(case, *SYMBOLS, "NOPE") for _ in range(3)]

    for page in pages:
        assert set(page.quotes) == set(SYMBOLS)
        assert isinstance(page.problems["NOPE"], SymbolNotFoundError)
    lines = world.served("binance")[before:]
    assert [line["symbols"] for line in lines] == [[], [], list(SYMBOLS), list(SYMBOLS)]
    assert [line["status"] for line in lines] == [400, 200, 200, 200]


def test_a_stranger_alone_is_not_found(make_case: MakeCase) -> None:
    case = make_case("binance")

    for _ in range(2):
        with pytest.raises(SymbolNotFoundError, match="-1121"):
            ask(case, "NOPE")


def test_a_symbol_of_another_alphabet_never_spoils_a_list(make_case: MakeCase) -> None:
    page = ask(make_case("binance"), "BUSY", "brk/b", "^GSPC")

    assert set(page.quotes) == {"BUSY"}
    assert set(page.problems) == {"brk/b", "^GSPC"}


def test_a_ban_says_how_long_it_lasts(make_case: MakeCase, world: World) -> None:
    window = between("2024-03-07T14:30", "2024-03-07T15:30")
    with start(world.config(binance={"limits": [{"units": 2, "seconds": 60}]})) as sim:
        case = make_case("binance", binance_base_url=world.base_url("binance", sim))
        case.page(Capability.BARS_1M, "BUSY", window)
        waits: list[float] = []
        for _ in range(12):
            with pytest.raises(RateLimitedError) as caught:
                case.page(Capability.BARS_1M, "BUSY", window)
            waits.append(caught.value.retry_after_s or 0.0)

    assert all(55 < wait <= 60 for wait in waits[:10])
    assert all(115 < wait <= 120 for wait in waits[10:])
