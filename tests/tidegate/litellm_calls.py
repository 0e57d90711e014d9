"""Calls of a LiteLLM proxy over HTTP, and a broker that can be away: what the proxy's tests need."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Mapping
from typing import Any


def call(url: str, body: Mapping[str, Any], path: str = "/chat/completions", **headers: str) -> tuple[int, str]:
    """Status and body of one call; `headers` with '_' for '-', with the key of team `acme` unless they have one."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=180)
    sent = {"content-type": "application/json", "authorization": "Bearer sk-demo-acme"}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        connection.request("POST", path, json.dumps(body), sent)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def metrics(url: str) -> dict[str, float]:
    """The proxy's own metrics of its log: name and labels -> value."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=180)
    try:
        connection.request("GET", "/metrics/")
        lines = connection.getresponse().read().decode().splitlines()
    finally:
        connection.close()
    rows = [line.rsplit(" ", 1) for line in lines if line.startswith("tidegate_litellm_")]
    return {name.removeprefix("tidegate_litellm_"): float(value) for name, value in rows}


def records(url: str, result: str) -> float:
    """How many records of the proxy ended with `result`."""
    return metrics(url)[f'records_total{{result="{result}"}}']


class Door:
    """A port that refuses every connection until it is opened, and then passes them on to a broker.

    A client asks here for the brokers' own addresses and needs it no more.
    """

    def __init__(self, servers: str) -> None:
        host, _, port = servers.partition(",")[0].rpartition(":")
        self._behind = (host, int(port))
        self._socket = socket.socket()
        # Bound and not listening: the port is this test's, and connections to it are refused.
        self._socket.bind(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"

    def open(self) -> None:
        """Let everybody in."""
        self._socket.listen()
        threading.Thread(target=self._welcome, daemon=True).start()

    def close(self) -> None:
        """Give the port back."""
        self._socket.close()

    def _welcome(self) -> None:
        while True:
            try:
                guest, _ = self._socket.accept()
            except OSError:
                return
            host = socket.create_connection(self._behind)
            for one, other in ((guest, host), (host, guest)):
                threading.Thread(target=_pump, args=(one, other), daemon=True).start()


def _pump(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65_536):
            target.sendall(data)
    except OSError:
        pass
    finally:
        for one in (source, target):
            one.close()


def until(condition: Any, seconds: float = 180) -> None:
    """Wait for `condition()`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)
