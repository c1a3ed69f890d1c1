"""What a bench says of its figures: for people, for programs, and by its exit code."""

import json

import pytest

from bench import __main__ as bench
from bench.report import Report, at_least, at_most, exactly, number
from bench.timing import Stopwatch, percentile


class StepClock:
    """Each look at the time is as much later as the steps say."""

    def __init__(self, *steps: float) -> None:
        self.steps = list(steps)
        self.time = 0.0

    def monotonic(self) -> float:
        self.time += self.steps.pop(0)
        return self.time


def test_a_ratio_keeps_both_sides_under_their_unit(tmp_path):
    report = Report()
    report.ratio("new_rows_ratio", "new rows", 80.0, 100.0, "rows/s", at_least(0.85), runs=7)
    report.ratio("live_ratio", "live", 5.0, 2.5, "ms", at_most(2.5))
    report.save(tmp_path / "found.json", {"cores": 2})

    assert json.loads((tmp_path / "found.json").read_text()) == {
        "cores": 2,
        "new_rows_ratio": 0.8,
        "new_rows_rows_per_s": 80.0,
        "new_rows_peer_rows_per_s": 100.0,
        "runs": 7,
        "live_ratio": 2.0,
        "live_ms": 5.0,
        "live_peer_ms": 2.5,
    }
    assert report.missed == ["new_rows_ratio"]


def test_the_table_says_what_was_met_and_what_was_not(capsys):
    report = Report()
    report.number("lookahead", "shown too early", 0, aim=exactly(0))
    report.number("rate", "rows", 12_345.6, "rows/s", at_least(20_000))
    report.absent("late", "no chunks here")
    report.show("bench storage", {"cores": 2})

    shown = capsys.readouterr().out
    assert "cores: 2" in shown
    assert [line.split()[-1] for line in shown.splitlines() if "shown" in line] == ["yes"]
    assert [line.split()[-1] for line in shown.splitlines() if "12,346 rows/s" in line] == ["NO"]
    assert "- late: no chunks here" in shown
    assert report.values["late"] is None


@pytest.mark.parametrize(
    ("aim", "met", "missed"),
    [(at_least(2), 2, 1.9), (at_most(2), 2, 2.1), (exactly(0), 0, 1)],
)
def test_an_aim_includes_its_bound(aim, met, missed):
    assert aim.met(met)
    assert not aim.met(missed)


def test_a_measure_that_failed_is_a_miss():
    report = Report()
    report.failed("stalled", "the writer ended")
    assert report.missed == ["stalled"]


@pytest.mark.parametrize(
    ("value", "text"), [(1234567.8, "1,234,568"), (12.345, "12.3"), (0, "0"), (0.8512, "0.851")]
)
def test_numbers_show_the_digits_that_matter(value, text):
    assert number(value) == text


def test_the_median_and_the_95th_percentile_are_of_whole_runs():
    watch = Stopwatch(StepClock(*[step for taken in (1, 9, 2, 3, 4) for step in (10, taken)]))  # pyright: ignore[reportArgumentType]
    for _ in range(5):
        watch.time("run", lambda: None)
    assert (watch.median("run"), watch.p95("run"), watch.rate("run", 30)) == (3, 9, 10)
    assert percentile(range(1, 21), 0.95) == 19


def test_runs_alternate_in_both_orders():
    order: list[str] = []
    watch = Stopwatch(StepClock(*[1.0] * 8))  # pyright: ignore[reportArgumentType]
    for turn in range(2):
        watch.alternate(turn, a=lambda: order.append("a"), b=lambda: order.append("b"))
    assert order == ["a", "b", "b", "a"]


def test_a_measure_that_does_not_exist_is_a_usage_error(capsys):
    assert bench.main(["storage", "--only", "nothing"]) == 2
    assert "storage has no measure nothing; it has new_rows" in capsys.readouterr().err
