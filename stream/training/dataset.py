"""Captured events, what was found of them and what analysts said -> what teaches, and what is held out for the gate.

Topics carry no tasks: sessions that open with the same words, whatever their numbers and marks, are taken for one task
told again, and are never on both sides.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b, sha256
from math import ceil

import msgspec
import numpy as np
import orjson
from numpy.typing import NDArray

from schemas.event_head import EventHead, MessageHead
from schemas.label import Label, LabelledSegment, Teaches, label_key
from schemas.manifest import InputRange, LabelsUsed
from schemas.undecodable import UNDECODABLE
from stream.config import Settings
from stream.record import Record
from stream.steps.content import JUDGED, TOOL, USER, Embeds, segmented
from stream.steps.decode import decode
from stream.training.attacks import AttackTexts
from stream.training.events import Gathered

Session = tuple[str, str]
"""Tenant and name."""
Place = tuple[int, int]
"""Partition and offset on the events topic."""

Surprise = Callable[[Sequence[str]], NDArray[np.floating]]
"""Log-odds (s,) that texts (s) are of no tool, NaN where nobody can say."""

LABELS = "labels"
"""Source of the segments that labels name."""
FEW = 3
"""Labelled attack sessions that are wanted on each side."""
SPEAKS_P = 0.05
"""P-value up to which a signal that reads text has said something of a finding."""
_AT_ONCE = 2000
_OPENING_CHARS = 300
_OPENING_MIN = 24
"""Letters and figures below which what a session opens with says nothing of its task."""
_WHOLE_SEGMENTS = 6
"""A message of so few segments belongs to the attack as a whole; of a longer one only what stands about an excerpt."""
_AROUND = 2
_READERS = frozenset({"novelty", "tool_novelty", "role_surprise", "provenance", "known_attack", "tool_known_attack"})
"""Signals that read text: what volume or sequence alone found has no words to learn."""
_FAMILIES = {
    "AML.T0051": "injection",
    "AML.T0054": "jailbreak",
    "AML.T0057": "exfiltration",
    "AML.T0086": "exfiltration",
    "AML.T0056": "prompt_extraction",
}
"""ATLAS technique -> family, as `models.training.attack_classifier` reads it."""
_ELSE = "abuse"
_ATTACKS_FROM, _TOOLS_BELOW = 0.75, 0.5
"""Of the largest role surprise in a tool's result that holds an attack: from the one on it is the attack's, below the
other the tool's."""
_TOOLS_MOST = 5.0
"""Log-odds from which nothing is the tool's: a louder sentence beside it makes no order harmless."""
_MARKS = re.compile(r"[\W_]+")
_FIGURES = re.compile(r"\d+")


@dataclass(frozen=True, slots=True)
class SessionFacts:
    """What is known of a session of the captured events."""

    tenant: str
    session: str
    first_ms: int
    task: str | None
    """Equal for sessions that open with the same words; None where they say too little."""
    judged: Teaches | None
    """What analysts agree on."""
    found: bool
    """Whether a release in service found something in it, or held something of it back."""
    family: str | None
    """Of an attack, by the techniques that its finding names."""
    held_out: bool


@dataclass(frozen=True, slots=True)
class FoundSegment:
    """Words that a finding points at, and that an analyst has judged."""

    text: str
    families: tuple[str, ...]
    """Of attack, that its techniques stand for."""
    group: str
    """Its session."""


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


@dataclass(frozen=True, slots=True)
class Captured:
    """Readable events (n), and where they are."""

    records: list[Record]
    heads: list[EventHead]
    time_ms: list[int]
    of_session: dict[Session, list[int]]
    of_place: dict[Place, int]
    unreadable: int

    def session_at(self, place: Place) -> Session:
        """The session of the event there."""
        return _session(self.heads[self.of_place[place]])


def capture(events: Sequence[Record], future_ms: int) -> Captured:
    """What the events topic holds, read; `future_ms` is `core.future_ms`."""
    found = Captured([], [], [], {}, {}, 0)
    unreadable = 0
    for low in range(0, len(events), _AT_ONCE):
        batch, dead = decode(events[low : low + _AT_ONCE], future_ms)
        unreadable += len(dead)
        refused = {id(letter.record) for letter in dead}
        readable = [record for record in events[low : low + _AT_ONCE] if id(record) not in refused]
        for record, head, time_ms in zip(readable, batch.heads, batch.event_time_ms.tolist(), strict=True):
            found.of_session.setdefault(_session(head), []).append(len(found.records))
            found.of_place[record.partition, record.offset] = len(found.records)
            found.records.append(record)
            found.heads.append(head)
            found.time_ms.append(time_ms)
    return replace(found, unreadable=unreadable)


