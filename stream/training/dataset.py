"""Captured events, what was found of them and what analysts said -> what teaches, and what is held out for the gate.

Topics carry no tasks: sessions that open with the same words, whatever their numbers and marks, are taken for one task
told again, and are never on both sides.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b, sha256
from math import ceil

import msgspec
import orjson

from schemas.label import Label
from schemas.manifest import InputRange, LabelsUsed
from stream.config import Settings
from stream.record import Record
from stream.training.attack_words import FoundSegment, Surprise, beside, found_segments, ordinary
from stream.training.capture import Captured, Place, Session, SessionFacts, plain, session_of
from stream.training.events import Gathered
from stream.training.labels import OPENING_CHARS, OPENING_MIN, Verdicts

FEW = 3
"""Labelled attack sessions that are wanted on each side."""


@dataclass(frozen=True, slots=True)
class DataSet:
    """What a job learns from and is judged by."""

    training: list[Gathered]
    """Events of sessions that are not known to be attacks; those that were found and nobody judged only calibrate."""
    attacks: list[FoundSegment]
    """Of attack sessions that are not held out."""
    mistaken: list[FoundSegment]
    """What was found of sessions that were then judged benign and are not held out: it passes for an attack."""
    beside: list[FoundSegment]
    """What stood in tools' results beside attacks that are not held out, and speaks like a tool."""
    heard: list[Record]
    """Events of sessions that teach, later than what the champion learned from, in the order of time."""
    held_out: list[Record]
    """Events of the sessions that the gate replays as traffic, in the order of time: the latest, and attacks held out.

    Earlier ones of the same tasks are neither learned from nor replayed: they belong to another time, and what nobody
    found in it is not what is to be judged."""
    labelled: list[Record]
    """Events of all judged sessions, learned from or not, in the order of time."""
    sessions: dict[Session, SessionFacts]
    """Every session of the captured events."""
    labels: LabelsUsed
    counts: dict[str, int]
    """Sessions and labels by what became of them."""


def assemble(
    captured: Captured,
    found: Collection[Place],
    labels: Iterable[Label],
    ranges: Sequence[InputRange],
    settings: Settings,
    *,
    refused: Collection[bytes] = (),
    heard_after_ms: int | None = None,
    surprise: Surprise | None = None,
) -> DataSet:
    """Divide what was captured.

    Held out are the latest `trainer.held_out_share` of sessions by their first event. Those of equal task before them
    are not learned from either. Labelled attacks are divided for themselves, by their task and by the words that their
    findings show.

    Parameters
    ----------
    found
        Of which the scores topic says that they were found, or held back from learning.
    labels
        The latest of each key.
    ranges
        Of the labels topic, for the record.
    refused
        Keys of labels that the audit does not believe.
    heard_after_ms
        The latest event that the champion learned from; None: there is none.
    surprise
        By the champion: of an attack in a tool's result only what does not speak like the tool is learned, and what
        does is the tool's. Without, all that stands about its evidence is the attack's, but for what the tenant's tools
        return in more sessions that are none.
    """
    verdicts = Verdicts(labels, refused)
    suspected = {captured.session_at(place) for place in found if place in captured.of_place}
    facts = {
        name: SessionFacts(
            tenant=name[0],
            session=name[1],
            first_ms=min(captured.time_ms[at] for at in events_of),
            task=_task(captured, events_of),
            judged=verdicts.judged.get(name),
            found=name in suspected or name in verdicts.found,
            family=verdicts.family(name),
            held_out=False,
        )
        for name, events_of in captured.of_session.items()
    }
    share = settings.trainer.held_out_share
    attacks = [fact for fact in facts.values() if fact.judged == "attack"]
    others = [fact for fact in facts.values() if fact.judged != "attack"]
    late, alike = _latest(others, share)
    apart = late | alike | _latest_attacks(attacks, verdicts.words, share)
    facts = {name: replace(fact, held_out=name in apart) for name, fact in facts.items()}

    training = [fact for fact in facts.values() if fact.judged != "attack" and not fact.held_out]
    # A tenant that nothing is learned of would have no row that its adapter and calibration belong to.
    known = {fact.tenant for fact in training if fact.learns}
    taken = {(fact.tenant, fact.session): fact for fact in training if fact.tenant in known}
    gathered = [
        Gathered(
            captured.records[at],
            task=fact.task,
            learns=fact.learns,
            believed=fact.judged == "benign",
        )
        for at, head in enumerate(captured.heads)
        if (fact := taken.get(session_of(head))) is not None
    ]
    counted = verdicts.counted(facts)
    attacking = found_segments("attack", counted, captured, facts, surprise, ordinary(captured, facts))
    return DataSet(
        training=gathered,
        attacks=attacking,
        mistaken=found_segments("benign", counted, captured, facts),
        beside=[] if surprise is None else beside(counted, captured, facts, surprise, attacking),
        heard=_in_order(captured, [fact for fact in taken.values() if fact.learns], heard_after_ms),
        held_out=_in_order(
            captured, [fact for name, fact in facts.items() if fact.held_out and name not in alike - late]
        ),
        labelled=_in_order(captured, [fact for fact in facts.values() if fact.judged is not None]),
        sessions=facts,
        labels=_used(counted, verdicts.seen - len(counted), ranges),
        counts={
            "sessions": len(facts),
            "training": len(taken),
            "calibrate_only": sum(not fact.learns for fact in taken.values()),
            "judged_benign": sum(fact.judged == "benign" for fact in facts.values()),
            "judged_attack": len(attacks),
            "held_out": sum(fact.held_out for fact in facts.values() if fact.judged != "attack"),
            "held_out_attack": sum(fact.held_out for fact in facts.values() if fact.judged == "attack"),
            "unreadable": captured.unreadable,
            "labels": verdicts.seen,
            "labels_counted": len(counted),
            "labels_disputed": verdicts.disputed,
            "labels_refused": verdicts.refused,
        },
    )


