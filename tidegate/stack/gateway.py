"""Calls through a real LiteLLM proxy: benign ones, and one whose tool answers with instructions."""

from __future__ import annotations

import json
import threading
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from schemas.corpus import CorpusSession
from stream.runtime.canary_traffic import CanaryTraffic, litellm_records

TEAM = "acme"
"""Team of the key that the calls are made with; its name is the tenant's."""
_TIMEOUT_S = 20.0
_MODEL = "mock"


@dataclass(slots=True)
class Seen:
    """Sessions with a finding of one tenant, and when it was read first; filled by a thread, read by another."""

    tenant: str
    sessions: dict[str, float] = field(default_factory=dict)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def finding(self, record: dict[str, Any]) -> None:
        """Take note of a finding's record whose evidence is a tool's answer."""
        roles = {evidence["data"]["role"] for evidence in record.get("evidences", ())}
        if record["metadata"]["tenant_uid"] == self.tenant and "tool" in roles:
            with self.changed:
                self.sessions.setdefault(record["unmapped"]["entity"], time.monotonic())
                self.changed.notify_all()

    def wait(self, session: str, timeout_s: float) -> float | None:
        """When the session's finding was read, on the monotonic clock; None when it is not within `timeout_s`."""
        with self.changed:
            self.changed.wait_for(lambda: session in self.sessions, timeout_s)
            return self.sessions.get(session)


class Caller:
    """An application behind the gateway.

    Parameters
    ----------
    url
        Of the proxy.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._traffic = CanaryTraffic(TEAM, Random(11))

    def benign(self) -> None:
        """The calls of one benign session."""
        self._session(self._traffic.benign())

    def attack(self) -> tuple[str, float]:
        """The calls of a session with an injected tool result: its name, and when the proxy had answered the last."""
        return self._session(self._traffic.attack())

    def _session(self, session: CorpusSession) -> tuple[str, float]:
        name = session.session.replace(" ", "-")
        for record in litellm_records(session, 0):
            self._call(name, record["messages"], record["model_parameters"]["tools"])
        return name, time.monotonic()

    def _call(self, session: str, messages: list[Any], tools: list[Any]) -> None:
        body = {"model": _MODEL, "messages": messages, "tools": tools, "litellm_session_id": session}
        request = urllib.request.Request(  # noqa: S310 -- the proxy that we started
            f"{self._url}/v1/chat/completions",
            json.dumps(body).encode(),
            {"Authorization": f"Bearer sk-demo-{TEAM}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:  # noqa: S310
            json.load(answer)


def make_known(caller: Caller, sessions: int, said: Callable[[int], None]) -> None:
    """Benign sessions, one after another, so that the tenant has a past."""
    for number in range(sessions):
        caller.benign()
        said(number + 1)
