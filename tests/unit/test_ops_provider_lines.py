"""`ops providers` says how every source fares, within 120 columns."""

from datetime import UTC, datetime

from core.bars import Bar
from core.words import Capability
from ops import output
from ops.commands.providers import _words
from ops.provider_lines import BUDGET_COLUMNS, COLUMNS, as_json, budget_rows, details, reasons, row
from providers.base import Limit
from routing.budgets import LimitUse
from routing.health import Health
from routing.status import SourceStatus

BARS, QUOTES = Capability.BARS_1M, Capability.QUOTES_L1


def source(name: str, capability: Capability = BARS, **facts) -> SourceStatus:
    plain = {
        "band": 1, "installed": True, "why_not": None, "state": "closed", "health": 1.0, "terms": Health(),
        "usual_ms": 40.0, "last_answer_s": 1.0,
    }  # fmt: skip
    return SourceStatus(source=name, capability=capability, **(plain | facts))


def test_every_source_but_the_first_says_why_it_is_not_chosen() -> None:
    statuses = [
        source("ill", health=0.5, why_not="health 0.50 is not above 0.55"),
        source("slow", health=0.9),
        source("good", health=0.97),
        source("spare", band=2),
        source("spare", QUOTES),
    ]
    assert reasons(statuses) == {
        (BARS, "ill"): "health 0.50 is not above 0.55",
        (BARS, "slow"): "good goes first, its health is no worse",
        (BARS, "good"): None,
        (BARS, "spare"): "good goes first, by the policy",
        (QUOTES, "spare"): None,
    }


def test_what_nobody_asked_has_no_health_and_what_is_off_says_so() -> None:
    unasked = row(source("a", last_answer_s=None))
    assert (unasked["state"], unasked["health"], unasked["errors"]) == ("not asked", None, None)
    assert row(source("a", state="disabled", last_answer_s=None))["state"] == "disabled"
    failing = source("a", last_answer_s=None, last_error="timeout: 3 s are over", last_error_s=2.0)
    assert (row(failing)["state"], row(failing)["health"]) == ("closed", 1.0)


def test_budgets_are_shown_once_a_provider_with_what_is_used_and_left() -> None:
    used = LimitUse(Limit("calls", 200, 60, "key"), 120, 30, 50, 0.7, 4.2)
    feeds = [source("alpaca.iex", budgets=(used,)), source("alpaca.sip", budgets=(used,))]
    (line,) = budget_rows(feeds)
    assert line == {
        "budget of": "alpaca",
        "limit": "200 in 60 s",
        "live": 120,
        "backfill": 30,
        "left": 50,
        "note": "asked to wait 4 s more, 70 % in use after 429s",
    }
    assert as_json(feeds[0], None)["budgets"] == [
        {"units": 200, "window_s": 60, "live": 120, "backfill": 30, "left": 50, "share": 0.7, "paused_s": 4.2}
    ]  # fmt: skip


def test_the_page_fits_120_columns_however_long_an_error_is(capsys) -> None:
    broken = source(
        "alphavantage",
        Capability.OPTIONS_CHAIN,
        state="half-open",
        opened_for="failures",
        share=0.1,
        opens_in_s=7.0,
        last_error="unavailable: " + "https://host/path is down " * 12,
        last_error_s=400.0,
        budgets=(LimitUse(Limit("day", 25, 86_400, "key"), 20, 5, 0, 1.0, 0.0),),
    )
    below = list(details(broken, "breaker half-open, lets 10 % through: failures"))
    output.table([row(broken), row(source("b"))], COLUMNS, [below, []])
    output.table(budget_rows([broken]), BUDGET_COLUMNS)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 120
    assert lines[2] == "    not chosen: breaker half-open, lets 10 % through: failures"
    assert lines[3] == "    opened for failures, lets 10 % pass, probed in 7 s"
    assert lines[4].startswith("    last error 7 min ago: unavailable: https://host/path is down")
    assert lines[len(below) + 2].startswith("bars_1m")


def test_a_bar_is_told_in_words() -> None:
    bar = Bar(datetime(2026, 3, 2, 14, 30, tzinfo=UTC), 10.0, 11.5, 9.25, 10.5)
    assert _words(bar) == "2026-03-02T14:30:00Z open 10 high 11.5 low 9.25 close 10.5 volume -"