# -- captured events ---------------------------------------------------------------------------------------------------


def _in_order(captured: Captured, facts: Iterable[SessionFacts], after_ms: int | None = None) -> list[Record]:
    at = [
        i
        for fact in facts
        for i in captured.of_session[fact.tenant, fact.session]
        if after_ms is None or captured.time_ms[i] > after_ms
    ]
    at.sort(key=lambda i: (captured.time_ms[i], captured.records[i].partition, captured.records[i].offset))
    return [captured.records[i] for i in at]


def _task(captured: Captured, events: Sequence[int]) -> str | None:
    """What the session's user asks first; short as that is, with what follows."""
    said: dict[str, str] = {}
    for at in events:
        for message in captured.heads[at].messages:
            if message.role == "user" and message.digest not in said:
                said[message.digest] = plain(" ".join(part.text or "" for part in message.parts))
                opening = " ".join(text for text in said.values() if text)[:OPENING_CHARS]
                if len(opening) >= OPENING_MIN:
                    return blake2b(opening.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()
    return None


# -- what is held out --------------------------------------------------------------------------------------------------


def _latest(facts: Sequence[SessionFacts], share: float) -> tuple[set[Session], set[Session]]:
    """The latest `share` of sessions, and those of the same tasks.

    A tenant of whose sessions more than half would follow their task, such as one whose agent is always told the same,
    is divided by time alone.
    """
    order = sorted(facts, key=lambda fact: (fact.first_ms, fact.tenant, fact.session))
    late = order[len(order) - ceil(len(order) * share) :]
    tasks = {fact.task for fact in late} - {None}
    own: dict[str, list[SessionFacts]] = {}
    for fact in order:
        own.setdefault(fact.tenant, []).append(fact)
    apart = {(fact.tenant, fact.session) for fact in late}
    alike: set[Session] = set()
    for tenant, mine in own.items():
        followers = {(tenant, fact.session) for fact in mine if fact.task in tasks}
        if 2 * len(followers | {name for name in apart if name[0] == tenant}) <= len(mine):
            alike |= followers
    return apart, alike


def _latest_attacks(
    facts: Sequence[SessionFacts], words: Mapping[Session, Collection[str]], share: float
) -> set[Session]:
    """The latest labelled attack sessions, no task and no shown words on both sides.

    Where words tie all of them together, as those of a campaign are, no task on both sides; none where they have one.
    """
    groups = _alike(facts, words)
    if len(groups) == 1:
        groups = _alike(facts, {})
    groups.sort(key=lambda group: max((fact.first_ms, fact.tenant, fact.session) for fact in group), reverse=True)
    wanted = max(ceil(len(facts) * share), min(FEW, len(facts) // 2))
    # A group of many alike is rather learned than lost to the gate.
    most = min(len(facts) - min(FEW, len(facts) // 2), wanted + wanted // 2)
    apart: set[Session] = set()
    for group in groups:
        if len(apart) >= wanted:
            break
        if len(apart) + len(group) <= most and len(group) < len(facts):
            apart |= {(fact.tenant, fact.session) for fact in group}
    return apart


def _alike(facts: Sequence[SessionFacts], words: Mapping[Session, Collection[str]]) -> list[list[SessionFacts]]:
    """Sessions that share a task, or words that a finding shows, directly or by others."""
    root = list(range(len(facts)))

    def find(at: int) -> int:
        while root[at] != at:
            root[at] = root[root[at]]
            at = root[at]
        return at

    first: dict[str, int] = {}
    for at, fact in enumerate(facts):
        keys = [f"words {text}" for text in words.get((fact.tenant, fact.session), ())]
        if fact.task is not None:
            keys.append(f"task {fact.task}")
        for key in keys:
            root[find(at)] = find(first.setdefault(key, at))
    groups: dict[int, list[SessionFacts]] = {}
    for at, fact in enumerate(facts):
        groups.setdefault(find(at), []).append(fact)
    return list(groups.values())


# -- labels ------------------------------------------------------------------------------------------------------------


def _used(counted: Sequence[Label], left_out: int, ranges: Sequence[InputRange]) -> LabelsUsed:
    digest = sha256()
    for label in counted:
        digest.update(orjson.dumps(msgspec.to_builtins(label), option=orjson.OPT_SORT_KEYS) + b"\n")
    return LabelsUsed(
        ranges=list(ranges),
        labels_sha256=digest.hexdigest(),
        attacks=sum(label.teaches == "attack" for label in counted),
        benign=sum(label.teaches == "benign" for label in counted),
        left_out=left_out,
        findings=sorted({label.finding_uid for label in counted}),
        analysts=sorted({label.analyst for label in counted}),
    )
