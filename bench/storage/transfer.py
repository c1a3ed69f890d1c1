"""Peak memory of ``ops export`` and ``ops import``, as processes of their own, and whether nothing is lost.

The sampled figure is the process's resident memory, its children's included, every 10 ms.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from bench.report import at_most, exactly
from bench.run import MeasureError, Place, Run
from bench.storage import peer
from bench.storage.market import first_open
from bench.storage.sources import provider_id_of
from core.words import Tier
from db import universe

_ROOT = Path(__file__).resolve().parents[2]
_DAYS, _MINUTES = 25, 400
_SAMPLE_S = 0.01
_MB = 1e6
_FORMATS = ("parquet", "csv")

# Every revision as a person sees it, in one number that does not depend on the order.
_DIGEST = """
    SELECT count(*), coalesce(bit_xor(hashtextextended(
        concat_ws('|', n.name, c.interval_s, c.ts, c.as_of, c.asked_at, c.open, c.high, c.low, c.close, c.volume,
                  c.vwap, c.trade_count, s.name, c.status, coalesce(c.reason, '-')), 0)), 0)
    FROM candles_intraday c
    JOIN gapless_names(NULL, 'infinity') n
        ON n.symbol_id = c.symbol_id AND c.ts >= n.valid_from AND c.ts < n.valid_to
    JOIN sources s ON s.provider_id = c.provider_id
"""


def measure(run: Run) -> None:
    """Out of one database into a file, and from there into an empty one; each format."""
    symbols = run.size(1_000, 30)
    worst = {"export": 0.0, "import": 0.0}
    rates = {"export": 0.0, "import": 0.0}
    lost = 0
    with run.place() as place, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = _fill(run, place, symbols)
        wanted = _digest(place)
        for form in _FORMATS:
            file = folder / f"bars.{form}"
            with run.place() as empty:
                for verb, target, arguments in (
                    ("export", place, ["--output", str(file)]),
                    ("import", empty, [str(file), "--create-symbols"]),
                ):
                    peak, seconds = _peak(run, target, folder, [verb, *arguments])
                    worst[verb] = max(worst[verb], peak)
                    rates[verb] = max(rates[verb], rows / seconds)
                lost += _digest(empty) != wanted
            file.unlink()
    report = run.report
    for verb in ("import", "export"):
        report.number(
            f"{verb}_rss_mb",
            f"peak memory of ops {verb}, {rows:,} rows, {' and '.join(_FORMATS)}",
            worst[verb],
            "MB",
            at_most(200),
        )
        report.number(f"{verb}_rows_per_s", "its best rate", rates[verb], "rows/s")
    report.number("roundtrip_differs", "formats that came back otherwise", lost, aim=exactly(0))
    report.values["transfer_rows"] = rows


def _fill(run: Run, place: Place, symbols: int) -> int:
    names = [f"T{number:04d}" for number in range(symbols)]
    universe.load(place.db, [(name, Tier.T0, "NYSE", "NYSE") for name in names], "bench")
    with place.db.transaction() as conn:
        ids = [member.symbol_id for member in universe.resolve(conn, names).values()]
    return peer.fill(
        place.owner,
        ids,
        first_open(run.clock),
        days=_DAYS,
        minutes=_MINUTES,
        provider_id=provider_id_of(place.owner),
    )


def _digest(place: Place) -> tuple[object, ...] | None:
    return place.owner.execute(_DIGEST).fetchone()


def _peak(run: Run, place: Place, folder: Path, arguments: Sequence[str]) -> tuple[float, float]:
    """Peak memory in MB and real seconds of one command.

    Raises:
        MeasureError: it failed; the message quotes it.
    """
    said = folder / "said"
    started = run.clock.monotonic()
    with said.open("w") as output:
        process = psutil.Popen(
            [sys.executable, "-m", "ops", *arguments],
            cwd=folder,
            env={"PATH": os.defpath, "PYTHONPATH": str(_ROOT), "DATABASE_URL": place.url},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
        peak = 0
        while process.poll() is None:
            peak = max(peak, _resident(process))
            run.clock.sleep(_SAMPLE_S)
    if process.returncode != 0:
        raise MeasureError(f"ops {arguments[0]} failed:\n{said.read_text()[-2000:]}")
    return peak / _MB, run.clock.monotonic() - started


def _resident(process: psutil.Process) -> int:
    total = 0
    with suppress(psutil.NoSuchProcess):
        for one in (process, *process.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                total += one.memory_info().rss
    return total
