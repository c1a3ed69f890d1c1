"""The demo's day in small, its panel on a narrow terminal, its closing words."""

import io
from argparse import Namespace
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from db.counts import RevisedBar
from ops.demo import kept, report
from ops.demo.options import DemoOptions, from_arguments
from ops.demo.scenario import Timeline, default_faults, timeline
from ops.demo.screen import Screen
from ops.demo.watch import Snapshot

OPEN = datetime(2025, 3, 10, 13, 30, tzinfo=UTC)
CLOSE = datetime(2025, 3, 10, 20, 0, tzinfo=UTC)
FULL = Snapshot(
    bars=138_893, revised=13_210, quotes=122_345, requests=112_287, found_missing=13_185, explained=13_180,
    backfill_open=1_205, violations=1_000,
)  # fmt: skip


def options(**more: Any) -> DemoOptions:
    plain: dict[str, Any] = {
        "symbols": 300, "session": None, "start": None, "end": None, "speed": None, "seed": 1, "faults": None,
        "bars": None, "calendar": None, "report": None, "keep": False, "budgets": True,
    }  # fmt: skip
    return from_arguments(Namespace(**plain | more))


def times(**more: Any) -> Timeline:
    return timeline(options(**more), OPEN, CLOSE)


def hours(fault: dict[str, Any]) -> tuple[datetime, datetime]:
    begins = datetime.fromisoformat(fault["from"])
    return begins, begins + timedelta(minutes=fault["minutes"])


def test_a_whole_day_refuses_for_twenty_minutes_and_has_five_without_a_source() -> None:
    refused, errors, *outage = [hours(fault) for fault in default_faults(times())]

    assert refused == (OPEN + timedelta(minutes=45), OPEN + timedelta(minutes=65))
    assert errors[1] - errors[0] == timedelta(minutes=10)
    assert outage[0] == outage[1]
    assert outage[0][1] - outage[0][0] == timedelta(minutes=5)


@pytest.mark.parametrize("begin", [time(13, 30), time(19, 30), time(19, 45)])
def test_a_part_of_a_day_gets_every_fault_within_its_own_hours(begin: time) -> None:
    end = time(13, 45) if begin < time(14) else None
    of = times(start=begin, end=end)

    for fault in default_faults(of):
        begins, ends = hours(fault)
        assert of.open < begins < ends < of.close


def panel(width: int) -> list[str]:
    console = Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None)
    screen = Screen("gapless demo, 2025-03-10, 300 symbols", times(), console)
    screen.event(OPEN, "fault begins: finnhub refused")
    console.print(screen._panel(OPEN + timedelta(hours=3), 200.0, FULL, 0.5))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize("width", [80, 100, 200])
def test_the_panel_shows_every_figure_whole(width: int) -> None:
    lines = panel(width)

    assert max(len(line) for line in lines) <= min(width, 88)
    for figure in (
        "138,893 bars", "13,210 revised", "122,345 quotes", "112,287 requests", "13,185 found missing",
        "13,180 explained", "1,205 backfilling", "1,000 over limit",
    ):  # fmt: skip
        assert any(figure in line for line in lines), figure
    assert "200x" in lines[1]
    assert "bars" not in lines[2], "the progress bar has a line of its own"


def result(**more: Any) -> dict[str, Any]:
    return {
        "expected": 10, "present": 10, "confirmed_empty": 0, "requests": 5, "gaps_found": 1, "gaps_filled": 1,
        "revised": 2, "stale_revision": 3, "as_of_reads": 4, "speed": 150.0, "seconds": 160.0,
        **dict.fromkeys(report.MUST_BE_ZERO, 0), **more,
    }  # fmt: skip


def test_limits_that_were_to_be_ignored_are_no_surprise(capsys, tmp_path: Path) -> None:
    asked = options(budgets=False)

    assert report.show(result(limit_violations=7), asked, FULL, [], [], tmp_path) == 1

    said = capsys.readouterr().out
    assert "As asked" in said
    assert "found trouble" not in said


def test_other_trouble_is_named_with_where_the_logs_are(capsys, tmp_path: Path) -> None:
    bad = result(limit_violations=7, restated_missed=1)

    assert report.show(bad, options(budgets=False), FULL, [], [], tmp_path / "logs") == 1

    said = capsys.readouterr().out
    assert "found trouble: limit violations, restated missed" in said
    assert str(tmp_path / "logs") in said


def test_a_clean_day_says_what_was_restated_too_late_and_what_to_try(capsys, tmp_path) -> None:
    assert report.show(result(), options(), FULL, [], [], tmp_path) == 0
    report.try_next()

    said = capsys.readouterr().out
    assert "restated 3 bars after we last asked" in said
    assert "13,185 bars found missing in between, 13,180 explained since" in said
    assert "up --sim" in said


def test_a_kept_demo_shows_one_bar_now_then_and_in_sql(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GAPLESS_HOME", str(tmp_path))
    bar = RevisedBar("AAPL", OPEN, OPEN + timedelta(seconds=75), (10.5, 900.0), (10.25, 1000.0))

    said = list(kept.lines(tmp_path / "demo", times(), bar))

    window = "--start 2025-03-10T13:30:00Z --end 2025-03-10T13:31:00Z"
    assert any(line.endswith(f"bars AAPL {window}") for line in said)
    assert any(line.endswith(f"bars AAPL {window} --as-of 2025-03-10T13:31:15Z") for line in said)
    assert any("candles_as_of(ARRAY['AAPL'], '1m'," in line for line in said)
    assert any("GAPLESS_HOME=" in line for line in said)
    assert any(line.endswith(" verify") for line in said)
    assert "close 10.25, volume 1,000" in said[-1]
    assert "10.5 and 900" in said[-1]


def test_a_kept_demo_says_what_has_ended(tmp_path: Path) -> None:
    said = " ".join(kept.lines(tmp_path, times(start=time(19, 30)), None))

    assert "servers stay up" in said
    assert "workers have ended" in said
    assert "verify --from 2025-03-10T19:30:00Z --to 2025-03-10T20:00:00Z" in said
