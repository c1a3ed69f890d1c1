"""An ambush kills the process that it waits for in the midst of its transaction, and nobody else waits."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from chaos.ambush import Ambush, prepare
from core.clock import SystemClock
from ops.supervise.process import Process
from ops.supervise.supervisor import Supervisor
from tests.servers import WaitUntil

WRITE = "INSERT INTO rlc_inbox (element_id) SELECT '' WHERE false"
WRITER = f"""
import sys, time, psycopg
with psycopg.connect(sys.argv[1], application_name="gapless-intake") as conn:
    conn.execute("CREATE TABLE written (one int)")
    conn.execute({WRITE!r})
    conn.commit()
print("written", flush=True)
time.sleep(60)
"""


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    supervisor = Supervisor(tmp_path / "state", SystemClock())
    supervisor.add(
        Process("intake-2", [sys.executable, "-c", "import time; time.sleep(60)"], restart=False)
    )
    yield supervisor
    supervisor.stop(timeout_s=0.5)


@pytest.fixture
def start(supervisor: Supervisor, database_url: str) -> Callable[[], None]:
    def run() -> None:
        supervisor.add(
            Process("intake", [sys.executable, "-c", WRITER, database_url], restart=False)
        )
        supervisor.start()

    return run


@pytest.fixture
def conn(database_url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database_url, autocommit=True) as conn:
        prepare(conn)
        yield conn


def test_who_comes_by_is_killed_before_it_commits(
    conn: psycopg.Connection,
    database_url: str,
    supervisor: Supervisor,
    start: Callable[[], None],
    wait_until: WaitUntil,
) -> None:
    ambush = Ambush(supervisor, database_url, "intake", "rlc_inbox")
    killed: list[str] = []
    assert ambush.look() == []
    start()

    wait_until(lambda: killed.extend(ambush.look()) or killed, what="the writer came by")

    assert killed == ["intake", "intake-2"], "of two with one name both die"
    wait_until(lambda: not supervisor.poll() and not supervisor.alive(), what="they are gone")
    row = conn.execute("SELECT to_regclass('written')").fetchone()
    assert row == (None,), "its transaction was open"


def test_others_are_not_held_up(
    conn: psycopg.Connection, database_url: str, supervisor: Supervisor
) -> None:
    ambush = Ambush(supervisor, database_url, "intake", "rlc_inbox")
    assert ambush.look() == []

    conn.execute("SET lock_timeout = '2s'")
    conn.execute(WRITE)

    assert ambush.look() == []
    ambush.release()


def test_a_target_that_was_waited_for_in_vain_writes_again(
    conn: psycopg.Connection,
    database_url: str,
    supervisor: Supervisor,
    start: Callable[[], None],
    wait_until: WaitUntil,
) -> None:
    ambush = Ambush(supervisor, database_url, "intake", "rlc_inbox")
    assert ambush.look() == []
    ambush.release()
    start()

    def written() -> bool:
        return conn.execute("SELECT to_regclass('written')").fetchone() != (None,)

    wait_until(written, what="the writer wrote")
    ambush.release()
