"""Who calls in a session: one of its tenant's keys, now and then from a place where the key is not used as a rule."""

from __future__ import annotations

import msgspec

from schemas.corpus import CorpusSession
from schemas.corpus_timeline import unit

_KEYS_MAX = 3
_ROAMING = 0.015
"""Sessions from another network; every third of them, and half as many others, with another user agent."""
_PLACES = 8
"""That a tenant roams to."""


def keyed(session: CorpusSession, seed: int, *, roaming: bool = False) -> CorpusSession:
    """The session with one of its tenant's keys, if it has none, of which the first is used most.

    Where `roaming`, a few come from elsewhere: if no benign session ever did, whoever does would be a thief.
    """
    keys = 1 + int(_KEYS_MAX * unit(seed, "keys", session.tenant))
    key = session.key or f"k{1 + int(keys * unit(seed, 'key', session.tenant, session.session) ** 2)}"
    drawn = unit(seed, "place", session.tenant, session.session) / _ROAMING if roaming else 2.0
    place = f"place {int(_PLACES * unit(seed, 'which place', session.tenant, session.session))}"
    return msgspec.structs.replace(
        session,
        key=key,
        network=place if drawn < 1 else None,
        agent=place if 2 / 3 <= drawn < 3 / 2 else None,
    )
