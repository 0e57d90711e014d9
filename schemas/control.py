"""Control v1: an ordered instruction to every partition of the scorer, on `genai.anomaly.controls.v1`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

ControlKind = Literal["release", "exception", "verdict"]
RuleAction = Literal["exception", "suppression", "snooze"]


class ReleaseSwitch(msgspec.Struct, frozen=True, kw_only=True):
    """Value of a control of kind `release`: serve this one from the next batch on."""

    release: str
    space_id: str
    feature_schema: str
    state_schema: str
    manifest_sha256: str
    uri: str | None = None
    """Where its directory is; None: by its name below `release.directory`."""
    why: str = ""
    """Promotion, rollback, in a sentence."""


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """What of a tenant is not to become a finding, and until when.

    An **exception** says that such events are harmless: they are not found and are learned as normal. A **suppression**
    says that nobody wants to see them for now: not found either, but held back from what is learned. A **snooze** is of
    one entity whose finding is known: no record of it until then, after that its next anomaly updates or opens one.
    """

    rule_id: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    action: RuleAction
    tenant: str
    session: str | None = None
    """None: any."""
    key_hash: str | None = None
    """None: any."""
    signal: str | None = None
    """Only anomalies whose rarest signal is this one; None: any."""
    finding_uid: str | None = None
    """Of the finding that gave rise to it."""
    who: str
    why: str
    from_ms: int
    until_ms: int
    """Core time at which it ends."""


class RuleChange(msgspec.Struct, frozen=True, kw_only=True):
    """Value of a control of kind `exception`: a rule that begins, or the id of one that ends."""

    rule: Rule | None = None
    remove: str | None = None


class VerdictEffect(msgspec.Struct, frozen=True, kw_only=True):
    """Value of a control of kind `verdict`: what analysts' verdicts on a finding do at once, without retraining.

    It tells of all verdicts on the finding together, so that a repeated or later control replaces an earlier one.
    """

    finding_uid: str
    tenant: str
    entity_type: Literal["session", "key", "tenant"]
    entity: str
    session: str | None
    key_hash: str | None
    scope: Literal["event", "session", "entity", "tenant"]
    effect: Literal["admit", "keep_out", "none"]
    """`admit`: what is held back of the session (scope event, session), the key (entity) or the tenant may be learned
    at the next learn point; `keep_out`: it never is, and what was admitted before is not taken out again."""
    adopt: bool = False
    """Take the tenant's new prompt or model as its normal: all that is held back is admitted, drift starts anew."""
    risk_ms: int = 0
    """For so long, in core time, the key (or session, where no key is known) is judged more strictly; 0: not, and an
    earlier such control's time ends."""
    rule: Rule | None = None
    """A scoped, expiring exception; None ends the one that an earlier control of this finding began."""
    verdicts: dict[str, int] = {}
    """Analyst -> OCSF verdict id: who said what."""


class Control(msgspec.Struct, frozen=True, kw_only=True):
    """What shall take effect; its place in the order is its offset."""

    kind: ControlKind
    value: dict[str, Any]
    """Of kind `release` a `ReleaseSwitch`, of `exception` a `RuleChange`, of `verdict` a `VerdictEffect`."""
    time_ms: int
    """When it was issued."""
    issuer: str
    """Who or what asked for it."""
    tenant: str | None = None
    """The tenant it concerns; null for all."""
