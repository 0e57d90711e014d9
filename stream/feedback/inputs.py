"""What of a finding, a score and a verdict the join keeps, and how it is told that a row may go.

All of them travel on one topic keyed by finding uid, so that whatever belongs to a finding meets in one partition, in
one order, whoever wrote it and whatever key it had.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import msgspec
import orjson

from schemas.label import LabelledEvent, LabelledSegment
from schemas.verdict import BYTES_MAX, Verdict, signed_bytes
from stream.errors import DecodeError

Identity = Literal["verified", "unverified"]


class FindingSeen(msgspec.Struct, frozen=True, kw_only=True, tag="finding"):
    """A revision of a finding."""

    uid: str
    tenant: str
    entity_type: Literal["session", "key", "tenant"]
    entity: str
    session: str | None
    key_hash: str | None
    title: str
    techniques: list[str]
    signals: dict[str, float]
    p: dict[str, float]
    p_combined: float | None
    release: str
    revision: int
    first_seen_ms: int
    last_seen_ms: int
    event_ids: list[str]
    """That it lists: the opening one and the last ones."""
    segments: list[LabelledSegment]
    test: bool
    """Of a canary: no traffic of anybody, and nothing to learn from."""
    at_ms: int
    """When it reached Kafka, as its timestamp has it."""


class EvidenceSeen(msgspec.Struct, frozen=True, kw_only=True, tag="evidence"):
    """The score of an event that belongs to a finding."""

    uid: str
    event: LabelledEvent
    at_ms: int


class VerdictSeen(msgspec.Struct, frozen=True, kw_only=True, tag="verdict"):
    """A verdict that may count: of the schema, and signed where signatures are asked for."""

    verdict: Verdict
    identity: Identity
    at_ms: int

    @property
    def uid(self) -> str:
        """Of the finding."""
        return self.verdict.finding_uid

    @property
    def rank(self) -> tuple[int, bytes, str]:
        """The latest of an analyst is the largest; of two at the same millisecond always the same one."""
        plain = orjson.dumps(msgspec.to_builtins(self.verdict), option=orjson.OPT_SORT_KEYS)
        return self.verdict.time, plain, self.identity


class Forget(msgspec.Struct, frozen=True, kw_only=True, tag="forget"):
    """A row that nothing was heard of since `before_ms` may go."""

    uid: str
    before_ms: int


Input: TypeAlias = FindingSeen | EvidenceSeen | VerdictSeen | Forget
_INPUT: msgspec.json.Decoder[Input] = msgspec.json.Decoder(Input)
_ENCODER = msgspec.json.Encoder()


def encode_input(value: Input) -> bytes:
    """`value` as JSON.

    >>> encode_input(Forget(uid="u", before_ms=7))
    b'{"type":"forget","uid":"u","before_ms":7}'
    """
    return _ENCODER.encode(value)


def decode_input(value: bytes) -> Input:
    """What `encode_input` wrote.

    Raises
    ------
    msgspec.ValidationError
        When it is something else.
    """
    return _INPUT.decode(value)


# -- findings ----------------------------------------------------------------------------------------------------------


class _Metadata(msgspec.Struct):
    tenant_uid: str
    sequence: int
    correlation_uid: str | None = None


class _Named(msgspec.Struct):
    uid: str


class _Attack(msgspec.Struct):
    technique: _Named
    sub_technique: _Named | None = None


class _Info(msgspec.Struct):
    uid: str
    title: str
    first_seen_time: int
    last_seen_time: int
    attacks: list[_Attack] = []
    related_events: list[_Named] = []


class _Observable(msgspec.Struct):
    name: str
    value: str | None = None


class _Excerpt(msgspec.Struct, frozen=True):
    role: str = ""
    excerpt: str = ""
    message_index: int = 0


class _Evidence(msgspec.Struct):
    uid: str = ""
    data: _Excerpt = _Excerpt()


class _Unmapped(msgspec.Struct):
    entity: str
    entity_type: Literal["session", "key", "tenant"]
    release: str
    signals: dict[str, float] = {}
    p: dict[str, float] = {}
    p_combined: float | None = None
    test: bool = False


class _Finding(msgspec.Struct):
    metadata: _Metadata
    finding_info: _Info
    unmapped: _Unmapped
    observables: list[_Observable] = []
    evidences: list[_Evidence] = []


_FINDING = msgspec.json.Decoder(_Finding)


def finding_seen(value: bytes | None, at_ms: int) -> FindingSeen:
    """What the join keeps of a record of the findings topic.

    Raises
    ------
    DecodeError
        When it is not an OCSF Detection Finding as `score` writes them.
    """
    found = _decoded(_FINDING, value, "a finding; see schemas/examples/findings.v1/")
    about, info = found.unmapped, found.finding_info
    keys = [each.value for each in found.observables if each.name == "key_hash" and each.value]
    session = about.entity if about.entity_type == "session" else found.metadata.correlation_uid
    return FindingSeen(
        uid=info.uid,
        tenant=found.metadata.tenant_uid,
        entity_type=about.entity_type,
        entity=about.entity,
        session=session,
        key_hash=keys[0] if keys else about.entity if about.entity_type == "key" else None,
        title=info.title,
        techniques=[(attack.sub_technique or attack.technique).uid for attack in info.attacks],
        signals=about.signals,
        p=about.p,
        p_combined=about.p_combined,
        release=about.release,
        revision=found.metadata.sequence,
        first_seen_ms=info.first_seen_time,
        last_seen_ms=info.last_seen_time,
        event_ids=[event.uid for event in info.related_events],
        segments=[
            LabelledSegment(
                event_id=each.uid, role=each.data.role, text=each.data.excerpt, message_index=each.data.message_index
            )
            for each in found.evidences
            if each.data.excerpt
        ],
        test=about.test,
        at_ms=at_ms,
    )


# -- scores ------------------------------------------------------------------------------------------------------------


class _Score(msgspec.Struct):
    event_id: str
    partition: int
    offset: int
    event_time_ms: int
    session: str
    signals: dict[str, float]
    p: dict[str, float]
    p_combined: float | None
    release: str
    decision: str
    finding_uid: str | None


_SCORE = msgspec.json.Decoder(_Score)
_NO_FINDING = b'"finding_uid":null'


def tells_of_no_finding(value: bytes | None) -> bool:
    """Whether a score is that of an event which belongs to no finding, as nearly every one is, without decoding it.

    >>> tells_of_no_finding(b'{"event_id":"e","finding_uid":null}')
    True
    """
    # A string in it cannot hold unescaped quotes.
    return value is not None and _NO_FINDING in value


def evidence_seen(value: bytes | None, at_ms: int) -> EvidenceSeen | None:
    """What the join keeps of a record of the scores topic; None for an event that belongs to no finding.

    A duplicate is none either: the event that it repeats has been told of.

    Raises
    ------
    DecodeError
        When it is not a score.
    """
    if tells_of_no_finding(value):
        return None
    score = _decoded(_SCORE, value, "a score; see schemas/examples/scores.v1/")
    if score.finding_uid is None or score.decision == "duplicate":
        return None
    event = LabelledEvent(
        event_id=score.event_id,
        partition=score.partition,
        offset=score.offset,
        event_time_ms=score.event_time_ms,
        session=score.session,
        signals=score.signals,
        p=score.p,
        p_combined=score.p_combined,
        release=score.release,
    )
    return EvidenceSeen(uid=score.finding_uid, event=event, at_ms=at_ms)


# -- verdicts ----------------------------------------------------------------------------------------------------------

_VERDICT = msgspec.json.Decoder(Verdict)
AHEAD_MS = 300_000
"""How far a verdict's own time may lie after its record's: clocks differ."""


def verdict_of(value: bytes | None) -> tuple[Verdict, dict[str, Any]]:
    """A verdict, and its record as plain values: a signature covers every field, known here or not.

    Raises
    ------
    DecodeError
        `oversized` when the record is larger than `BYTES_MAX`, `undecodable` when it is no JSON, `too_deep` when nobody
        could sign it for its nesting, `schema` when it is no verdict.

    >>> verdict_of(b"{}")
    Traceback (most recent call last):
        ...
    stream.errors.DecodeError: a record must be a verdict; see schemas/examples/verdicts.v1/; got: Object missing
    required field `finding_uid`
    """
    size, required = len(value or b""), "a verdict; see schemas/examples/verdicts.v1/"
    if size > BYTES_MAX:
        raise DecodeError("oversized", f"a record must be a verdict of at most {BYTES_MAX} bytes; got {size}")
    verdict = _decoded(_VERDICT, value, required)
    # Of fields that are not known here the decoder checks less than this: what JSON has no number or no text for.
    try:
        plain = orjson.loads(value or b"")
    except orjson.JSONDecodeError as error:
        raise DecodeError("undecodable", f"a record must be {required}; it is no JSON: {error}") from None
    try:
        signed_bytes(plain)
    except orjson.JSONEncodeError as error:
        raise DecodeError("too_deep", f"a record must be {required}; it cannot be signed: {error}") from None
    return verdict, plain


def verdict_seen(verdict: Verdict, identity: Identity, at_ms: int) -> VerdictSeen:
    """What the join keeps of a verdict that counts.

    One dated later than it can have been given would win over all that its analyst says afterwards, and its exception
    would last longer than anybody may ask for: its time is that of its record.

    >>> said = Verdict(finding_uid="0" * 32, verdict_id=5, analyst="ada", time=900_000)
    >>> [verdict_seen(said, "unverified", at_ms).verdict.time for at_ms in (599_999, 600_000)]
    [599999, 900000]
    """
    if verdict.time > at_ms + AHEAD_MS:
        verdict = msgspec.structs.replace(verdict, time=at_ms)
    return VerdictSeen(verdict=verdict, identity=identity, at_ms=at_ms)


def _decoded(decoder: msgspec.json.Decoder[Any], value: bytes | None, required: str) -> Any:
    try:
        return decoder.decode(value if value is not None else b"")
    except msgspec.ValidationError as error:
        raise DecodeError("schema", f"a record must be {required}; got: {error}") from None
    except RecursionError:
        raise DecodeError("too_deep", f"a record must be {required}; it nests deeper than can be read") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DecodeError("undecodable", f"a record must be {required}; it is no JSON: {error}") from None
