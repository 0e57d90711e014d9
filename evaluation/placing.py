"""Where a session stands: whose it is, what it is called, and when it is held."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile
from typing import TypeVar

import msgspec

from evaluation.draws import drawn, rank
from evaluation.trial import Probe
from schemas.corpus import CorpusSession
from schemas.corpus_records import hex_of
from schemas.corpus_timeline import UNDATED_START_MS

LEARN_DAYS = 10
"""Over which each tenant's learned sessions are spread."""
_DAY_MS = 86_400_000
BEGIN_MS = UNDATED_START_MS + LEARN_DAYS * _DAY_MS
"""From when on probes are held."""
PROBE_MS = 50 * 60_000
"""From one probe of a tenant to the next: its keys' calls are counted by ten minutes, so that two never share a window,
and no hour of the day has more of them than another."""
_JITTER = 0.5
_Session = TypeVar("_Session", CorpusSession, Probe)


def named(session: CorpusSession, *kind: object) -> CorpusSession:
    """`session` under a name that says nothing, and is another for each `kind` of what was made of it."""
    name = "s-" + hex_of("evaluation", session.source, session.tenant, session.session, *kind, size=8)
    return msgspec.structs.replace(session, session=name)


def placed_on(session: CorpusSession, host: CorpusSession, *kind: object) -> CorpusSession:
    """`session` as one that the tenant of `host` could hold: it comes with the key, model and tools of `host`.

    What the tenant's application says before everything else comes before it, unless it has a system's message itself:
    an attacker types into an application, and does not take its place.
    """
    system = tuple(takewhile(lambda turn: turn.role == "system", host.turns))
    if any(turn.role == "system" for turn in session.turns):
        system = ()
    # The name first: it depends on where the session comes from.
    alone = named(session, host.tenant, *kind)
    return msgspec.structs.replace(
        alone, tenant=host.tenant, key=host.key, model=host.model, tools=host.tools, turns=system + session.turns
    )


def learned(sessions: Sequence[CorpusSession], seed: int) -> tuple[CorpusSession, ...]:
    """Sessions under new names, each tenant's spread evenly over `LEARN_DAYS`, in the order of time."""
    dated: list[CorpusSession] = []
    for tenant, own in _by_tenant(sessions, seed).items():
        step = LEARN_DAYS * _DAY_MS / len(own)
        dice = drawn("learned", seed, tenant)
        for turn, session in enumerate(own):
            start_ms = UNDATED_START_MS + int((turn + dice.random()) * step)
            dated.append(msgspec.structs.replace(named(session), start_ms=start_ms, calls_ms=()))
    return tuple(sorted(dated, key=lambda session: (session.start_ms or 0, session.session)))


def probed(probes: Sequence[Probe], seed: int) -> tuple[Probe, ...]:
    """Probes after all that was learned, each tenant's `PROBE_MS` apart and in no order of kinds; by time.

    Names stay as they are.
    """
    dated: list[Probe] = []
    for tenant, own in _by_tenant(probes, seed).items():
        dice = drawn("probed", seed, tenant)
        for turn, probe in enumerate(own):
            start_ms = BEGIN_MS + int((turn + _JITTER * dice.random()) * PROBE_MS)
            dated.append(replace(probe, session=_at(probe.session, start_ms)))
    return tuple(sorted(dated, key=lambda probe: (probe.session.start_ms or 0, probe.session.session)))


def _at(session: CorpusSession, start_ms: int) -> CorpusSession:
    return msgspec.structs.replace(session, start_ms=start_ms, calls_ms=())


def _by_tenant(sessions: Sequence[_Session], seed: int) -> dict[str, list[_Session]]:
    found: dict[str, list[tuple[int, int, _Session]]] = {}
    for at, each in enumerate(sessions):
        session = each.session if isinstance(each, Probe) else each
        if session.tenant is None:
            raise ValueError(f"session {session.session!r} must have a tenant before it is dated. A bug.")
        found.setdefault(session.tenant, []).append((rank("order", seed, session.tenant, session.session), at, each))
    return {
        tenant: [each for _, _, each in sorted(own, key=lambda row: row[:2])] for tenant, own in sorted(found.items())
    }
