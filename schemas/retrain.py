"""Retrain request v1: why a model should be made anew, on `genai.model.retrain.v1`."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

POPULATION = "population"
"""Key of what concerns all tenants."""
Cause = Literal["labels", "drift", "precision", "age", "manual"]


class Reason(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that asks for training."""

    cause: Cause
    """`labels`: enough new ones; `drift`: confirmed by a verdict; `precision`: a signal's fell below its floor; `age`:
    of the release; `manual`: somebody asked."""
    detail: str
    """In a sentence."""
    tenant: str | None = None
    signal: str | None = None
    value: float | None = None
    threshold: float | None = None


class RetrainRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request; its key is its subject, and one with the id of an earlier one asks for nothing new."""

    request_id: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{32}$")]
    """Of subject, release, the time since which that serves (Kafka's timestamp of its first score), causes, and a
    generation: how many times `feedback.labels_min` labels of the subject have come since then. The same situation
    gives the same id, after a restart too. Where the gate refused what was trained, the next generation has another;
    where a release serves anew after a rollback, that has another too."""
    subject: str
    """`population`, or the tenant whose adapter is meant."""
    reasons: Annotated[list[Reason], msgspec.Meta(min_length=1)]
    time_ms: int
    release: str | None
    """In service when the request was made."""
    labels: int
    """Labels that teach, of the subject, at that time."""
    issuer: str = "tidegate feedback"
