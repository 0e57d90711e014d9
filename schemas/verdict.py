"""Verdict v1: what an analyst says of a finding, on `genai.feedback.verdicts.v1`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
import orjson

from schemas.manifest import Signature

VERDICTS = {
    1: "False Positive",
    2: "True Positive",
    3: "Disregard",
    4: "Suspicious",
    5: "Benign",
    6: "Test",
    7: "Insufficient Data",
    8: "Security Risk",
    9: "Managed Externally",
    10: "Duplicate",
}
"""OCSF `verdict_id`."""
FALSE_POSITIVE, TRUE_POSITIVE, BENIGN, SECURITY_RISK = 1, 2, 5, 8
ATTACKS = frozenset({TRUE_POSITIVE, SECURITY_RISK})
"""Verdicts that teach an attack."""
HARMLESS = frozenset({FALSE_POSITIVE, BENIGN})
"""Verdicts that teach what is normal; Benign says that the finding was true, and does not matter."""

Scope = Literal["event", "session", "entity", "tenant"]
FindingUid = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{32}$")]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
BYTES_MAX = 65_536
"""Largest record that is read as a verdict."""
TIME_MAX = 2**53 - 1
"""The largest time, ms since 1970: beyond it JSON's readers disagree about integers."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """One analyst's word on one finding; a later one of the same analyst replaces it."""

    finding_uid: FindingUid
    verdict_id: Annotated[int, msgspec.Meta(ge=1, le=10)]
    """OCSF: of `VERDICTS`."""
    analyst: Name
    time: Annotated[int, msgspec.Meta(ge=0, le=TIME_MAX)]
    """When it was given, ms since 1970: the latest of an analyst counts, whatever the order of arrival. One that lies
    more than 5 minutes after its record's Kafka timestamp is taken for that timestamp."""
    status_id: Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)] | None = None
    """OCSF status of the finding, as the source system has it."""
    notes: Annotated[list[Annotated[str, msgspec.Meta(max_length=2_000)]], msgspec.Meta(max_length=20)] = []
    tenant: Annotated[str, msgspec.Meta(max_length=256)] | None = None
    scope: Scope = "session"
    """What the verdict's effects reach: the finding's events, their session, their key, or the tenant."""
    source_system: Annotated[str, msgspec.Meta(max_length=256)] = "tidegate"
    adopt: bool = False
    """The tenant's traffic has changed for good: take what is new as its normal."""
    exception_days: Annotated[float, msgspec.Meta(ge=0, le=366)] | None = None
    """Of a harmless verdict: nothing of this kind is found in its scope for so long."""
    signature: Signature | None = None
    """Ed25519 by the analyst over `signed_bytes`."""


def signed_bytes(plain: dict[str, Any]) -> bytes:
    """What an analyst signs: the verdict as JSON with sorted keys, without spaces and without `signature`.

    >>> signed_bytes({"verdict_id": 2, "signature": None, "analyst": "ada"})
    b'{"analyst":"ada","verdict_id":2}'
    """
    return orjson.dumps({k: v for k, v in plain.items() if k != "signature"}, option=orjson.OPT_SORT_KEYS)
