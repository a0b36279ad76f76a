"""Kill a process between two system calls, any two: it runs under a tracer."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable

import pytest

TRACE_ME, TRACE_SYSCALL = 0, 24
"""From <linux/ptrace.h>."""

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.ptrace.argtypes = [ctypes.c_long] * 4
LIBC.ptrace.restype = ctypes.c_long


def killed_at(call: int, work: Callable[[], None]) -> bool:
    """Do something in a process of its own, killed when it begins its `call`-th system call.

    Returns:
        Whether it was killed; False if it ended before.
    """
    process = os.fork()
    if not process:
        try:
            traced = LIBC.ptrace(TRACE_ME, 0, 0, 0) == 0
            os.kill(os.getpid(), signal.SIGSTOP if traced else signal.SIGTERM)
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(process, 0)
    if not os.WIFSTOPPED(status):
        pytest.skip("tracing a process is not permitted here")
    for _ in range(2 * call - 1):  # it stops at the beginning and at the end of each
        LIBC.ptrace(TRACE_SYSCALL, process, 0, 0)
        _, status = os.waitpid(process, 0)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0, "what was to be killed failed by itself"
            return False
        assert os.WIFSTOPPED(status)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return True


def fresh(work: Callable[[], None]) -> None:
    """Do something in a process of its own, and fail as it does."""
    process = os.fork()
    if not process:
        try:
            work()
        except BaseException as error:
            print(f"in the fresh process: {error!r}", flush=True)
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(process, 0)
    assert os.waitstatus_to_exitcode(status) == 0
