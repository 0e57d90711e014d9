"""Harmless text that learning has not seen: what stands in an attack's place beside it."""

from __future__ import annotations

import re
from functools import cached_property

from evaluation.draws import drawn
from evaluation.split import Split, base_of
from schemas.corpus import CorpusSession

_TEXT_MIN = 20
"""Characters of a message that says anything."""
_SENTENCE = re.compile(r"[.!?](?=\s)|[。！？]|(?=\n)")
_NEAR = 0.75
_SESSIONS_MAX = 12
"""Joined until they are as long as the attack."""


class Harmless:
    """Messages of sessions that no system has learned.

    Parameters
    ----------
    split
        What is foreign to a tenant comes from tenants that share neither source nor conversation with it, as far as
        there are such.
    """

    def __init__(self, split: Split) -> None:
        self._unlearned = [session for own in split.unseen.values() for session in own]
        self._tested = [session for own in split.test.values() for session in own]
        self._bases: dict[str | None, set[str]] = {}
        self._sources: dict[str | None, set[str | None]] = {}
        for session in (*self._unlearned, *self._tested):
            self._bases.setdefault(session.tenant, set()).add(base_of(session))
            self._sources.setdefault(session.tenant, set()).add(session.source)
        self._pools: dict[tuple[str, str | None, bool], list[CorpusSession]] = {}
        self.of_learned = 0
        """Texts and sessions of tenants that are learned from, which were given for want of others."""

    def unseen(self, role: str, chars: int, host: CorpusSession, *names: object) -> str:
        """Text about `chars` long, of a tenant that is not learned at all; of any that is foreign where none has it."""
        return _said(self._unlearned_first(role, host), role, chars, *names)

    def foreign(self, role: str, chars: int, host: CorpusSession, *names: object) -> str:
        """Text about `chars` long of a tenant that is foreign to that of `host`; empty where there is none."""
        return _said(self._pool(role, host, False), role, chars, *names)

    def session(self, host: CorpusSession, *names: object) -> CorpusSession | None:
        """A whole session of a tenant that is not learned at all, else of one that is foreign to that of `host`."""
        pool = self._unlearned_first("user", host)
        return drawn("harmless session", *names).choice(pool) if pool else None

    def _unlearned_first(self, role: str, host: CorpusSession) -> list[CorpusSession]:
        pool = self._pool(role, host, True)
        if not pool:
            pool = self._pool(role, host, False)
            self.of_learned += bool(pool)
        return pool

    def _pool(self, role: str, host: CorpusSession, unlearned: bool) -> list[CorpusSession]:
        key = role, host.tenant, unlearned
        if key not in self._pools:
            saying = [s for s in (self._unlearned if unlearned else self._all) if any(_messages(s, role))]
            others = [session for session in saying if session.tenant != host.tenant]
            self._pools[key] = [session for session in others if not self._kin(session.tenant, host)] or others
        return self._pools[key]

    @cached_property
    def _all(self) -> list[CorpusSession]:
        return [*self._unlearned, *self._tested]

    def _kin(self, tenant: str | None, host: CorpusSession) -> bool:
        if host.source is not None and host.source in self._sources[tenant]:
            return True
        return not self._bases[tenant].isdisjoint(self._bases.get(host.tenant, ()))


def shortened(text: str, chars: int) -> str:
    """At most `chars` of `text`: up to the last end of a sentence if that is near, else between words if it has any.

    >>> shortened("one two three", 9), shortened("你好世界", 2), shortened("It rains. So we stay.", 11)
    ('one two', '你好', 'It rains.')
    """
    if len(text) <= chars:
        return text
    cut = text[:chars]
    whole = next((end.end() for end in reversed(list(_SENTENCE.finditer(text, 0, chars + 1)))), 0)
    if whole >= _NEAR * chars:
        return text[:whole]
    return cut if text[chars].isspace() or len(cut.split()) < 2 else cut.rsplit(None, 1)[0]


def _said(pool: list[CorpusSession], role: str, chars: int, *names: object) -> str:
    """Messages of drawn sessions of one tenant, joined until they are as long as wanted, and cut."""
    if not pool:
        return ""
    dice = drawn("harmless", *names)
    first = dice.choice(pool)
    own = [session for session in pool if session.tenant == first.tenant]
    texts: list[str] = []
    for session in [first, *dice.sample(own, min(_SESSIONS_MAX, len(own)))]:
        texts += dict.fromkeys(_messages(session, role))
        if sum(map(len, texts)) >= chars:
            break
    whole = [text for text in texts if len(text) >= chars]
    # One message of the right length reads better than pieces of several.
    return shortened(min(whole, key=len) if whole else "\n".join(texts), chars)


def _messages(session: CorpusSession, role: str) -> list[str]:
    return [turn.text for turn in session.turns if turn.role == role and len(turn.text) >= _TEXT_MIN]
