"""How long, in real seconds, until another source answered after a source was lost."""

from datetime import datetime
from typing import Any

from sim.check.served import Served
from sim.check.truth import Admin

_HARD = ("refuse", "reset", "5xx", "hang")


def failover_seconds(admin: Admin, served: Served) -> float | None:
    """The longest time from the start of a hard fault of one source to the next good bars of another.

    Faults during which no source could answer are left out; None when there was none to measure.
    """
    faults = [
        f
        for f in admin.get("/admin/faults")
        if f["kind"] in _HARD and f["capability"] in ("*", "bars_1m")
    ]
    segments: list[list[float]] = admin.get("/admin/clock")["segments"] or []
    sources = admin.get("/admin/endpoints")["sources"]
    longest: float | None = None
    for fault in faults:
        start, until = _epoch(fault["from"]), _epoch(fault["until"])
        others = [
            f
            for f in faults
            if f is not fault and _epoch(f["from"]) < until and start < _epoch(f["until"])
        ]
        if fault["source"] == "*" or others or not segments:
            continue
        lost = sources[fault["source"]]["provider"]
        began = _real(segments, start)
        answers = [
            arrived_real - began
            for provider, capability, arrived, arrived_real, good in served.answers
            if good and capability == "bars_1m" and provider != lost and start <= arrived < until
        ]
        if answers:
            longest = max(longest or 0.0, min(answers))
    return longest


def _epoch(value: Any) -> float:
    return (
        float(value)
        if isinstance(value, int | float)
        else datetime.fromisoformat(value).timestamp()
    )


def _real(segments: list[list[float]], market: float) -> float:
    chosen = segments[0]
    for segment in segments:
        if segment[1] <= market:
            chosen = segment
    return chosen[0] + (market - chosen[1]) / chosen[2]
