"""What verdicts on a finding do at once: the content held back, the entity's risk, an exception, a new normal."""

from __future__ import annotations

from collections.abc import Sequence

from schemas.control import Effect, Rule, VerdictEffect
from schemas.verdict import ATTACKS, HARMLESS, TIME_MAX, VERDICTS, Verdict
from stream.feedback.inputs import FindingSeen
from stream.feedback.join import Row, rarest_signal

_DAY_MS = 86_400_000
_HOUR_MS = 3_600_000


def effect_of(row: Row, *, risk_hours: float) -> VerdictEffect | None:
    """The effect of all verdicts on a finding together; None while the finding or any verdict is missing.

    One analyst who says attack is enough to keep content out: what is wrongly held back comes back with the next
    training, what is wrongly admitted is learned as normal.
    """
    finding = row.finding
    if finding is None or not row.verdicts or finding.test:
        return None
    by_time = sorted((seen.verdict for seen in row.verdicts.values()), key=lambda each: (each.time, each.analyst))
    attacks = [verdict for verdict in by_time if verdict.verdict_id in ATTACKS]
    harmless = [verdict for verdict in by_time if verdict.verdict_id in HARMLESS]
    effect: Effect
    if attacks:
        effect, deciding, risk_ms = "keep_out", attacks[-1], round(risk_hours * _HOUR_MS)
    elif harmless:
        effect, deciding, risk_ms = "admit", harmless[-1], 0
    else:
        effect, deciding, risk_ms = "none", by_time[-1], 0
    admits = effect == "admit"
    return VerdictEffect(
        finding_uid=finding.uid,
        tenant=finding.tenant,
        entity_type=finding.entity_type,
        entity=finding.entity,
        session=finding.session,
        key_hash=finding.key_hash,
        scope=deciding.scope,
        effect=effect,
        adopt=admits and any(verdict.adopt for verdict in harmless),
        risk_ms=risk_ms,
        rule=_rule(finding, harmless) if admits else None,
        verdicts=_said(by_time),
    )


def must_send(effect: VerdictEffect | None, last: VerdictEffect | None) -> bool:
    """Whether `effect` tells the scorer anything after `last`, the one sent before.

    >>> must_send(None, None)
    False
    """
    if effect is None or effect == last:
        return False
    return last is not None or effect.effect != "none"


def _rule(finding: FindingSeen, harmless: Sequence[Verdict]) -> Rule | None:
    asking = [verdict for verdict in harmless if verdict.exception_days]
    if not asking:
        return None
    verdict = asking[-1]
    where = _reach(finding, verdict.scope)
    if where is None:
        return None
    session, key_hash = where
    return Rule(
        rule_id=f"verdict-{finding.uid}",
        action="exception",
        tenant=finding.tenant,
        session=session,
        key_hash=key_hash,
        signal=rarest_signal(finding),
        finding_uid=finding.uid,
        who=verdict.analyst,
        why=f"{VERDICTS[verdict.verdict_id]}: verdict on finding {finding.uid}",
        from_ms=verdict.time,
        until_ms=min(verdict.time + round((verdict.exception_days or 0.0) * _DAY_MS), TIME_MAX),
    )


def _reach(finding: FindingSeen, scope: str) -> tuple[str | None, str | None] | None:
    """Session and key that an exception is for, None for any; None when the finding names nothing so narrow.

    A scope never grows by itself: a verdict about a session must not silence its tenant.
    """
    if scope == "tenant" or finding.entity_type == "tenant":
        return None, None
    if scope == "entity" and finding.key_hash is not None:
        return None, finding.key_hash
    if finding.session is not None:
        return finding.session, None
    return (None, finding.key_hash) if finding.key_hash is not None else None


def _said(verdicts: Sequence[Verdict]) -> dict[str, int]:
    return {verdict.analyst: verdict.verdict_id for verdict in sorted(verdicts, key=lambda each: each.analyst)}
