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
    flights: Flights[str, None] = Flights(calls)
    symbol = next(symbols, None)
    while symbol is not None or flights:
        while symbol is not None and calls.reserve(0.0 if flights else _TICK_S):
            flights.begin(fetch, symbol)
            symbol = next(symbols, None)
        for landing in flights.landed(_TICK_S) if flights else ():
            if landing.error is not None:
                raise landing.error
