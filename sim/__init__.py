"""A market and its data providers on localhost, with the truth and the faults.

One process that speaks providers' wire protocols, so that real client libraries talk to it, and that
afterwards tells exactly what it served and what a perfect collector could have known. It shares no
code with the pipeline: only ``core``'s words and clock, and sessions from ``exchange_calendars``.

Where things are, in the order of a request::

    __main__, flags       start from a shell
    server                start from a test, in a thread
    config, reader        the dataclasses of the JSON config, every problem listed at once
    service               builds the parts below and ties them together
    source                one provider's listener: limits, then faults, then the wire, then the log
    listener              a port that can refuse and come back
    limits                rolling windows over market time, by arrival
    faults                the timeline of faults
    feed                  the market as one source shows it at one instant, and the record of what it showed
    wire/                 one module (family) per provider's protocol; ``wire.registry`` lists them
    market/               sessions, universe, minutes, versions, daily bars, quotes: pure functions of the seed
    log                   the request log, NDJSON
    admin, truth          ``/admin/*``: health, universe, truth, log, faults, clock

Times inside are epoch seconds of market time unless a name says ``real``; windows are half-open.
"""
