"""Our unit of a job: a batch of symbols through the process's call pool, as a collector hands it out."""

from bench.queue.unit import fetch
from workers.calls import CallPool, Flights
from workers.queues import CollectJob

_TICK_S = 0.05


def fetch_batch(calls: CallPool, payload: object) -> None:
    """Ask for every symbol of one job, as many at once as the pool has places.

    Raises:
        BadJobError: the payload can't be read.
        ProviderError: a symbol was not answered.
    """
    symbols = iter(CollectJob.from_wire(payload).symbols)
    waiting = True

    def following() -> str | None:
        nonlocal waiting
        symbol = next(symbols, None)
        waiting = symbol is not None
        return symbol

    flights: Flights[str, None] = Flights(calls, fetch, following, lambda _: False)
    while waiting or flights:
        with flights.lock:
            while waiting and flights.wish():
                symbol = following()
                if symbol is None:
                    calls.give_back()
                else:
                    flights.begin(symbol)
        for landing in flights.landed(_TICK_S):
            if landing.error is not None:
                raise landing.error
