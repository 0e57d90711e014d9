"""Sessions of one release, judged by the core itself: what a challenger and a champion are compared by.

Two passes, the same for every release. Held-out traffic is replayed as it came, learning on: both releases go on from
their own warm rows as a scorer would. Labelled history is replayed with learning off: each session is met as if it were
the first after those that the release knows, so that an attack told three times is three attacks, and not one and two
memories of it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import orjson
from numpy.typing import NDArray

from schemas.event_head import EventHead, MessageHead
from schemas.label import Label, label_key
from stream.config import Settings
from stream.core import Core
from stream.record import OutRecord, Record
from stream.release import Release
from stream.steps.content import Embeds
from stream.steps.decide import Decider
from stream.steps.decode import decode
from stream.training.language import language_of
from stream.training.passes import run

TruthLabel = Literal["attack", "benign"]
SessionName = tuple[str, str]
"""Tenant and session."""
FOUND = ("finding", "suppressed", "over_budget")
"""Decisions about events at or beyond the operating point of a tenant that is past its grace."""
UNKNOWN = "unknown"
_AT_ONCE = 2000
_LENGTHS = ((1_000, "under 1,000 characters"), (4_000, "1,000 to 4,000"), (16_000, "4,000 to 16,000"))
_LONGEST = "over 16,000"
_LANGUAGE_CHARS = 4_000


@dataclass(frozen=True, slots=True)
class Truth:
    """What is known of a session from elsewhere."""

    label: TruthLabel | None = None
    """None where nobody has judged it: ordinary traffic, taken for benign."""
    family: str = ""
    """Of an attack: its technique, or the corpus's name for it."""
    earlier: bool = False
    """Its finding had been judged when the champion or one before it was made, which knew it."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """What both releases see."""

    held_out: Sequence[Record]
    """Events of the events topic in the order of time, none of them trained on."""
    history: Sequence[Record]
    """Events of labelled sessions, in the order of time; those of `held_out` need not be repeated."""
    truth: Mapping[SessionName, Truth]
    tasks: Mapping[SessionName, str | None] = field(default_factory=dict)
    """Equal for sessions that are one task told again; of the others nothing is known."""


@dataclass(frozen=True, slots=True)
class Judged:
    """Sessions (k) as one release judges them: those of the held-out traffic first, each part by tenant and name."""

    release: str
    session_fpr: float
    """The operating point, as a share of sessions."""
    tenant: list[str]
    session: list[str]
    held_out: NDArray[np.bool_]
    label: list[TruthLabel | None]
    earlier: NDArray[np.bool_]
    flagged: NDArray[np.bool_]
    """Whether an event of it is at or beyond the operating point, after its tenant's grace."""
    least_p: NDArray[np.float64]
    """Smallest combined p-value of its events; 1 where no event has one."""
    decision: list[str]
    """Of the first flagged event, else of the strangest one."""
    first_flagged: NDArray[np.int64]
    """Number of the first flagged event in its session, from 0; -1 where there is none."""
    events: NDArray[np.int64]
    """How many of its events were scored, duplicates aside."""
    signal: list[str]
    """The signal with the least p-value at the strangest event; empty where there is none."""
    slices: Mapping[str, list[str]] = field(default_factory=dict)
    """(k,) values of each of `tenant, family, language, length, model`; a family is empty for what is no attack."""
    task: list[str] = field(default_factory=list)
    """(k,) equal for sessions of one task; empty: each is its own."""

    def __len__(self) -> int:
        return len(self.session)

    @property
    def attack(self) -> NDArray[np.bool_]:
        """Sessions (k) labelled as attacks."""
        return np.array([label == "attack" for label in self.label], np.bool_)

    @property
    def benign(self) -> NDArray[np.bool_]:
        """Sessions (k) of the held-out traffic that are no labelled attack.

        What nobody has judged counts as benign: attacks that hide there make both releases look worse than they are,
        and by the same sessions. Benign sessions of the history are left out: they were labelled because the champion
        flagged them, and say nothing of how often it does.
        """
        return self.held_out & ~self.attack


@dataclass(slots=True)
class _Session:
    """What is gathered of a session while its events go by."""

    decision: str = "none"
    least_p: float = 1.0
    first_flagged: int = -1
    events: int = 0
    signal: str = ""


@dataclass(slots=True)
class _Said:
    """Of a session's events, whoever scores them."""

    characters: int = 0
    sample: str = ""
    model: str = ""


def truths(
    labels: Iterable[Label], kept: frozenset[bytes] | set[bytes], learned: Collection[str] = ()
) -> dict[SessionName, Truth]:
    """What labels say of the sessions that they are about; of a session of two opinions nothing is known.

    Parameters
    ----------
    kept
        Keys of labels that count: what the audit has left.
    learned
        Uids of findings that the champion and those before it were made with: sessions that those are about are
        `earlier`. No time says so: releases are dated by their latest event, verdicts by the clock, which may be days
        apart.
    """
    said: dict[SessionName, list[Label]] = {}
    for label in labels:
        # What is found about a whole tenant is drift, and says nothing of one of its sessions.
        if (
            label.teaches is None
            or label.entity_type == "tenant"
            or label_key(label.finding_uid, label.analyst) not in kept
        ):
            continue
        for session in {event.session for event in label.events} | ({label.session} if label.session else set()):
            said.setdefault((label.tenant, session), []).append(label)
    found: dict[SessionName, Truth] = {}
    for name, own in sorted(said.items()):
        taught = {label.teaches for label in own}
        if len(taught) > 1:
            continue
        first = min(own, key=lambda label: (label.verdict_time, label.finding_uid, label.analyst))
        earlier = any(label.finding_uid in learned for label in own)
        family = first.techniques[0] if first.techniques else UNKNOWN
        attack = first.teaches == "attack"
        found[name] = Truth(first.teaches, family if attack else "", earlier)
    return found


