"""Yahoo's session: made once for a host by the yfinance library, renewed when it expires."""

import json
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from core.clock import SystemClock
from core.errors import (
    AuthRejectedError,
    ProviderError,
    ProviderUnavailableError,
)
from core.words import Capability
from providers.base import Raw, Request, SessionNotReadyError
from providers.yahoo.session import SessionKeeper
from providers.yahoo.session_file import SessionFile, SessionState, YahooSession
from tests.contract.conftest import Case, MakeCase, World, between
from tests.contract.scripted_server import ScriptedServer, always, reply
from tests.servers import REPOSITORY

QUOTES = Request(Capability.QUOTES_L1, ("BUSY",), None)


def quote(case: Case) -> Raw:
    (call,) = case.provider.plan(QUOTES)
    return case.sent_when_ready(call)


def session_requests(world: World) -> list[str]:
    lines = world.get("/admin/served?since=0&source=yahoo")
    return [line["endpoint"] for line in lines if line["capability"] == "session"]


def session_file(folder: Path) -> Path:
    (path,) = folder.glob("yahoo-session-*.json")
    return path


def test_one_session_serves_every_process_of_a_host(
    make_case: MakeCase, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = len(session_requests(world))
    seen: list[dict[str, str]] = []
    run = subprocess.Popen

    def spy(*args, **kwargs):
        seen.append(kwargs["env"])
        return run(*args, **kwargs)

    monkeypatch.setenv("DATABASE_URL", "postgresql://u:secret@h/d")
    monkeypatch.setattr("providers.yahoo.session.subprocess.Popen", spy)
    # Three providers with one home are what three processes are to each other: they share a file.
    cases = [make_case("yfinance", session="none") for _ in range(3)]
    threads = [threading.Thread(target=quote, args=(case,)) for case in cases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert session_requests(world)[before:] == ["cookie", "getcrumb"]
    path = session_file(tmp_path / "home")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert not list(path.parent.glob("*.new"))
    (helper,) = seen
    assert "PATH" in helper
    assert not {"DATABASE_URL", "FINNHUB_API_KEY", "REDIS_URL"} & helper.keys()


def test_a_session_of_an_earlier_run_is_used_again(make_case: MakeCase, world: World) -> None:
    case = make_case("yfinance")
    before = len(session_requests(world))

    assert quote(case).status == 200
    assert len(session_requests(world)) == before


def test_an_expired_session_is_renewed_and_is_no_failure(
    make_case: MakeCase, tmp_path: Path
) -> None:
    case = make_case("yfinance")
    path = session_file(tmp_path / "home")
    fields = json.loads(path.read_text())
    fields["session"] |= {"crumb": "expired-crumb", "made_at": 1.0}
    path.write_text(json.dumps(fields | {"tried_at": 1.0}))
    (call,) = case.provider.plan(QUOTES)

    with pytest.raises(SessionNotReadyError, match="expired, a new one is made") as caught:
        case.provider.send(call, 3.0)

    assert not caught.value.counts_against_health
    assert "expired-crumb" not in str(caught.value)
    assert quote(case).status == 200


def new_session(folder: Path) -> tuple[SessionKeeper, YahooSession]:
    clock = SystemClock()
    file, now = SessionFile(folder, ""), clock.timestamp()
    file.write(SessionState().after({"cookie": "A3=x", "crumb": "fresh"}, now, now))
    keeper = SessionKeeper("", folder, clock)
    return keeper, keeper.session()


def test_a_new_session_that_is_refused_at_once_is_a_failure(tmp_path: Path) -> None:
    keeper, session = new_session(tmp_path)

    assert isinstance(keeper.refused(session, "yfinance quote BUSY"), AuthRejectedError)
    with pytest.raises(SessionNotReadyError, match="was just made anew; next in 1"):
        keeper.session()


def test_a_session_that_worked_and_is_refused_has_expired(tmp_path: Path) -> None:
    keeper, session = new_session(tmp_path)
    keeper.accepted(session)

    assert isinstance(keeper.refused(session, "yfinance quote BUSY"), SessionNotReadyError)


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("rate_limited", ProviderUnavailableError),
        ("refused", AuthRejectedError),
        ("unavailable", ProviderUnavailableError),
    ],
)
def test_after_a_failed_try_every_process_of_the_host_rests(
    tmp_path: Path, kind: str, error: type[ProviderError]
) -> None:
    clock = SystemClock()
    answer = {"error": kind, "detail": "answers: fc.yahoo.com/ 500"}
    SessionFile(tmp_path, "").write(SessionState().after(answer, clock.timestamp(), 0.0))

    with pytest.raises(error, match=r"\(answers: fc.yahoo.com/ 500\); tried again in \d+ s"):
        SessionKeeper("", tmp_path, clock).session()


