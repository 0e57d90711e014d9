"""Control v1: an ordered instruction to every partition of the scorer, on `genai.anomaly.controls.v1`."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

ControlKind = Literal["release", "exception", "verdict"]


class ReleaseSwitch(msgspec.Struct, frozen=True, kw_only=True):
    """Value of a control of kind `release`: serve this one from the next batch on."""

    release: str
    space_id: str
    feature_schema: str
    state_schema: str
    manifest_sha256: str


class Control(msgspec.Struct, frozen=True, kw_only=True):
    """What shall take effect; its place in the order is its offset."""

    kind: ControlKind
    value: dict[str, Any]
    """Of kind `release` a `ReleaseSwitch`."""
    time_ms: int
    """When it was issued."""
    issuer: str
    """Who or what asked for it."""
    tenant: str | None = None
    """The tenant it concerns; null for all."""
