"""What is said of every event: its score record."""

from math import isnan

import orjson

from stream.batch import EventBatch
from stream.record import OutRecord
from stream.state.schema import KINDS
from stream.steps.route import event_key
from stream.steps.score import Scores


def score_record(
    batch: EventBatch,
    event: int,
    at: int,
    late: bool,
    ordinal: int,
    scores: Scores,
    decided: str | None,
    finding_uid: str | None,
    release: str,
) -> tuple[OutRecord, str]:
    """The score of one event and its decision; `at` is its place among those scored, -1 for a duplicate.

    `ordinal` is the event's number in its tenant, or the last one's for a duplicate; `decided` is what became of it if
    it was an anomaly.
    """
    head = batch.heads[event]
    offset, partition = int(batch.offset[event]), int(batch.partition[event])
    body = {
        "clamped": bool(batch.clamped[event]),
        "decision": "duplicate",
        "event_id": head.event_id,
        "event_time_ms": int(batch.event_time_ms[event]),
        "finding_uid": finding_uid,
        "late": late,
        "learned": "no",
        "offset": offset,
        "ordinal": ordinal,
        "p": {},
        "p_combined": None,
        "partition": partition,
        "release": release,
        "session": head.session,
        "signals": {},
        "tenant": head.tenant,
    }
    if at >= 0:
        x, p = scores.x[at].tolist(), scores.p[at].tolist()
        body["decision"] = decided or ("warmup" if scores.warmup[at] else "none")
        body["learned"] = "quarantined" if scores.quarantined[at] else "yes"
        present = [(kind, value, q) for kind, value, q in zip(KINDS, x, p, strict=True) if not isnan(value)]
        body["signals"] = {kind: round(value, 6) for kind, value, _ in present}
        body["p"] = {kind: significant(q) for kind, _, q in present}
        body["p_combined"] = significant(float(scores.p_combined[at]))
    record = OutRecord(
        partition,
        batch.keys[event] or event_key(head.tenant, None),
        orjson.dumps(body, option=orjson.OPT_SORT_KEYS),
        (batch.topic, partition, offset),
        head.event_id,
        batch.traceparent[event],
    )
    return record, str(body["decision"])


def significant(p: float) -> float:
    """Six significant digits: more are noise, and differ between machines.

    >>> significant(0.000123456789)
    0.000123457
    """
    return float(f"{p:.6g}")
