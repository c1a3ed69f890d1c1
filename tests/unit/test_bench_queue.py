"""What the queue bench makes of its runs, by hand-made ones."""

from dataclasses import replace

import pytest

from bench.queue import systems
from bench.queue.throughput import Sample, report
from bench.report import Report
from bench.run import MeasureError


def run(per_s: float, worker_ms: float) -> Sample:
    return Sample(per_s, worker_ms, valkey_ms=0.1, provider_share=0.2, waited_ms=100.5, most=128)


def reported(*ours_64: Sample) -> Report:
    made = Report()
    samples = {
        ("ours", 64): list(ours_64),
        ("ours", 256): [run(4000, 0.3)],
        ("celery", 64): [run(1000, 1.0)],
        ("celery", 256): [run(900, 1.2)],
        # The best peer is the fastest one, whatever it costs.
        ("dramatiq", 64): [run(1200, 0.8)],
        ("dramatiq", 256): [run(2000, 0.6)],
        ("rq", 1): [run(16, 20.0)],
    }
    report(made, samples, (64, 256))
    return made


def test_ours_is_held_against_the_best_peer_of_each_number_of_slots() -> None:
    made = reported(run(1230, 0.4))
    assert made.values["ratio_to_best_peer_64"] == pytest.approx(1.025)
    assert made.values["cpu_ratio_to_best_peer_64"] == pytest.approx(0.5)
    assert made.values["ratio_to_best_peer"] == pytest.approx(1.025)
    assert made.values["cpu_ratio_to_best_peer"] == pytest.approx(0.5)
    assert made.values["ratio_best_to_best"] == pytest.approx(2.0)
    assert made.values["ratio_to_stock_rq"] == pytest.approx(76.875)
    assert made.values["symbols_per_s"] == 1230
    assert made.values["symbols_per_s_best"] == 4000
    assert made.values["cpu_ms_per_symbol"] == pytest.approx(0.4)
    assert made.missed == []


def test_an_aim_is_missed_where_it_is_missed_at_one_number_of_slots() -> None:
    made = reported(run(900, 0.6))
    assert made.missed == [
        "ratio_to_best_peer",
        "cpu_ratio_to_best_peer",
        "ratio_to_stock_rq",
    ]


def test_turns_count_by_their_median() -> None:
    made = reported(run(1230, 0.4), run(100, 9.0), run(1250, 0.3))
    assert made.values["symbols_per_s"] == 1230
    assert made.values["cpu_ms_per_symbol"] == pytest.approx(0.4)


def test_a_peer_that_is_not_installed_is_named_with_the_mend() -> None:
    absent = replace(systems.CELERY, package="no-such-queue")
    with pytest.raises(MeasureError, match=r"no-such-queue is not installed.*requirements.lock"):
        absent.version  # noqa: B018 - reading it is what fails
