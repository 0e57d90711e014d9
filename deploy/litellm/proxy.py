"""A real LiteLLM proxy on loopback whose calls go to Kafka, for `make stack`, tests and trying things out.

Runs in the environment that `make setup` makes for it, `.venv-litellm`. Only the standard library here:

```
python -m deploy.litellm.proxy --bootstrap-servers 127.0.0.1:9092 --topic litellm.logs
```
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

HERE = Path(__file__).resolve().parent
PROGRAM = HERE.parents[1] / ".venv-litellm" / "bin" / "litellm"
CONFIG = HERE / "config.yaml"
LOG_TAIL_LINES = 15
_ANSWER_SECONDS = 5.0
_TURN_SECONDS = 0.2


class ProxyUnavailable(RuntimeError):
    """The proxy is not installed, or did not start; the message says why."""


class LiteLLMProxy:
    """One proxy process on a free loopback port; a context manager.

    Parameters
    ----------
    environment
        What it finds in its environment besides this process's own, such as `KAFKA_BOOTSTRAP_SERVERS`.
    log
        File of what it prints.
    config
        Its config.yaml.
    port
        0 takes a free one.

    Attributes
    ----------
    url
        Its address while it runs.
    """

    def __init__(self, environment: Mapping[str, str], log: Path, config: Path = CONFIG, port: int = 0) -> None:
        self._environment = dict(environment)
        self._log = log
        self._config = config
        self._port = port
        self._process: subprocess.Popen[bytes] | None = None
        self.url = ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Process id while it runs."""
        assert self._process is not None
        return self._process.pid

    def start(self, timeout_s: float = 90.0) -> None:
        """Start the proxy; return once it answers.

        Raises
        ------
        ProxyUnavailable
            When it is not installed, ends, or is silent for `timeout_s`.
        """
        if not PROGRAM.is_file():
            raise ProxyUnavailable(f"{PROGRAM} is not here; run 'make setup'.")
        port = self._port or _free_port()
        command = [str(PROGRAM), "--config", str(self._config), "--host", "127.0.0.1", "--port", str(port)]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Ctrl-C of a terminal reaches whoever started it, which stops it in its turn.
                start_new_session=True,
                env={
                    **os.environ,
                    # Nobody but this proxy has to know it: callers have keys of their own.
                    "LITELLM_MASTER_KEY": f"sk-{secrets.token_hex(32)}",
                    # The catalogue of models is in the package; LiteLLM would fetch it anew.
                    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
                    **self._environment,
                },
            )
        self.url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + timeout_s
        try:
            while not self._answers():
                code = self._process.poll()
                if code is not None:
                    raise ProxyUnavailable(f"the LiteLLM proxy ended while starting (exit {code}): {self._tail()}")
                if time.monotonic() > deadline:
                    raise ProxyUnavailable(f"the LiteLLM proxy was not up within {timeout_s:g} s: {self._tail()}")
                time.sleep(_TURN_SECONDS)
        except BaseException:
            self.stop()
            raise

    def stop(self, grace_s: float = 20.0) -> int | None:
        """End it with SIGTERM, after `grace_s` with SIGKILL; its exit code. Safe to call twice."""
        process, self._process = self._process, None
        if process is None:
            return None
        process.terminate()
        try:
            return process.wait(grace_s)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    def wait(self) -> int:
        """Wait until it ends by itself; its exit code."""
        assert self._process is not None
        return self._process.wait()

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection(self.url.removeprefix("http://"), timeout=_ANSWER_SECONDS)
        try:
            connection.request("GET", "/health/liveliness")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _tail(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return "\n".join(lines[-LOG_TAIL_LINES:]) or "it said nothing"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line: a proxy until SIGTERM or Ctrl-C; prints one line `READY {…}` when it answers."""
    parser = argparse.ArgumentParser(
        prog="python -m deploy.litellm.proxy", description="A real LiteLLM proxy on this machine, logging to Kafka."
    )
    parser.add_argument("--bootstrap-servers", default=os.environ.get("KAFKA_BOOTSTRAP_SERVERS", "localhost:9092"))
    parser.add_argument("--topic", default="litellm.logs", help="topic of the calls' records")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--config", type=Path, default=CONFIG)
    parser.add_argument("--log", type=Path, default=Path("out/litellm-proxy.log"))
    given = parser.parse_args(arguments)
    given.log.parent.mkdir(parents=True, exist_ok=True)
    environment = {"KAFKA_BOOTSTRAP_SERVERS": given.bootstrap_servers, "TIDEGATE_LITELLM__TOPIC": given.topic}
    proxy = LiteLLMProxy(environment, given.log, given.config, given.port)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        with proxy:
            print(f"READY {json.dumps({'http': proxy.url, 'pid': proxy.pid})}", flush=True)
            return proxy.wait()
    except ProxyUnavailable as error:
        print(f"litellm proxy: {error}", file=sys.stderr)
        return 3
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
