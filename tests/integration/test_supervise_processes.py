"""The supervisor over real processes: kept alive, restarted with pauses, ended in order."""

import os
import signal
import sys
from datetime import datetime
from pathlib import Path

import pytest

from core.clock import SystemClock
from ops.supervise.errors import ProcessStartError
from ops.supervise.process import Process, ProcessState
from ops.supervise.records import RUN_MARK
from ops.supervise.supervisor import Supervisor

FOREVER = "import time\nprint('up', flush=True)\nwhile True: time.sleep(60)\n"
STUBBORN = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + FOREVER


class HandClock(SystemClock):
    """Real time, plus what the test winds it forward."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def now(self) -> datetime:
        raise AssertionError("the supervisor works by monotonic time")

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead_s


@pytest.fixture
def clock():
    return HandClock()


@pytest.fixture
def supervisor(tmp_path: Path, clock: HandClock):
    supervisor = Supervisor(tmp_path / "state", clock)
    yield supervisor
    supervisor.stop(timeout_s=0.5)


def program(name: str, code: str = FOREVER, **options) -> Process:
    return Process(name, [sys.executable, "-c", code], **options)


def log(tmp_path: Path, name: str) -> str:
    path = tmp_path / "state" / "logs" / f"{name}.log"
    return path.read_text() if path.exists() else ""


def status(supervisor: Supervisor, name: str):
    return next(entry for entry in supervisor.status() if entry.name == name)


def gone(pid: int | None) -> bool:
    assert pid is not None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def die(supervisor: Supervisor, name: str, wait_until) -> None:
    """Kill it and let the supervisor notice."""
    wait_until(lambda: supervisor.poll() or status(supervisor, name).state is ProcessState.RUNNING)
    supervisor.kill(name)
    wait_until(lambda: any(event.kind == "ended" for event in supervisor.poll()))


def test_each_process_runs_in_a_group_of_its_own_and_writes_to_its_log(
    supervisor, tmp_path, wait_until
):
    supervisor.add(program("one"))
    supervisor.add(program("two"))

    supervisor.start()

    wait_until(lambda: log(tmp_path, "one") == "up\n" and log(tmp_path, "two") == "up\n")
    pids = [entry.pid for entry in supervisor.status()]
    assert [os.getpgid(pid) for pid in pids] == pids
    assert supervisor.alive() == ["one", "two"]
    assert os.getpgrp() not in pids


def test_a_process_gets_exactly_its_environment_and_the_mark_of_the_run(
    supervisor, tmp_path, wait_until
):
    code = "import os; print(sorted(os.environ), flush=True)\n" + FOREVER
    supervisor.add(program("one", code, env={"COLOUR": "red"}))

    supervisor.start()

    wait_until(lambda: "up" in log(tmp_path, "one"))
    # Python itself adds LC_CTYPE in a bare environment.
    assert set(eval(log(tmp_path, "one").splitlines()[0])) - {"LC_CTYPE"} == {"COLOUR", RUN_MARK}


def test_pauses_before_a_restart_double_up_to_half_a_minute(supervisor, clock, wait_until):
    supervisor.add(program("one"))
    supervisor.start()
    pauses = []

    for _ in range(7):
        die(supervisor, "one", wait_until)
        pause = status(supervisor, "one").restart_in_s
        assert pause is not None
        pauses.append(round(pause))
        assert supervisor.poll() == [], "not before its pause is over"
        clock.ahead_s += pause
        assert [event.kind for event in supervisor.poll()] == ["started"]

    assert pauses == [1, 2, 4, 8, 16, 30, 30]
    assert status(supervisor, "one").restarts == 7
    assert status(supervisor, "one").last_exit == "SIGKILL"


def test_a_process_that_lived_a_minute_starts_again_after_one_second(supervisor, clock, wait_until):
    supervisor.add(program("one"))
    supervisor.start()
    for _ in range(3):
        die(supervisor, "one", wait_until)
        clock.ahead_s += status(supervisor, "one").restart_in_s
        supervisor.poll()

    clock.ahead_s += 60
    die(supervisor, "one", wait_until)

    assert status(supervisor, "one").restart_in_s == pytest.approx(1, abs=0.5)


def test_a_process_that_need_not_run_again_stays_ended(supervisor, wait_until):
    supervisor.add(program("once", "raise SystemExit(3)", restart=False))
    supervisor.start()

    wait_until(lambda: supervisor.poll() and not supervisor.alive())

    assert status(supervisor, "once").state is ProcessState.STOPPED
    assert status(supervisor, "once").last_exit == "exit 3"


def test_what_a_dead_process_started_ends_with_it(supervisor, tmp_path, wait_until):
    helper = (
        "import subprocess, sys\n"
        f"child = subprocess.Popen([sys.executable, '-c', {FOREVER!r}])\n"
        "print(child.pid, flush=True)\n"
    )
    supervisor.add(program("one", helper + FOREVER))
    supervisor.start()
    wait_until(lambda: log(tmp_path, "one").count("up") == 2)
    helper_pid = int(next(line for line in log(tmp_path, "one").splitlines() if line.isdigit()))

    die(supervisor, "one", wait_until)

    wait_until(lambda: gone(helper_pid))


def test_ranks_end_one_after_the_other(supervisor, tmp_path, wait_until):
    note = tmp_path / "ended"
    code = (
        "import signal, sys, time\n"
        "def end(*_):\n"
        "    time.sleep(0.1)\n"
        f"    open({str(note)!r}, 'a').write(sys.argv[1])\n"
        "    sys.exit()\n"
        "signal.signal(signal.SIGTERM, end)\n"
    ) + FOREVER
    for name, rank in (("c", 2), ("a", 0), ("b", 1)):
        supervisor.add(Process(name, [sys.executable, "-c", code, name], stop_rank=rank))
    supervisor.start()
    wait_until(lambda: all("up" in log(tmp_path, name) for name in "abc"))

    supervisor.stop()

    assert note.read_text() == "abc"
    assert [entry.last_exit for entry in supervisor.status()] == ["exit 0"] * 3


def test_stubborn_processes_are_killed_in_time_and_nothing_is_left(
    supervisor, tmp_path, clock, wait_until
):
    runaway = (
        "import subprocess, sys\n"
        f"child = subprocess.Popen([sys.executable, '-c', {STUBBORN!r}], start_new_session=True)\n"
        "print(child.pid, flush=True)\n"
    )
    supervisor.add(program("first", runaway + STUBBORN, stop_rank=0))
    supervisor.add(program("second", STUBBORN, stop_rank=1))
    supervisor.start()
    wait_until(lambda: log(tmp_path, "first").count("up") == 2 and "up" in log(tmp_path, "second"))
    pids = [entry.pid for entry in supervisor.status()]
    pids += [int(line) for line in log(tmp_path, "first").splitlines() if line.isdigit()]
    began = clock.monotonic()

    supervisor.stop(timeout_s=1.0)

    assert clock.monotonic() - began < 2.0
    assert len(pids) == 3
    wait_until(lambda: all(gone(pid) for pid in pids))
    assert not (tmp_path / "state" / "run" / "processes.json").exists()


def test_stopping_twice_or_before_a_start_changes_nothing(supervisor):
    supervisor.add(program("one"))
    supervisor.stop()
    supervisor.start()
    supervisor.stop()
    supervisor.stop()

    assert supervisor.alive() == []
    assert status(supervisor, "one").state is ProcessState.STOPPED


def test_a_stopped_supervisor_can_start_again(supervisor):
    supervisor.add(program("one"))
    supervisor.start()
    supervisor.stop()

    supervisor.start()

    assert supervisor.alive() == ["one"]


def test_a_restart_gives_a_new_process_at_once(supervisor, tmp_path, wait_until):
    supervisor.add(program("one"))
    supervisor.start()
    wait_until(lambda: "up" in log(tmp_path, "one"))
    before = status(supervisor, "one").pid

    supervisor.restart("one")

    assert gone(before)
    assert status(supervisor, "one").state is ProcessState.RUNNING
    assert status(supervisor, "one").restarts == 1


def test_a_program_that_is_missing_is_named_at_the_start(supervisor):
    supervisor.add(Process("ghost", ["/nowhere/program"]))

    with pytest.raises(ProcessStartError, match=r"ghost.*/nowhere/program"):
        supervisor.start()


def test_a_program_is_looked_up_on_the_path_of_its_own_environment(supervisor, tmp_path):
    supervisor.add(Process("ghost", ["sleep", "60"], env={"PATH": str(tmp_path)}))

    with pytest.raises(ProcessStartError, match=r"sleep.*PATH"):
        supervisor.start()


def test_a_log_that_grew_too_large_is_set_aside_at_the_next_start(supervisor, tmp_path, wait_until):
    logs = tmp_path / "state" / "logs"
    logs.mkdir(parents=True)
    (logs / "one.log").write_bytes(b"x" * 10_000_001)
    (logs / "one.log.3").write_text("oldest")
    (logs / "one.log.1").write_text("older")
    supervisor.add(program("one"))

    supervisor.start()

    wait_until(lambda: log(tmp_path, "one") == "up\n")
    assert (logs / "one.log.1").stat().st_size == 10_000_001
    assert (logs / "one.log.2").read_text() == "older"
    assert (logs / "one.log.3").read_text() == "oldest"


def test_a_signal_can_be_sent_to_one_process(supervisor, tmp_path, wait_until):
    supervisor.add(program("one"))
    supervisor.start()
    wait_until(lambda: "up" in log(tmp_path, "one"))

    pid = supervisor.kill("one", signal.SIGSTOP)

    state = Path(f"/proc/{pid}/stat")
    wait_until(lambda: state.read_text().rpartition(")")[2].split()[0] == "T")
    supervisor.stop()
    assert status(supervisor, "one").last_exit == "SIGTERM", "woken to end by itself"
    with pytest.raises(ValueError, match="no process 'two'; there are: one"):
        supervisor.kill("two")