@pytest.mark.parametrize(
    ("failures", "rest_s"), [(0, 15), (1, 30), (2, 60), (3, 120), (9, 120), (5000, 120)]
)
def test_rest_grows_with_failures_up_to_two_minutes(failures: int, rest_s: int) -> None:
    state = SessionState(None, 1000.0, failures, "unavailable")

    assert state.rest_s(1000.0) == rest_s
    assert state.rest_s(1000.0 + rest_s) <= 0
    assert state.rest_s(900.0) <= 0, "the machine's clock was set back"


@pytest.mark.parametrize("text", ["", "{", "[]", "7", '{"session": 1}', '{"session": {"x": 1}}'])
def test_a_damaged_session_file_counts_as_none(tmp_path: Path, text: str) -> None:
    new_session(tmp_path)
    session_file(tmp_path).write_text(text)

    assert SessionFile(tmp_path, "").read() == SessionState()


def test_sessions_of_yahoo_and_of_a_simulator_are_kept_apart(tmp_path: Path) -> None:
    new_session(tmp_path)

    assert SessionFile(tmp_path, "http://127.0.0.1:1/yahoo").read() == SessionState()


def test_the_helper_that_gets_no_session_says_why_and_the_host_rests(
    make_case: MakeCase, world: World, tmp_path: Path
) -> None:
    world.fault(source="yahoo", capability="session", kind="429")
    case = make_case("yfinance", session="none")
    (call,) = case.provider.plan(QUOTES)

    with pytest.raises(ProviderUnavailableError, match="tried again in") as caught:
        case.sent_when_ready(call)
    before = len(session_requests(world))
    with pytest.raises(ProviderUnavailableError):
        make_case("yfinance", session="none").provider.send(call, 3.0)

    assert "getcrumb 429" in str(caught.value)
    assert len(session_requests(world)) == before


def test_a_page_instead_of_a_crumb_is_refused(make_case: MakeCase) -> None:
    server = ScriptedServer(
        always(reply(200, b"<html>", "Set-Cookie: A3=x; Domain=.yahoo.com; Path=/; Max-Age=999"))
    )
    case = make_case("yfinance", yahoo_base_url=server.url)
    (call,) = case.provider.plan(QUOTES)

    with pytest.raises(AuthRejectedError, match="no Yahoo session"):
        case.sent_when_ready(call)
    server.close()


def test_without_a_folder_to_share_each_process_has_its_own(make_case: MakeCase) -> None:
    case = make_case("yfinance", session="none", gapless_home="/proc/nowhere")

    assert quote(case).status == 200


def test_bars_need_no_session(make_case: MakeCase, world: World) -> None:
    before = len(session_requests(world))
    world.fault(source="yahoo", capability="session", kind="hang")
    case = make_case("yfinance", session="none")
    window = between("2024-03-06T14:30", "2024-03-06T21:00")
    (call,) = case.provider.plan(Request(Capability.BARS_EOD, ("BUSY",), window))

    assert case.provider.send(call, 3.0).status == 200
    assert len(session_requests(world)) == before


def test_a_collector_loads_neither_yfinance_nor_pandas() -> None:
    program = (
        "import sys, providers.yfinance, providers.finnhub, providers.csv\n"
        "print(*sorted({'yfinance', 'pandas', 'pandas_market_calendars'} & sys.modules.keys()))"
    )

    done = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == ""
