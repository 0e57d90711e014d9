"""Analysts' labels -> what they say of sessions, where they agree."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import msgspec

from schemas.label import Label, Teaches, label_key
from schemas.undecodable import UNDECODABLE
from stream.record import Record
from stream.training.capture import Session, SessionFacts, plain

OPENING_CHARS = 300
OPENING_MIN = 24
"""Letters and figures below which what a session opens with, or a finding shows, is nothing of its own."""
_FAMILIES = {
    "AML.T0051": "injection",
    "AML.T0054": "jailbreak",
    "AML.T0057": "exfiltration",
    "AML.T0086": "exfiltration",
    "AML.T0056": "prompt_extraction",
}
"""ATLAS technique -> family, as `models.training.attack_classifier` reads it."""
_ELSE = "abuse"


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


class Verdicts:
    """What labels say of sessions.

    Parameters
    ----------
    labels
        The latest of each key.
    refused
        Keys of labels that the audit does not believe.
    """

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
        self._agreed = [label for label in agreed if sessions_of(label)]
        self.judged: dict[Session, Teaches] = {}
        self.found: set[Session] = set()
        self.words: dict[Session, set[str]] = {}
        self._families: dict[Session, str] = {}
        for label in given:
            self.found |= sessions_of(label)
        for label in self._agreed:
            for session in sorted(sessions_of(label)):
                # Two findings of one session may be judged apart: what holds an attack is no benign session.
                if label.teaches == "attack" or session not in self.judged:
                    self.judged[session] = "attack" if label.teaches == "attack" else "benign"
                if label.teaches == "attack":
                    self.words.setdefault(session, set()).update(_shown(label))
                    self._families.setdefault(session, families_of(label.techniques)[0])

    def family(self, session: Session) -> str | None:
        """Of an attack, by the techniques that its finding names."""
        return self._families.get(session)

    def counted(self, facts: Mapping[Session, SessionFacts]) -> list[Label]:
        """Labels that teach or judge: of sessions that are here, or that show the words of an attack."""
        return [
            label
            for label in self._agreed
            if any(name in facts for name in sessions_of(label)) or (label.teaches == "attack" and label.segments)
        ]


def sessions_of(label: Label) -> set[Session]:
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
    texts = (plain(segment.text)[:OPENING_CHARS] for segment in label.segments)
    return {text for text in texts if len(text) >= OPENING_MIN}


def families_of(techniques: Sequence[str]) -> tuple[str, ...]:
    """Families of attack that techniques stand for, the first named first.

    >>> families_of(["AML.T0051.001", "AML.T0086", "AML.T0053"]), families_of(["AML.T0034"])
    (('injection', 'exfiltration'), ('abuse',))
    """
    found = dict.fromkeys(_FAMILIES.get(".".join(name.split(".")[:2])) for name in techniques)
    return tuple(family for family in found if family is not None) or (_ELSE,)