def label_texts(captured: Captured, label: Label) -> list[str]:
    """Segments that a label's evidence points at: of the captured events' messages, else the excerpts themselves."""
    return list(dict.fromkeys(text for text, _ in _texts(label, captured)))


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
    verdicts = _Verdicts(labels, refused)
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
    known = {fact.tenant for fact in training if _learns(fact)}
    taken = {(fact.tenant, fact.session): fact for fact in training if fact.tenant in known}
    gathered = [
        Gathered(
            captured.records[at],
            task=fact.task,
            learns=_learns(fact),
            believed=fact.judged == "benign",
        )
        for at, head in enumerate(captured.heads)
        if (fact := taken.get(_session(head))) is not None
    ]
    counted = verdicts.counted(facts)
    attacking = _segments("attack", counted, captured, facts, surprise, _ordinary(captured, facts))
    return DataSet(
        training=gathered,
        attacks=attacking,
        mistaken=_segments("benign", counted, captured, facts),
        beside=[] if surprise is None else _beside(counted, captured, facts, surprise, attacking),
        heard=_in_order(captured, [fact for fact in taken.values() if _learns(fact)], heard_after_ms),
        held_out=_in_order(
            captured, [fact for name, fact in facts.items() if fact.held_out and name not in alike - late]
        ),
        labelled=_in_order(captured, [fact for fact in facts.values() if fact.judged is not None]),
        sessions=facts,
        labels=_used(counted, verdicts.seen - len(counted), ranges),
        counts={
            "sessions": len(facts),
            "training": len(taken),
            "calibrate_only": sum(not _learns(fact) for fact in taken.values()),
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


def attack_texts(segments: Sequence[FoundSegment], embedder: Embeds) -> AttackTexts | None:
    """What the segments of labelled attacks teach a classifier; None where there are none."""
    # The classes belong to the fit, which takes a second to import.
    from models.training.attack_classifier import attack_classes

    if not segments:
        return None
    texts = [segment.text for segment in segments]
    classes = [
        np.logical_or.reduce([attack_classes(family, segment.text) for family in segment.families])
        for segment in segments
    ]
    return AttackTexts(
        embedder.encode(texts),
        np.array(classes, np.bool_),
        [LABELS] * len(texts),
        [segment.group for segment in segments],
    )


def latest_labels(records: Iterable[Record]) -> tuple[list[Label], int]:
    """The latest label of each key, sorted by key, and how many records could not be read.

    Parameters
    ----------
    records
        Of the labels topic, in the order of their offsets within each partition.
    """
    latest: dict[bytes, Label] = {}
    unreadable = 0
    for record in records:
        if record.value is None:
            latest.pop(record.key or b"", None)
            continue
        try:
            label = msgspec.json.decode(record.value, type=Label)
        except UNDECODABLE:
            unreadable += 1
            continue
        latest[label_key(label.finding_uid, label.analyst)] = label
    return [latest[key] for key in sorted(latest)], unreadable


# -- captured events ---------------------------------------------------------------------------------------------------


def _session(head: EventHead) -> Session:
    return head.tenant, head.session


def _in_order(captured: Captured, facts: Iterable[SessionFacts], after_ms: int | None = None) -> list[Record]:
    at = [
        i
        for fact in facts
        for i in captured.of_session[fact.tenant, fact.session]
        if after_ms is None or captured.time_ms[i] > after_ms
    ]
    at.sort(key=lambda i: (captured.time_ms[i], captured.records[i].partition, captured.records[i].offset))
    return [captured.records[i] for i in at]


def _learns(fact: SessionFacts) -> bool:
    """What was found and nobody judged is not believed to be benign."""
    return fact.judged == "benign" or not fact.found


def _task(captured: Captured, events: Sequence[int]) -> str | None:
    """What the session's user asks first; short as that is, with what follows."""
    said: dict[str, str] = {}
    for at in events:
        for message in captured.heads[at].messages:
            if message.role == "user" and message.digest not in said:
                said[message.digest] = _plain(" ".join(part.text or "" for part in message.parts))
                opening = " ".join(text for text in said.values() if text)[:_OPENING_CHARS]
                if len(opening) >= _OPENING_MIN:
                    return blake2b(opening.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()
    return None


def _plain(text: str) -> str:
    """Text without what tells near-equal ones apart.

    >>> _plain("Book room 12, for ANN!")
    'book room 0 for ann'
    """
    return _FIGURES.sub("0", _MARKS.sub(" ", text.casefold())).strip()


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


class _Verdicts:
    """What labels say of sessions."""

    def __init__(self, labels: Iterable[Label], refused: Collection[bytes]) -> None:
        given = list(labels)
        self.seen = len(given)
        believed = [label for label in given if label_key(label.finding_uid, label.analyst) not in refused]
        self.refused = len(given) - len(believed)
        said: dict[str, set[Teaches]] = {}
        for label in believed:
            if label.teaches is not None:
                said.setdefault(label.finding_uid, set()).add(label.teaches)
        # A label's own mark is as of when it was made: whoever contradicted it later did not change its record.
        teaching = [label for label in believed if label.teaches is not None]
        # Where the audit refuses one of two who disagree, the other's label stands, whatever it was marked.
        settled = {label.finding_uid for label in given if label_key(label.finding_uid, label.analyst) in refused}
        agreed = [
            label
            for label in teaching
            if len(said[label.finding_uid]) == 1 and not (label.disputed and label.finding_uid not in settled)
        ]
        self.disputed = len(teaching) - len(agreed)
        self._agreed = [label for label in agreed if _sessions(label)]
        self.judged: dict[Session, Teaches] = {}
        self.found: set[Session] = set()
        self.words: dict[Session, set[str]] = {}
        self._families: dict[Session, str] = {}
        for label in given:
            self.found |= _sessions(label)
        for label in self._agreed:
            for session in sorted(_sessions(label)):
                # Two findings of one session may be judged apart: what holds an attack is no benign session.
                if label.teaches == "attack" or session not in self.judged:
                    self.judged[session] = "attack" if label.teaches == "attack" else "benign"
                if label.teaches == "attack":
                    self.words.setdefault(session, set()).update(_shown(label))
                    self._families.setdefault(session, _families(label.techniques)[0])

    def family(self, session: Session) -> str | None:
        return self._families.get(session)

    def counted(self, facts: Mapping[Session, SessionFacts]) -> list[Label]:
        """Labels that teach or judge: of sessions that are here, or that show the words of an attack."""
        return [
            label
            for label in self._agreed
            if any(name in facts for name in _sessions(label)) or (label.teaches == "attack" and label.segments)
        ]


def _sessions(label: Label) -> set[Session]:
    """Sessions that a label is about; none where its finding is about a tenant's drift."""
    if label.entity_type == "tenant":
        return set()
    names = {event.session for event in label.events}
    if label.session is not None:
        names.add(label.session)
    if label.entity_type == "session":
        names.add(label.entity)
    return {(label.tenant, name) for name in names}


def _shown(label: Label) -> set[str]:
    """Words that the finding shows, long enough to be its own."""
    plain = (_plain(segment.text)[:_OPENING_CHARS] for segment in label.segments)
    return {text for text in plain if len(text) >= _OPENING_MIN}


def _families(techniques: Sequence[str]) -> tuple[str, ...]:
    """Families of attack that techniques stand for, the first named first.

    >>> _families(["AML.T0051.001", "AML.T0086", "AML.T0053"]), _families(["AML.T0034"])
    (('injection', 'exfiltration'), ('abuse',))
    """
    found = dict.fromkeys(_FAMILIES.get(".".join(name.split(".")[:2])) for name in techniques)
    return tuple(family for family in found if family is not None) or (_ELSE,)


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


# -- words of attacks --------------------------------------------------------------------------------------------------


def _segments(
    teaches: Teaches,
    counted: Sequence[Label],
    captured: Captured,
    facts: Mapping[Session, SessionFacts],
    surprise: Surprise | None = None,
    ordinary: Collection[tuple[str, str]] = (),
) -> list[FoundSegment]:
    """Words of findings whose sessions are not held out, each once a session, without what is `ordinary`."""
    segments: dict[tuple[str, str], FoundSegment] = {}
    for label in counted:
        if label.teaches != teaches or not _speaks(label):
            continue
        sessions = sorted(_sessions(label))
        known = [facts[name] for name in sessions if name in facts]
        if any(fact.held_out or (teaches == "benign" and fact.judged == "attack") for fact in known):
            continue
        families = _families(label.techniques)
        group = orjson.dumps(sessions[0]).decode()
        texts = {
            text: role for text, role in _texts(label, captured) if role != TOOL or (label.tenant, text) not in ordinary
        }
        for text in texts if surprise is None or not texts else _unlike_tools(texts, surprise):
            segments.setdefault((group, text), FoundSegment(text, families, group))
    return list(segments.values())


def _ordinary(captured: Captured, facts: Mapping[Session, SessionFacts]) -> set[tuple[str, str]]:
    """Tenants and what their tools return in more sessions that teach what is normal than in judged attacks.

    A letter that lies in a mailbox is returned again and again, beside attacks and without; it is not their words. What
    was found and nobody has judged counts for neither: one session of a campaign may be all that an analyst looked at.
    """
    calm: Counter[tuple[str, str]] = Counter()
    attacked: Counter[tuple[str, str]] = Counter()
    read: dict[str, list[str]] = {}
    for name, fact in facts.items():
        messages = {
            message.digest: message for at in captured.of_session[name] for message in captured.heads[at].messages
        }
        for digest, message in messages.items():
            if digest not in read:
                read[digest] = [text for text, role in _judged_texts(message) if role == TOOL]
        texts = {(fact.tenant, text) for digest in messages for text in read[digest]}
        if fact.judged == "attack":
            attacked.update(texts)
        elif _learns(fact):
            calm.update(texts)
    return {name for name, count in calm.items() if count > attacked[name]}


def _beside(
    counted: Sequence[Label],
    captured: Captured,
    facts: Mapping[Session, SessionFacts],
    surprise: Surprise,
    attacks: Sequence[FoundSegment],
) -> list[FoundSegment]:
    """What tools said, in the messages that attacks' findings show, that speaks like a tool beside the attack.

    Sessions that hold an attack teach nothing benign: what a tool says nowhere else would be the attack's. Words that
    are the attack's in as many sessions stay the attack's.
    """
    found: dict[tuple[str, str], FoundSegment] = {}
    for label in counted:
        if label.teaches != "attack" or not _speaks(label):
            continue
        if any(facts[name].held_out for name in _sessions(label) if name in facts):
            continue
        group = orjson.dumps(min(_sessions(label))).decode()
        texts = list(dict.fromkeys(text for text, role in _shown_whole(label, captured) if role == TOOL))
        odds = surprise(texts) if texts else np.zeros(0)
        least = min(float(odds.max(initial=0.0)) * _TOOLS_BELOW, _TOOLS_MOST)
        if least > 0:
            for text, height in zip(texts, odds.tolist(), strict=True):
                if height < least:
                    found.setdefault((group, text), FoundSegment(text, (), group))
    theirs = Counter(segment.text for segment in attacks)
    own = Counter(text for _, text in found)
    return [segment for segment in found.values() if own[segment.text] > theirs[segment.text]]


def _shown_whole(label: Label, captured: Captured) -> Iterator[tuple[str, int]]:
    """All of the captured messages that a label shows parts of."""
    shown = {(segment.event_id, segment.message_index) for segment in label.segments}
    for event in label.events:
        at = captured.of_place.get((event.partition, event.offset))
        if at is not None:
            for number, message in enumerate(captured.heads[at].messages):
                if (event.event_id, number) in shown:
                    yield from _judged_texts(message)


def _unlike_tools(texts: Mapping[str, int], surprise: Surprise) -> list[str]:
    """What of a tool's result speaks almost as little like one as what does so least, and all that users say.

    An attack in a tool's result stands among what the tool returned anyway, and of that nothing is to be learned.
    """
    odds = surprise(list(texts))
    tool = np.array([role == TOOL for role in texts.values()], np.bool_)
    if not tool.any() or np.isnan(odds[tool]).any():
        return list(texts)
    least = max(float(odds[tool].max()) * _ATTACKS_FROM, 0.0)
    return [text for text, mine, height in zip(texts, tool, odds, strict=True) if not mine or height >= least]


def _speaks(label: Label) -> bool:
    """Whether what was found has to do with words."""
    return not label.p or any(p <= SPEAKS_P for name, p in label.p.items() if name in _READERS)


def _texts(label: Label, captured: Captured) -> Iterator[tuple[str, int]]:
    """Texts and who said them, as the content step numbers roles."""
    places = captured.of_place
    heads = {
        event.event_id: captured.heads[places[event.partition, event.offset]]
        for event in label.events
        if (event.partition, event.offset) in places
    }
    if label.segments:
        for shown in label.segments:
            yield from _about(shown, heads.get(shown.event_id))
        return
    # Labels without excerpts refer to events: what was new in them is what was said after the model's last turn.
    for head in heads.values():
        for message in _new_messages(head):
            yield from _judged_texts(message)


def _about(shown: LabelledSegment, head: EventHead | None) -> Iterator[tuple[str, int]]:
    """The message that an excerpt is of, or the excerpt, where users and tools said it."""
    messages = (*head.messages, *head.output) if head is not None else ()
    if 0 <= shown.message_index < len(messages):
        texts = list(_judged_texts(messages[shown.message_index]))
        if len(texts) <= _WHOLE_SEGMENTS:
            yield from texts
            return
        words = _plain(shown.text)
        at = [i for i, text in enumerate(texts) if words and _plain(text[0]).startswith(words[:80])]
        if at:
            yield from texts[max(at[0] - _AROUND, 0) : at[0] + _AROUND + 1]
            return
    if shown.role in ("user", "tool") and shown.text.strip():
        yield shown.text, TOOL if shown.role == "tool" else USER


def _judged_texts(message: MessageHead) -> Iterator[tuple[str, int]]:
    content = segmented(message)
    for text, role in zip(content.texts, content.roles.tolist(), strict=True):
        if role in JUDGED:
            yield text, role


def _new_messages(head: EventHead) -> list[MessageHead]:
    last = max((at for at, message in enumerate(head.messages) if message.role == "assistant"), default=-1)
    return head.messages[last + 1 :]
