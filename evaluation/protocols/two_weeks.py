"""Two weeks of traffic: what is learned in the first, and what happens in the second."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from evaluation.arrivals import DAY_S, DAYS, Arrivals, rng
from evaluation.behaviour import Material
from evaluation.callers import keyed
from evaluation.corpus import Corpus
from evaluation.draws import rank
from evaluation.drifts import Drift, Poisoning, Ramp
from evaluation.placing import named
from evaluation.protocols.happenings import LEARN_DAYS, Happenings, Tenant, dated, events_in
from evaluation.split import base_of, halves
from evaluation.trial import Probe
from schemas.corpus import CorpusSession
from schemas.corpus_timeline import call_times

SPARED = 0.2
"""Of the sessions of the second week: what behaviours, poison and growing tenants are made of."""
_MADE_EVENTS = 0.08
"""Of all events, those of what is added to the benign traffic."""
_EVENTS_A_DRIFT = 20_000
_ATTACKS_SHARE = 0.03
"""Text attacks, of the second week's sessions."""
_BEHAVIOURS_SHARE = 0.003
"""Attacks of each behaviour."""
_SCRAPERS_SHARE = 0.001
_SHARE_MAX = 64.0
"""Of a tenant's sessions, its weeks in proportion: beyond it only tenants grow whose client is hardly ever there."""


@dataclass(frozen=True, slots=True)
class TwoWeeks:
    """What the systems see, and what is known of it."""

    seed: int
    learn: Sequence[CorpusSession]
    """Benign, in the order of time."""
    probes: Sequence[Probe]
    """The second week, in the order of time."""
    drifts: Sequence[Drift]
    poisonings: Sequence[Poisoning]
    counts: Mapping[str, int]
    """What was left out, and the like, in words."""
    ramps: Mapping[str, Ramp] = field(default_factory=dict)
    """By poisoned tenant, what its steps are made of."""


def lay_out(corpus: Corpus, arrivals: Arrivals, seed: int, events: int) -> TwoWeeks | None:
    """Two weeks of about so many events in all; None where there is too little to learn from, or to judge.

    A conversation that is learned is none that is judged, whichever tenants hold it, and each session is used once.
    """
    half_of = halves(corpus.benign, seed)
    clients = arrivals.placed(corpus.benign, seed)
    tenants: dict[str, Tenant] = {}
    for name, own in corpus.benign.items():
        order = sorted(own, key=lambda session: rank("stream", seed, session.tenant, session.session))
        learn, live = ([named(s) for s in order if half_of[base_of(s)] == half] for half in (0, 1))
        tenants[name] = Tenant(name, clients[name], learn, live)
    _thin(list(tenants.values()), events * (1 - _MADE_EVENTS))
    for tenant in tenants.values():
        _date(tenant, seed)
    going_on = sum(len(tenant.live) for tenant in tenants.values())
    if sum(len(tenant.learn) for tenant in tenants.values()) < 2 or not going_on:
        return None
    happenings = Happenings(seed, tenants)
    foreign, injected = _attacks(corpus, tenants, half_of, seed, happenings.counts)
    happenings.drift(max(1, round(events / _EVENTS_A_DRIFT)))
    happenings.poison(foreign)
    happenings.attack([*injected, *foreign], round(_ATTACKS_SHARE * going_on))
    happenings.behave(max(1, round(_BEHAVIOURS_SHARE * going_on)), max(1, round(_SCRAPERS_SHARE * going_on)))
    happenings.go_on()
    counts = happenings.counts
    counts["tenants with another one's arrivals, hours later"] = max(len(clients) - max(len(arrivals.clients), 1), 0)
    counts["windows and lines of the arrivals that say nothing"] = arrivals.unreadable
    return TwoWeeks(
        seed,
        sorted((session for tenant in tenants.values() for session in tenant.learn), key=_place),
        sorted(happenings.probes, key=lambda probe: _place(probe.session)),
        happenings.drifts,
        happenings.poisonings,
        {name: count for name, count in counts.items() if count},
        happenings.ramps,
    )


def _attacks(
    corpus: Corpus, tenants: Mapping[str, Tenant], half_of: Mapping[str, int], seed: int, counts: Counter[str]
) -> tuple[list[CorpusSession], list[CorpusSession]]:
    """Foreign ones, and those of tenants in conversations that are not learned; in an order by hash."""
    injected: list[CorpusSession] = []
    for name, own in corpus.placed.items():
        if name not in tenants or not tenants[name].live:
            counts["attacks on tenants that do not call in the second week"] += len(own)
            continue
        # What is no conversation of the benign sessions' is nobody's to learn.
        injected += [session for session in own if half_of.get(base_of(session), 1)]
    foreign = list(corpus.foreign)
    for attacks in (injected, foreign):
        attacks.sort(key=lambda session: rank("attack", seed, session.source, session.tenant, session.session))
    return foreign, injected


def _thin(tenants: Sequence[Tenant], events: float) -> None:
    """Choose the same share of every tenant's sessions, dealt to its weeks as its client calls in them."""
    means, rooms, weeks = [], [], []
    for tenant in tenants:
        halves_of_it = tenant.learn, tenant.live
        first = tenant.client.share(0, LEARN_DAYS * DAY_S)
        sessions = len(tenant.learn) + len(tenant.live)
        means.append([events_in(half) / max(len(half), 1) for half in halves_of_it])
        rooms.append([len(tenant.learn), len(tenant.live) - round(SPARED * len(tenant.live))])
        weeks.append([sessions * first, sessions * (1 - first)])

    def counts(share: float) -> list[list[int]]:
        return [
            [min(round(share * own), room) for own, room in zip(*row, strict=True)]
            for row in zip(weeks, rooms, strict=True)
        ]

    def total(share: float) -> float:
        rows = zip(counts(share), means, strict=True)
        return sum(n * mean for row in rows for n, mean in zip(*row, strict=True))

    low, high = 0.0, _SHARE_MAX
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if total(middle) < events else (low, middle)
    for tenant, (first, second) in zip(tenants, counts(high), strict=True):
        tenant.spare = tenant.live[second:]
        tenant.learn, tenant.live = tenant.learn[:first], tenant.live[:second]


def _date(tenant: Tenant, seed: int) -> None:
    """Give the sessions keys, places and times."""
    random = rng(seed, "times", tenant.name)
    tenant.material = Material.of([*tenant.live, *tenant.spare])
    tenant.spare = [keyed(session, seed) for session in tenant.spare]
    learn, live = ([keyed(s, seed, roaming=True) for s in part] for part in (tenant.learn, tenant.live))
    tenant.learn = list(map(dated, learn, tenant.times(0, LEARN_DAYS, len(learn), random)))
    tenant.live = list(map(dated, live, tenant.times(LEARN_DAYS, DAYS, len(live), random)))


def _place(session: CorpusSession) -> tuple[int, str, str]:
    return call_times(session, 0)[0], str(session.tenant), session.session
