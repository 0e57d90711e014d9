"""All conversations of a corpus folder, read once, and what each can serve as."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import msgspec

from evaluation.draws import rank
from schemas.corpus import CorpusSession, calls
from stream.errors import UsageError
from stream.training.gather import Tally, sessions_of

BENIGN, ATTACK = "benign", "attack"
_LEFT_OUT = {
    "no_call": "hold no message",
    "no_label": "have no label benign or attack",
    "undecodable": "hold no session",
}
AGAIN = "\x1f"
"""Stands before the number of a session whose name others have too."""
SUFFIXES = (".jsonl.gz", ".jsonl")
_LOOK_ALIKES = ("hardneg", "lookalike", "overrefus", "falsealarm", "falsepositive", "notinject")
"""What collections of harmless requests that look harmful are called, without case and punctuation."""
_OPENING_MIN = 40
"""Characters of a first message that tell one conversation from another; shorter ones greet."""
_NO_LETTER = re.compile(r"[^a-z]+")
_NAMED = re.compile(r"(?<![a-z])(?:xs[^a-z]?test|or[^a-z]?bench)")
"""Two that are called so alone: a tutor's or an editor's benchmark is none."""


@dataclass(frozen=True, eq=False)
class Corpus:
    """The sessions (s) of a folder that make calls; within a tenant, or among those without one, each has its name."""

    sessions: tuple[CorpusSession, ...]
    files: tuple[str, ...]
    """(s,) the file that each came from, without what its name ends in."""
    left_out: dict[str, int]
    """Lines that are no session, and sessions without a call or a label, by what they lack."""

    @cached_property
    def benign(self) -> dict[str, list[CorpusSession]]:
        """What each tenant does, by tenant; look-alikes are not among it."""
        found: dict[str, list[CorpusSession]] = {}
        for session, look_alike in zip(self.sessions, self._look_alike, strict=True):
            if session.label == BENIGN and session.tenant is not None and not look_alike:
                found.setdefault(session.tenant, []).append(session)
        return dict(sorted(found.items()))

    @cached_property
    def look_alikes(self) -> list[CorpusSession]:
        """Harmless requests that look harmful.

        They are known by the name of their file, source or tenant, if one of those says so. Where none does, by their
        shape: all that their tenant has is benign, without a task, and one message that nobody answers, as requests are
        that were collected to be asked. Benign sessions without a tenant are look-alikes too: like foreign attacks,
        they wait to be placed.
        """
        return [session for session, look_alike in zip(self.sessions, self._look_alike, strict=True) if look_alike]

    @cached_property
    def foreign(self) -> list[CorpusSession]:
        """Attacks that no tenant has met, or one of whom nothing else is known."""
        return [s for s in self.sessions if s.label == ATTACK and s.tenant not in self.benign]

    @cached_property
    def placed(self) -> dict[str, list[CorpusSession]]:
        """Attacks within sessions of tenants that have benign ones too, by tenant."""
        found: dict[str, list[CorpusSession]] = {}
        for session in self.sessions:
            if session.label == ATTACK and session.tenant is not None and session.tenant in self.benign:
                found.setdefault(session.tenant, []).append(session)
        return dict(sorted(found.items()))

    def injected(self, tenant: str) -> bool:
        """Whether a tenant has attacks on a task of its own."""
        return any(session.task is not None for session in self.placed.get(tenant, ()))

    @cached_property
    def _look_alike(self) -> list[bool]:
        named = [
            session.label == BENIGN and any(map(_says_look_alike, (file, session.source or "", session.tenant or "")))
            for session, file in zip(self.sessions, self.files, strict=True)
        ]
        by_shape = set() if any(named) else _asked_only(self.sessions)
        return [
            is_named or (session.label == BENIGN and (session.tenant is None or session.tenant in by_shape))
            for session, is_named in zip(self.sessions, named, strict=True)
        ]


def read_corpus(folder: Path) -> Corpus:
    """The corpus in `folder`: every `*.jsonl` and `*.jsonl.gz` in it, by name.

    Raises
    ------
    UsageError
        When it is no folder, a file cannot be read, or there is no session in it.
    """
    if not folder.is_dir():
        raise UsageError(f"--corpus must be a folder of conversations, one a line; {folder} is none.")
    tally = Tally()
    left_out: Counter[str] = Counter()
    sessions: list[CorpusSession] = []
    files: list[str] = []
    for path in sorted(folder.iterdir()):
        suffix = next((suffix for suffix in SUFFIXES if path.name.endswith(suffix)), None)
        if suffix is None or not path.is_file():
            continue
        for session in sessions_of(path, tally):
            reason = _unusable(session)
            if reason:
                left_out[reason] += 1
            else:
                sessions.append(session)
                files.append(path.name.removesuffix(suffix))
    left_out.update(tally.dead_letters)
    if not sessions:
        raise UsageError(
            f"--corpus must hold labelled conversations as *.jsonl or *.jsonl.gz; {folder} holds none"
            f"{f' ({told_of(left_out)})' if left_out else ''}."
        )
    return Corpus(tuple(_with_tasks(_named_once(sessions))), tuple(files), dict(left_out))


def opening_of(session: CorpusSession) -> str | None:
    """A name of what its user says first; None where that is too short to tell anything."""
    opening = next((turn.text for turn in session.turns if turn.role == "user"), "")
    return f"opening {rank(opening):x}" if len(opening) >= _OPENING_MIN else None


def told_of(left_out: Mapping[str, int]) -> str:
    """What a corpus has that cannot be judged, in words.

    >>> told_of({"no_label": 2, "undecodable": 1})
    'of its lines 2 have no label benign or attack, 1 hold no session'
    """
    return f"of its lines {', '.join(f'{count} {_LEFT_OUT[reason]}' for reason, count in sorted(left_out.items()))}"


def _unusable(session: CorpusSession) -> str | None:
    if not calls(session):
        return "no_call"
    return None if session.label in (BENIGN, ATTACK) else "no_label"


def _named_once(sessions: Sequence[CorpusSession]) -> list[CorpusSession]:
    """Of those that share a name, all but the first get another."""
    met: Counter[tuple[str | None, str]] = Counter()
    named: list[CorpusSession] = []
    for session in sessions:
        name = session.tenant, session.session
        again = met[name]
        met[name] += 1
        if again:
            session = msgspec.structs.replace(session, session=f"{session.session}{AGAIN}{again + 1}")
        named.append(session)
    return named


def _with_tasks(sessions: Sequence[CorpusSession]) -> list[CorpusSession]:
    """Sessions whose openings are their tasks, of tenants that tell a conversation with and without an attack.

    Where a corpus names no tasks, a tenant's injected session and its clean twins are known by opening alike.
    """
    openings: dict[str, dict[str, set[str]]] = {BENIGN: {}, ATTACK: {}}
    for session in sessions:
        opening = opening_of(session) if session.task is None and session.tenant is not None else None
        if opening is not None:
            openings[session.label or ""].setdefault(session.tenant or "", set()).add(opening)
    paired = {tenant for tenant, own in openings[ATTACK].items() if own & openings[BENIGN].get(tenant, set())}
    told = [
        session.task is None
        and session.tenant in paired
        and (session.label == BENIGN or opening_of(session) in openings[BENIGN][session.tenant or ""])
        for session in sessions
    ]
    return [
        msgspec.structs.replace(session, task=opening_of(session)) if is_told else session
        for session, is_told in zip(sessions, told, strict=True)
    ]


def _says_look_alike(name: str) -> bool:
    """Whether the name of a file, source or tenant says that it holds look-alikes.

    >>> [_says_look_alike(name) for name in ("Hard-Negatives v2", "or_bench_hard", "tutor-bench")]
    [True, True, False]
    """
    plain = _NO_LETTER.sub("", name.lower())
    return any(word in plain for word in _LOOK_ALIKES) or _NAMED.search(name.lower()) is not None


def _asked_only(sessions: Sequence[CorpusSession]) -> set[str]:
    """Tenants that only ever ask one thing, of whom there must be others."""
    asked: set[str] = set()
    others: set[str] = set()
    for session in sessions:
        if session.tenant is not None:
            alike = session.label == BENIGN and session.task is None and [t.role for t in session.turns] == ["user"]
            (asked if alike else others).add(session.tenant)
    return asked - others if others else set()
