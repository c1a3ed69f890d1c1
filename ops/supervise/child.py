"""Become another program that ends when the supervisor does.

Run as a script: ``python child.py SUPERVISOR_PID PROGRAM ARGUMENT...``. On Linux the kernel then
kills the program with SIGKILL when the supervisor dies, however it dies; elsewhere the supervisor's
next start finds what was left. A script, not a hook between fork and exec: such a hook runs Python
in a copy of a process whose other threads may hold any lock.

It imports nothing of ours: it runs before the program's own environment is in place.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
_NOT_EXECUTED = 127


def main(arguments: list[str]) -> int:
    """Bind our life to the supervisor's and become the program; returns only when that fails."""
    supervisor, program = int(arguments[0]), arguments[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        # It may have died before the kernel was told.
        if os.getppid() != supervisor:
            return 1
    try:
        os.execvp(program[0], program)  # noqa: S606 - this script's purpose
    except OSError as error:
        sys.stderr.write(f"can't run {program[0]}: {error.strerror}\n")
    return _NOT_EXECUTED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
