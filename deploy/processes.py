"""Processes of others, such as a broker, that live no longer than the one that started them."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys

_PR_SET_PDEATHSIG = 1


def free_ports(count: int) -> list[int]:
    """Loopback ports that nobody listens on just now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()


def spawn(command: list[str], output: int) -> subprocess.Popen[bytes]:
    """Start `command` in a process group of its own, to be signalled by the kernel when this process dies."""
    libc = ctypes.CDLL(None, use_errno=True)
    parent = os.getpid()

    def die_with_parent() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before prctl
            os._exit(1)

    # Ctrl-C reaches the terminal's foreground group: not this one, so that clients can finish before their broker goes.
    # preexec_fn may deadlock when another thread holds a lock it needs; prctl and getppid take none.
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=die_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509
    )


def end(process: subprocess.Popen[bytes], grace_s: float) -> None:
    """End a process that `spawn` started, with its group: SIGTERM, after `grace_s` SIGKILL."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            return
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            return
        try:
            process.wait(timeout=grace_s)
        except subprocess.TimeoutExpired:
            continue
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)  # a second Ctrl-C does not wait
            process.wait()
            raise
