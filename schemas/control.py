"""Control v1: an ordered instruction to every partition of the scorer, on `genai.anomaly.controls.v1`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

ControlKind = Literal["release", "exception", "verdict"]
RuleAction = Literal["exception", "suppression", "snooze"]
WHY_MAX = 8_192
Name = Annotated[str, msgspec.Meta(max_length=4_096)]
"""As long as a session's or a directory's may be."""
Sentence = Annotated[str, msgspec.Meta(max_length=WHY_MAX)]
Milliseconds = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
"""What every reader of JSON takes for the same number, and 64 bits hold after any sum."""


class ReleaseSwitch(msgspec.Struct, frozen=True, kw_only=True):
    """Value of a control of kind `release`: serve this one from the next batch on."""

    release: Name
    space_id: Name
    feature_schema: Name
    state_schema: Name
    manifest_sha256: Annotated[str, msgspec.Meta(max_length=64)]
    uri: Name | None = None
    """Where its directory is; None: by its name below `release.directory`."""
    why: Sentence = ""
    """Promotion, rollback, in a sentence."""


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """What of a tenant is not to become a finding, and until when.

    An **exception** says that such events are harmless: they are not found and are learned as normal. A **suppression**
    says that nobody wants to see them for now: not found either, but held back from what is learned. A **snooze** is of
    one entity whose finding is known: no record of it until then, after that its next anomaly updates or opens one.
    """

    rule_id: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    action: RuleAction
    tenant: Name
    session: Name | None = None
    """None: any."""
    key_hash: Name | None = None
    """None: any."""
    signal: Name | None = None
    """Only anomalies whose rarest signal is this one; None: any."""
    finding_uid: Name | None = None
    """Of the finding that gave rise to it."""
    who: Name
    why: Sentence
    from_ms: Milliseconds
    until_ms: Milliseconds
    """Core time at which it ends."""


class RuleChange(msgspec.Struct, frozen=True, kw_only=True):
    """Value of a control of kind `exception`: a rule that begins, or the id of one that ends."""

    rule: Rule | None = None
    remove: Name | None = None


Effect = Literal["admit", "keep_out", "none"]


class VerdictEffect(msgspec.Struct, frozen=True, kw_only=True):
    """Value of a control of kind `verdict`: what analysts' verdicts on a finding do at once, without retraining.

    It tells of all verdicts on the finding together, so that a repeated or later control replaces an earlier one.
    """

    finding_uid: Name
    tenant: Name
    entity_type: Literal["session", "key", "tenant"]
    entity: Name
    session: Name | None
    key_hash: Name | None
    scope: Literal["event", "session", "entity", "tenant"]
    effect: Effect
    """`admit`: what is held back of the session (scope event, session), the key (entity) or the tenant may be learned
    at the next learn point; `keep_out`: it never is, and what was admitted before is not taken out again."""
    adopt: bool = False
    """Take the tenant's new prompt or model as its normal: all that is held back is admitted, drift starts anew."""
    risk_ms: Milliseconds = 0
    """For so long, in core time, the key (or session, where no key is known) is judged more strictly; 0: not, and an
    earlier such control's time ends."""
    rule: Rule | None = None
    """A scoped, expiring exception; None ends the one that an earlier control of this finding began."""
    verdicts: dict[Name, Annotated[int, msgspec.Meta(ge=0, le=99)]] = {}
    """Analyst -> OCSF verdict id: who said what."""


class Control(msgspec.Struct, frozen=True, kw_only=True):
    """What shall take effect; its place in the order is its offset."""

    kind: ControlKind
    value: dict[str, Any]
    """Of kind `release` a `ReleaseSwitch`, of `exception` a `RuleChange`, of `verdict` a `VerdictEffect`."""
    time_ms: Milliseconds
    """When it was issued."""
    issuer: Name
    """Who or what asked for it."""
    tenant: Name | None = None
    """The tenant it concerns; null for all."""
