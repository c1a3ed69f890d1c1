"""Measure 4: FLUSHALL in mid-session with 5,000 jobs queued; every bar of the session is there at the end."""

from bench.report import at_least, exactly
from bench.run import MeasureError, Run
from chaos.flush import flush_in_session
from chaos.judge import MUST_BE_ZERO
from chaos.world import Plan
from core.settings import load
from ops.embedded.home import Home

_JOBS = 5000


def measure(run: Run) -> None:
    """Queue, forget, go on."""
    jobs = run.size(_JOBS, 300)
    plan = Plan(1, 60, run.size(390, 90), speed=120.0)
    home = Home(load().gapless_home, clock=run.clock).within("flushall")
    try:
        done = flush_in_session(plan, jobs, home, run.clock)
    except RuntimeError as error:
        raise MeasureError(str(error)) from error
    report = run.report
    report.number(
        "flush_jobs", "jobs queued when Redis forgot them", done.queued, "", at_least(jobs)
    )
    report.number("flush_keys", "keys that it forgot", done.keys)
    report.number("flush_elements_done", "of their elements, answered at the end", done.done)
    report.number("flush_healed_s", "until the last element had ended", done.healed_s, "s")
    counts = done.verdict.counts
    report.number("flush_bars", "bars of the session's live tiers", counts["expected"])
    bad = sum(counts.get(name, 0) for name in MUST_BE_ZERO)
    report.number("flush_bad", "counts that must be 0, in all", bad, "", exactly(0))
    for words in done.verdict.examples:
        run.say(f"  {words}")
