"""What many seeds gave: kept line by line, so that a long campaign can be interrupted and resumed."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from chaos.judge import MUST_BE_ZERO
from chaos.schedule import Kind

Row = dict[str, Any]
_SOURCE = Path(__file__).resolve().parent.parent
_PACKAGES = ("chaos", "core", "db", "ops", "providers", "routing", "scheduler", "sim", "workers")


def code_digest() -> str:
    """One word for the code that is put to the test, and for that which judges it."""
    whole = hashlib.blake2b(digest_size=6)
    for name in _PACKAGES:
        for path in sorted((_SOURCE / name).rglob("*")):
            if path.suffix in (".py", ".sql", ".lua"):
                whole.update(path.read_bytes())
    return whole.hexdigest()


def read(path: Path) -> list[Row]:
    """Every whole line; a campaign that was killed may have left half of one."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]


def append(path: Path, row: Row) -> None:
    """Add one seed's outcome."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")


def summary(rows: Sequence[Row]) -> Row:
    """One flat object over all seeds."""
    total: Counter[str] = Counter()
    hits: Counter[str] = Counter()
    for row in rows:
        total.update({k: v for k, v in row["counts"].items() if isinstance(v, int)})
        hits.update(row["hits"])
    recoveries = [one for row in rows for one in row["recoveries"]]
    every = [one["seconds"] for one in recoveries]
    left = [seconds for seconds in every if seconds > 0]
    deaths = [one["seconds"] for one in recoveries if one["kind"] in ("kill", "term")]
    faults = sum(hits.values())
    flat: Row = {
        "seeds": len(rows),
        "failed_seeds": sum(1 for row in rows if row["bad"] or row["trouble"]),
        "faults": faults,
        "faults_scheduled": sum(row["scheduled"] for row in rows),
        "fault_share_least": round(min(hits[k.value] for k in Kind) / max(1, faults), 4),
        **{f"faults_{kind.value}": hits[kind.value] for kind in Kind},
        "lost": total["missing"] + total["lost"] + total["elements_lost"],
        "duplicate": total["duplicate"] + total["elements_doubled"],
        "stuck": total["stuck"],
        "lookahead": total["lookahead"],
        "cursor_ahead": total["cursor_ahead"],
        "limit_violations": total["limit_violations"],
        **{f"count_{name}": total[name] for name in MUST_BE_ZERO},
        **{
            name: total[name]
            for name in ("expected", "present", "requests", "as_of_reads", "asked", "elements")
        },
        "gaps_found": total["gaps_found"],
        "restated_missed": total["restated_missed"],
        "restarts": sum(row["restarts"] for row in rows),
        "recovery_p50_s": _percentile(every, 0.5),
        "recovery_p99_s": _percentile(every, 0.99),
        "recovery_left_slo_share": round(len(left) / max(1, len(every)), 3),
        "recovery_left_slo_p50_s": _percentile(left, 0.5),
        "recovery_left_slo_p99_s": _percentile(left, 0.99),
        "recovery_death_p99_s": _percentile(deaths, 0.99),
        "stale_max_s": max((row["stale_s"] for row in rows), default=0.0),
        "drain_p99_s": _percentile([row["drain_s"] for row in rows], 0.99),
        "seconds_per_seed": round(sum(row["seconds"] for row in rows) / max(1, len(rows)), 1),
        "codes": len({row.get("code") for row in rows}),
    }
    return flat


def _percentile(values: Sequence[float], share: float) -> float:
    """Nearest rank; 0 of nothing."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
