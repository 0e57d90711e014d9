"""When a model should be made anew, by what analysts have said since the release in service came."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256

import msgspec
import orjson

from schemas.retrain import POPULATION, Reason, RetrainRequest
from stream.config import FeedbackSettings
from stream.feedback.tally import Asked, ReleaseSeen, SignalCounts, Tally, counts

_DAY_MS = 86_400_000


def request_id(
    subject: str, release: str | None, reasons: Iterable[Reason], *, since_ms: int = 0, generation: int = 0
) -> str:
    """Id of a request: the same while all of these are, whatever the reasons say in detail.

    A trainer passes over an id that it has done. Without a generation, one refusal at the gate would be the last word
    on a release, and without the time a rollback to it would be.

    Parameters
    ----------
    since_ms
        Since when `release` serves.
    generation
        How many times enough labels for a retraining have come since then.

    >>> reason = Reason(cause="labels", detail="51 new labels")
    >>> request_id("population", "r", [reason]) == request_id("population", "r", [Reason(cause="labels", detail="52")])
    True
    >>> request_id("population", "r", [reason]) == request_id("population", "r", [reason], generation=1)
    False
    """
    causes = sorted([reason.cause, reason.tenant or "", reason.signal or ""] for reason in reasons)
    return sha256(orjson.dumps([subject, release, since_ms, generation, causes])).hexdigest()[:32]


def requests(
    tallies: Sequence[Tally], in_service: ReleaseSeen | None, now_ms: int, settings: FeedbackSettings
) -> list[RetrainRequest]:
    """What should be trained anew, the population first; at most one request a subject.

    Labels count as new when their verdict came after the release in service did; the precision of a signal is that of
    findings of this release. Otherwise a retraining would leave its own reasons behind. A reason that a retraining did
    not remove, because its release was refused, asks again with every `feedback.labels_min` new labels.
    """

    def request(subject: str, reasons: list[Reason], labels: int) -> RetrainRequest:
        generation = labels // settings.labels_min
        return RetrainRequest(
            request_id=request_id(subject, release, reasons, since_ms=since_ms, generation=generation),
            subject=subject,
            reasons=reasons,
            time_ms=now_ms,
            release=release,
            labels=labels,
        )

    release = in_service.release if in_service is not None else None
    since_ms = in_service.at_ms if in_service is not None else 0
    new = _new_labels(tallies, since_ms)
    population = sum(new.values())
    reasons = _labels_reason(population, release, settings)
    reasons += _precision_reasons(tallies, release, settings)
    if in_service is not None:
        reasons += _age_reason(population, in_service, now_ms, settings)
    found = [request(POPULATION, reasons, population)] if reasons else []
    moved = {tally.tenant for tally in tallies if (tally.drift_confirmed_ms or 0) > since_ms}
    for tenant in sorted(moved):
        detail = f"an analyst confirmed that what is normal for {tenant} has moved"
        found.append(request(tenant, [Reason(cause="drift", detail=detail, tenant=tenant)], new.get(tenant, 0)))
    return found


def unasked(wanted: Iterable[RetrainRequest], asked: Iterable[Asked]) -> list[RetrainRequest]:
    """Those of `wanted` that were not made before."""
    known = {request_id for each in asked for request_id in each.request_ids}
    return [request for request in wanted if request.request_id not in known]


def with_asked(known: Asked | None, request: RetrainRequest) -> Asked:
    """What is remembered of a subject's requests once `request` is made; those under another release are forgotten."""
    earlier = known.request_ids if known is not None and known.release == request.release else []
    return Asked(
        subject=request.subject,
        release=request.release,
        request_ids=[*earlier, request.request_id],
        last=msgspec.to_builtins(request),
    )


def _new_labels(tallies: Iterable[Tally], since_ms: int) -> dict[str, int]:
    """Tenant -> labels that teach, that nobody disputes, and that came since then."""
    found: dict[str, int] = {}
    for tally in tallies:
        if tally.judged in ("attack", "benign"):
            new = sum(label.teaches is not None and label.at_ms > since_ms for label in tally.labels)
            found[tally.tenant] = found.get(tally.tenant, 0) + new
    return found


def _labels_reason(new: int, release: str | None, settings: FeedbackSettings) -> list[Reason]:
    enough = settings.labels_min
    if new < enough:
        return []
    since = f" since {release}" if release is not None else ""
    detail = f"{new} new label{'s' if new > 1 else ''}{since}; {enough} are enough"
    return [Reason(cause="labels", detail=detail, value=float(new), threshold=float(enough))]


def _precision_reasons(tallies: Sequence[Tally], release: str | None, settings: FeedbackSettings) -> list[Reason]:
    by_signal: dict[str, SignalCounts] = {}
    for (_, signal), found in counts(tallies, release).items():
        total = by_signal.setdefault(signal, SignalCounts())
        total.attack += found.attack
        total.benign += found.benign
    reasons = []
    for signal, total in sorted(by_signal.items()):
        judged, precision = total.attack + total.benign, total.precision
        if precision is None or judged < settings.precision_labels_min or precision >= settings.precision_floor:
            continue
        detail = f"{signal or 'no signal'}: {total.attack} of {judged} judged findings were attacks"
        reasons.append(
            Reason(cause="precision", detail=detail, signal=signal, value=precision, threshold=settings.precision_floor)
        )
    return reasons


def _age_reason(new: int, in_service: ReleaseSeen, now_ms: int, settings: FeedbackSettings) -> list[Reason]:
    days = (now_ms - in_service.at_ms) / _DAY_MS
    if not new or days < settings.release_age_days:
        return []
    detail = (
        f"{in_service.release} has been in service for {days:.1f} days, and {new} label{'s' if new > 1 else ''} came"
    )
    return [Reason(cause="age", detail=detail, value=days, threshold=settings.release_age_days)]
