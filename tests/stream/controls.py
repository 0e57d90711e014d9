"""Controls for tests, as they lie on their topic."""

from __future__ import annotations

from typing import Any

from stream.inputs import Applied, InputBatch
from tests.stream.streams import START_MS, TOPIC

DAY_MS = 86_400_000


def control(kind: str, value: dict[str, Any], time_ms: int = START_MS) -> dict[str, Any]:
    """A control."""
    return {"kind": kind, "value": value, "time_ms": time_ms, "issuer": "ada", "tenant": value.get("tenant")}


def rule(rule_id: str = "x-1", action: str = "exception", tenant: str = "team-0", **more: Any) -> dict[str, Any]:
    """A rule of the whole tenant, for a day."""
    said = {"who": "ada", "why": "known", "from_ms": START_MS, "until_ms": START_MS + DAY_MS}
    return {"rule_id": rule_id, "action": action, "tenant": tenant, **said, **more}


def begin(**of_rule: Any) -> dict[str, Any]:
    """A rule begins."""
    return control("exception", {"rule": rule(**of_rule)})


def end(rule_id: str = "x-1") -> dict[str, Any]:
    """A rule ends."""
    return control("exception", {"remove": rule_id})


def verdict(effect: str = "none", tenant: str = "team-0", session: str | None = "s0", **more: Any) -> dict[str, Any]:
    """What verdicts on a finding do."""
    told = {
        "finding_uid": "f" * 32, "tenant": tenant, "entity_type": "session", "entity": session or tenant,
        "session": session, "key_hash": None, "scope": "session", "effect": effect, "verdicts": {"ada": 2},
    }  # fmt: skip
    return control("verdict", told | more)


def switch(release: str) -> dict[str, Any]:
    """A release is promoted."""
    ids = {"space_id": "words-32", "feature_schema": "f", "state_schema": "s"}
    return control("release", {"release": release, **ids, "manifest_sha256": "0" * 64, "why": "promotion"})


def applied(value: dict[str, Any], offset: int = 0, partition: int = 0) -> InputBatch:
    """A batch without records in which the control takes effect."""
    return InputBatch([], [Applied(partition, "control", value, offset)], topic=TOPIC)
