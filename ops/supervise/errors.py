"""What can go wrong with processes that we start."""

from core.errors import GaplessError


class ProcessStartError(GaplessError):
    """A process can't be started at all: its program is missing or can't be executed."""

    code = "process_start"


class SupervisorRunningError(GaplessError):
    """Another live supervisor looks after the processes of this folder."""

    code = "supervisor_running"
