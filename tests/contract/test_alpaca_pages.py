"""Alpaca's pages: a vendor that breaks a reply off is asked on until everything has come."""

from core.words import Capability
from providers.base import Request
from sim.server import start
from tests.contract.conftest import NEW_YORK, SYMBOLS, MakeCase, World, between

HOUR = between("2024-03-07T14:30", "2024-03-07T15:30")


def test_pages_that_are_followed_by_what_they_left_out_are_the_whole_truth(
    make_case: MakeCase, world: World
) -> None:
    with start(world.config(alpaca={"page_rows": 37})) as sim:
        case = make_case("alpaca.iex", alpaca_base_url=world.base_url("alpaca", sim))
        waiting = [Request(Capability.BARS_1M, SYMBOLS, HOUR)]
        found: dict[str, list[object]] = {symbol: [] for symbol in SYMBOLS}
        asked = 0
        while waiting:
            (call,) = case.provider.plan(waiting.pop(0))
            page = case.provider.parse(call, case.provider.send(call, 5.0), NEW_YORK)
            asked += 1
            for symbol, bars in page.bars.items():
                found[symbol] += [(b.ts, b.open, b.high, b.low, b.close, b.volume) for b in bars]
            waiting += [
                Request(Capability.BARS_1M, (symbol,), rest) for symbol, rest in page.rest.items()
            ]

    assert found == {symbol: world.truth(symbol, HOUR) for symbol in SYMBOLS}
    assert 4 <= asked <= 8
