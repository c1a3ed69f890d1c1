"""What a killed supervisor leaves, its successor ends; strangers are safe."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from core.clock import SystemClock
from ops.supervise.errors import SupervisorRunningError
from ops.supervise.identity import ProcessIdentity, identify, is_alive, send
from ops.supervise.records import own_identity, read_record, record_path, stop_leftovers
from ops.supervise.supervisor import Supervisor

REPOSITORY = Path(__file__).resolve().parents[2]

OWNER = """
import sys
from core.clock import SystemClock
from ops.supervise.process import Process
from ops.supervise.signals import StopSignals
from ops.supervise.supervisor import Supervisor

state, *code = sys.argv[1:]
with StopSignals() as stop:
    supervisor = Supervisor(state, SystemClock())
    for number, text in enumerate(code):
        supervisor.add(Process(f"child-{number}", [sys.executable, "-c", text], stop_rank=number))
    try:
        supervisor.start()
        print("started", flush=True)
        while not stop.wait(0.05):
            supervisor.poll()
    finally:
        supervisor.stop()
    print("stopped by", *(signum.name for signum in stop.received), flush=True)
"""
FOREVER = "import time\nprint('up', flush=True)\nwhile True: time.sleep(60)\n"
SLOW_TO_END = (
    "import signal, sys, time\n"
    "def end(*_):\n"
    "    print('asked', flush=True)\n"
    "    time.sleep(1)\n"
    "    sys.exit()\n"
    "signal.signal(signal.SIGTERM, end)\n"
) + FOREVER
RUNAWAY = (
    "import subprocess, sys\n"
    f"child = subprocess.Popen([sys.executable, '-c', {FOREVER!r}], start_new_session=True)\n"
    "print(child.pid, flush=True)\n"
) + FOREVER


@pytest.fixture
def state(make_home) -> Path:
    return make_home().path


@pytest.fixture
def start_owner(state: Path):
    owners: list[subprocess.Popen[str]] = []

    def start(*code: str) -> subprocess.Popen[str]:
        owner = subprocess.Popen(
            [sys.executable, "-c", OWNER, str(state), *code],
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            text=True,
        )
        owners.append(owner)
        assert owner.stdout is not None
        assert owner.stdout.readline() == "started\n"
        return owner

    yield start
    for owner in owners:
        owner.kill()
        owner.wait()
        if owner.stdout is not None:
            owner.stdout.close()


def children(state: Path) -> list[ProcessIdentity]:
    record = read_record(state)
    assert record is not None
    return list(record.processes.values())


@pytest.fixture
def stranger():
    """A process that has nothing to do with us."""
    process = subprocess.Popen([sys.executable, "-c", FOREVER], stdout=subprocess.DEVNULL)
    yield process
    process.kill()
    process.wait()


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel ties lives together on Linux only")
def test_children_die_with_a_supervisor_that_is_killed(state, start_owner, wait_until):
    owner = start_owner(FOREVER, FOREVER)
    before = children(state)
    assert all(is_alive(child) for child in before)

    owner.kill()

    wait_until(lambda: not any(is_alive(child) for child in before), seconds=3)


@pytest.mark.skipif(sys.platform != "linux", reason="marks are read from /proc")
def test_the_next_start_ends_what_a_killed_supervisor_left(state, start_owner, wait_until):
    owner = start_owner(RUNAWAY)
    log = state / "logs" / "child-0.log"
    wait_until(lambda: log.read_text().count("up") == 2)
    runaway = identify(int(next(line for line in log.read_text().splitlines() if line.isdigit())))
    owner.kill()
    owner.wait()
    assert runaway is not None
    assert is_alive(runaway), "it left its group, the kernel does not know it as ours"

    Supervisor(state, SystemClock()).start()

    wait_until(lambda: not is_alive(runaway))


def test_a_recorded_id_that_a_stranger_has_now_is_left_alone(state, stranger):
    me = own_identity()
    content = {
        "supervisor": {"pid": me.pid, "started": "another start"},
        "run": "no such run",
        "processes": {"worker": {"pid": stranger.pid, "started": "another start"}},
    }
    record_path(state).parent.mkdir(exist_ok=True)
    record_path(state).write_text(json.dumps(content))

    assert stop_leftovers(state, SystemClock()) == []

    assert stranger.poll() is None
    assert not send(ProcessIdentity(stranger.pid, "another start"), signal.SIGKILL)
    assert stranger.poll() is None


def test_a_live_supervisor_s_processes_are_not_touched_by_a_second_one(state, start_owner):
    owner = start_owner(FOREVER)

    with pytest.raises(SupervisorRunningError, match=f"process {owner.pid}"):
        Supervisor(state, SystemClock()).start()

    assert all(is_alive(child) for child in children(state))


@pytest.mark.parametrize("content", ["", "{", "[]", '{"supervisor": 3}'])
def test_a_record_that_can_t_be_read_is_replaced(state, content):
    record_path(state).parent.mkdir(exist_ok=True)
    record_path(state).write_text(content)

    assert stop_leftovers(state, SystemClock()) == []


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_everything(state, start_owner, signum):
    owner = start_owner(FOREVER, FOREVER)
    before = children(state)

    owner.send_signal(signum)

    said, _ = owner.communicate(timeout=10)
    assert said == f"stopped by {signum.name}\n"
    assert owner.returncode == 0
    assert not any(is_alive(child) for child in before)


def test_a_second_ctrl_c_does_not_interrupt_the_stopping(state, start_owner, wait_until):
    owner = start_owner(SLOW_TO_END)
    before = children(state)
    log = state / "logs" / "child-0.log"
    wait_until(lambda: "up" in log.read_text())
    owner.send_signal(signal.SIGINT)
    wait_until(lambda: "asked" in log.read_text())

    owner.send_signal(signal.SIGINT)

    said, _ = owner.communicate(timeout=10)
    assert said == "stopped by SIGINT SIGINT\n"
    assert not any(is_alive(child) for child in before)
