"""Journal v1: what took effect before which event, on `genai.anomaly.journal.v1`, so that a replay repeats it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

JournalKind = Literal["start", "config", "control", "tick"]


class Journal(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that took effect in one partition."""

    partition: int
    before_offset: int
    """The event before which it took effect."""
    seq: Annotated[int, msgspec.Meta(ge=0)]
    """Order among entries of the same partition and offset."""
    kind: JournalKind
    """`start` and `config` hold the configuration that results depend on, `control` a copy of the control, `tick` the
    core time that an idle partition was moved to."""
    control_offset: int | None
    """Of a control, its offset on the controls topic."""
    value: dict[str, Any]
