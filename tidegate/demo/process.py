"""Tidegate's own commands, run as a user would run them."""

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

_STOP_S = 60.0


class CommandError(RuntimeError):
    """A command ended as it should not have."""


def run(arguments: list[str], environment: dict[str, str], log: Path) -> None:
    """Run a command to its end, its output in `log`.

    Raises
    ------
    CommandError
        When it fails, with the end of its log.
    """
    with log.open("wb") as out:
        command = [sys.executable, "-m", "tidegate.cli", *arguments]
        code = subprocess.run(command, env=environment, stdout=out, stderr=out, check=False).returncode
    if code:
        raise CommandError(f"`tidegate {' '.join(arguments)}` ended with {code}: {_tail(log)}")


class Service:
    """A service as a process of its own, stopped with the block it was started in."""

    def __init__(
        self, arguments: list[str], environment: dict[str, str], log: Path, module: str = "tidegate.cli"
    ) -> None:
        self._arguments = arguments
        self._log = log
        self._out = log.open("ab")
        command = [sys.executable, "-m", module, *arguments]
        self._process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=self._out, start_new_session=True
        )

    def ready(self, timeout_s: float) -> dict[str, Any]:
        """Wait for its READY line; what it says."""
        stdout = self._process.stdout
        assert stdout is not None
        deadline = time.monotonic() + timeout_s
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            while selector.select(max(0.0, deadline - time.monotonic())):
                line = stdout.readline().decode()
                if line.startswith("READY "):
                    said: dict[str, Any] = json.loads(line.removeprefix("READY "))
                    return said
                if not line:
                    break
        raise CommandError(f"`tidegate {self._arguments[0]}` did not become ready: {_tail(self._log)}")

    def check(self) -> None:
        """Raise when it has ended."""
        code = self._process.poll()
        if code is not None:
            raise CommandError(f"`tidegate {self._arguments[0]}` ended with {code}: {_tail(self._log)}")

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def code(self) -> int | None:
        """Its exit code once it has ended."""
        return self._process.poll()

    def kill(self) -> None:
        """End it as a crash would: SIGKILL."""
        self._process.kill()
        self._process.wait()

    def tell(self) -> None:
        """Have a service write to its log what each of its threads does."""
        self._process.send_signal(signal.SIGUSR1)

    def freeze(self) -> None:
        """Stop its clockwork, as a paused machine does: SIGSTOP."""
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._process.send_signal(signal.SIGCONT)

    def wait(self, timeout_s: float) -> None:
        """Wait until it ends by itself, as it should with `--until-end`."""
        try:
            code = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise CommandError(
                f"`tidegate {self._arguments[0]}` did not end in {timeout_s:.0f} s: {_tail(self._log)}"
            ) from None
        if code:
            raise CommandError(f"`tidegate {self._arguments[0]}` ended with {code}: {_tail(self._log)}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._out.close()


def environment(**values: str) -> dict[str, str]:
    """The environment of this process, with these values."""
    return {**os.environ, **values}


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return f"{lines[-1] if lines else 'it said nothing'} (all of it: {log})"
