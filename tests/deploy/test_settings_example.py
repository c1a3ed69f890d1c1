""".env.example: every setting, by its name and its default, and nothing that is none."""

import itertools
from pathlib import Path

import pytest
from pydantic import BaseModel

from core.settings import Settings, load
from tests.deploy.manifests import ROOT, env_file

EXAMPLE = env_file(ROOT / ".env.example")
COMPOSE_ONLY = {"POSTGRES_PASSWORD", "REDIS_PASSWORD"}

FIXED_NAMES = """
DATABASE_URL REDIS_URL FINNHUB_API_KEY ALPHA_VANTAGE_API_KEY USE_RLC LOCAL_SWEEP_ENABLED
ALLOW_SOURCE_OVERRIDE POLICY_BARS_1M POLICY_EOD POLICY_QUOTES_L1 POLICY_OPTIONS_CHAIN TIER_MAXS__T0
TIER_MAXS__T1 CADENCE_T0__bars_1m CADENCE_T0__quotes_l1 CADENCE_T1__bars_1m CADENCE_T1__quotes_l1
CADENCE_T2__eod BACKFILL_CHUNK_MINUTES BACKFILL_MAX_CONCURRENCY_T0 BACKFILL_MAX_CONCURRENCY_T1
BACKFILL_MAX_CONCURRENCY_T2 BACKFILL_DISPATCH_RATE_PER_SEC RLC_REDIS_URL RLC_REDIS_JOBS_KEY
RLC_REDIS_BACKFILL_KEYS__T0 RLC_REDIS_BACKFILL_KEYS__T1 RLC_REDIS_BACKFILL_KEYS__T2 LIVE_BATCH_SIZE
BACKFILL_BATCH_SIZE LOG_LEVEL METRICS_PORT METRICS_ENABLED
""".split()  # noqa: SIM905 - thirty quoted names are harder to read


def names_of_settings() -> set[str]:
    """Environment names, in upper case, that the settings read."""
    names: set[str] = set()
    for field, facts in Settings.model_fields.items():
        inner = type(facts.default).model_fields if isinstance(facts.default, BaseModel) else None
        names |= {f"{field}__{part}".upper() for part in inner} if inner else {field.upper()}
    return names


@pytest.fixture
def no_settings_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in EXAMPLE:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("name", FIXED_NAMES)
def test_a_name_that_people_rely_on_is_there_letter_for_letter(name: str) -> None:
    assert name in EXAMPLE


def test_it_lists_every_setting_and_nothing_else() -> None:
    assert {name.upper() for name in EXAMPLE} - COMPOSE_ONLY == names_of_settings()


@pytest.mark.usefixtures("no_settings_in_the_environment")
def test_its_values_are_the_defaults(tmp_path: Path) -> None:
    everything = tmp_path / "everything.env"
    everything.write_text("".join(f"{name}={value}\n" for name, value in EXAMPLE.items()))
    nothing = tmp_path / "nothing.env"
    nothing.touch()

    assert load(everything) == load(nothing)


@pytest.mark.usefixtures("no_settings_in_the_environment")
def test_copied_as_it_is_it_changes_no_setting(tmp_path: Path) -> None:
    nothing = tmp_path / "nothing.env"
    nothing.touch()

    assert load(ROOT / ".env.example") == load(nothing)


def test_every_setting_has_a_comment_above_it() -> None:
    lines = (ROOT / ".env.example").read_text().splitlines()
    bare = [
        line
        for above, line in itertools.pairwise(lines)
        if line.startswith("#")
        and line[1:2].isupper()
        and "=" in line
        and not above.startswith("#")
    ]

    assert bare == []