def judge(
    traffic: Traffic,
    release: Release,
    settings: Settings,
    embedder: Embeds,
    *,
    heard: Sequence[Record] = (),
) -> Judged:
    """Replay `traffic` with a release, and say of each session what the release makes of it.

    Parameters
    ----------
    settings
        Those in service: exceptions and the operating point count as they do there.
    heard
        Events that came after those that the release's warm rows know and before the held-out traffic: a champion has
        heard them in service, so that its tenants' memories are no older than the challenger's. Not judged.

    Raises
    ------
    StateError
        When the release and the settings do not fit.
    """
    held_out = _replayed(Core(settings, release, embedder), traffic.held_out, heard)
    history = _replayed(Core(settings, release, embedder, learning=False), traffic.history)
    said = _said(traffic, settings)
    # A held-out session is judged where it was held out, though it is part of the history too.
    names = [(name, True) for name in sorted(held_out)]
    names += [(name, False) for name in sorted(history) if name not in held_out]
    rows = [held_out[name] if out else history[name] for name, out in names]
    truth = [traffic.truth.get(name, Truth()) for name, _ in names]
    attack = [each.label == "attack" for each in truth]
    return Judged(
        release=release.name,
        session_fpr=Decider(settings, release.sessions_per_day).session_fpr,
        tenant=[tenant for (tenant, _), _ in names],
        session=[session for (_, session), _ in names],
        held_out=np.array([out for _, out in names], np.bool_),
        label=[each.label for each in truth],
        earlier=np.array([each.earlier for each in truth], np.bool_),
        flagged=np.array([row.first_flagged >= 0 for row in rows], np.bool_),
        least_p=np.array([row.least_p for row in rows], np.float64),
        decision=[row.decision for row in rows],
        first_flagged=np.array([row.first_flagged for row in rows], np.int64),
        events=np.array([row.events for row in rows], np.int64),
        signal=[row.signal for row in rows],
        slices={
            "tenant": [tenant for (tenant, _), _ in names],
            "family": [
                (each.family or UNKNOWN) if is_attack else "" for each, is_attack in zip(truth, attack, strict=True)
            ],
            "language": [language_of(said[name].sample) for name, _ in names],
            "length": [_length(said[name].characters) for name, _ in names],
            "model": [said[name].model or UNKNOWN for name, _ in names],
        },
        task=[traffic.tasks.get(name) or "\x1f".join(name) for name, _ in names],
    )


def _replayed(core: Core, records: Sequence[Record], heard: Sequence[Record] = ()) -> dict[SessionName, _Session]:
    run(core, heard)
    sessions: dict[SessionName, _Session] = {}
    for score in run(core, records):
        _take(sessions, score)
    return sessions


def _take(sessions: dict[SessionName, _Session], score: OutRecord) -> None:
    said = orjson.loads(score.value)
    if said["decision"] == "duplicate":
        return
    own = sessions.setdefault((said["tenant"], said["session"]), _Session())
    p = said["p_combined"]
    if p is not None and p < own.least_p:
        own.least_p = p
        own.signal = min(said["p"], key=lambda kind: (said["p"][kind], kind), default="")
        if own.first_flagged < 0:
            own.decision = said["decision"]
    if said["decision"] in FOUND and own.first_flagged < 0:
        own.first_flagged, own.decision = own.events, said["decision"]
    own.events += 1


def _said(traffic: Traffic, settings: Settings) -> dict[SessionName, _Said]:
    """What slices are made of: one reading, for both parts."""
    found: dict[SessionName, _Said] = {}
    for records in (traffic.held_out, traffic.history):
        for low in range(0, len(records), _AT_ONCE):
            batch, _ = decode(records[low : low + _AT_ONCE], settings.core.future_ms)
            for head in batch.heads:
                _hear(found.setdefault((head.tenant, head.session), _Said()), head)
    return found


def _hear(said: _Said, head: EventHead) -> None:
    # A call carries the history so far: the longest says how long the session is.
    said.characters = max(said.characters, sum(_characters(message) for message in (*head.messages, *head.output)))
    if not said.model:
        said.model = head.model_served or head.model_requested or ""
    if not said.sample:
        said.sample = "\n".join(
            part.text or part.response or ""
            for message in head.messages
            if message.role in ("user", "tool")
            for part in message.parts
        )[:_LANGUAGE_CHARS]


def _characters(message: MessageHead) -> int:
    return sum(len(part.text or part.response or "") + len(part.arguments or "") for part in message.parts)


def _length(characters: int) -> str:
    """The bucket of a session's length.

    >>> _length(999), _length(40_000)
    ('under 1,000 characters', 'over 16,000')
    """
    return next((name for end, name in _LENGTHS if characters < end), _LONGEST)
