"""What happens in a stream's second week beside tenants' daily traffic: attacks, changes, and poison."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import msgspec
import numpy as np

from evaluation.arrivals import DAY_S, DAYS, Client, rng
from evaluation.behaviour import AT_QUIET_HOURS, BEHAVIOURS, FAMILY, Material
from evaluation.callers import keyed
from evaluation.draws import rank
from evaluation.drifts import CALLS_MORE, DRIFTS, POISON_ATTACKS, POISONS, Drift, Poisoning, Ramp, sentences
from evaluation.placing import named, placed_on
from evaluation.split import base_of
from evaluation.trial import Label, Probe
from schemas.corpus import CorpusSession, Turn, calls
from schemas.corpus_timeline import UNDATED_START_MS

LEARN_DAYS = 7
POISONED = "+poisoned"
"""What the family of an attack ends in that was prepared by poison."""
_MATURE = 20
"""Sessions that a tenant should have had for its own past to count."""
_STEPS = 12
_PREPARED = 2
"""Attacks at the end of a poisoning."""
_WORDS_MIN = 8
"""Sentences of an attack that poison is made of."""
_DRIFT_AFTER = 0.35
"""Of a tenant's second week, when it changes."""
_POISON_UNTIL, _PREPARED_FROM = 0.7, 0.8
"""Of the second week."""
_STAYING = 1 / 3
"""Of the tenants at least."""


@dataclass(slots=True)
class Tenant:
    """What a tenant does, as it is laid out."""

    name: str
    client: Client
    learn: list[CorpusSession]
    live: list[CorpusSession]
    spare: list[CorpusSession] = field(default_factory=list)
    """What could be live and is not used yet."""
    material: Material = field(default_factory=lambda: Material((), ()))

    def times(self, from_day: float, to_day: float, count: int, random: np.random.Generator) -> list[int]:
        """When sessions start, in ms since the epoch; days count from the first that is learned."""
        drawn = self.client.draw(from_day * DAY_S, to_day * DAY_S, count, random)
        return [UNDATED_START_MS + int(1000 * at) for at in drawn.tolist()]


class Happenings:
    """Makes the second week, step by step; each step takes what it needs of the tenants' spare sessions."""

    def __init__(self, seed: int, tenants: Mapping[str, Tenant]) -> None:
        self._seed = seed
        self._tenants = {name: tenant for name, tenant in tenants.items() if tenant.live}
        self.probes: list[Probe] = []
        self.drifts: list[Drift] = []
        self.poisonings: list[Poisoning] = []
        self.ramps: dict[str, Ramp] = {}
        self.counts: Counter[str] = Counter()
        self._changing: set[str] = set()

    def drift(self, each: int) -> None:
        """Let tenants change in so many of each way: busy ones, as others have no past to leave."""
        kinds = [what for what in DRIFTS for _ in range(each)]
        room = int(len(self._tenants) * (1 - _STAYING))
        chosen = self._busiest()[: min(len(kinds) + len(POISONS), room)]
        chosen.sort(key=lambda tenant: rank("drift", self._seed, tenant.name))
        for what, tenant in zip(kinds, chosen, strict=False):
            starts = sorted(session.start_ms or 0 for session in tenant.live)
            at_ms = starts[int(_DRIFT_AFTER * len(starts))]
            self.drifts.append(Drift(tenant.name, what, at_ms))
            self._changing.add(tenant.name)
            if what in CALLS_MORE:
                self._grow(tenant, at_ms)
            change = DRIFTS[what]
            tenant.live = [
                change(session, tenant.name, tenant.material, self._seed)
                if (session.start_ms or 0) >= at_ms
                else session
                for session in tenant.live
            ]
        self.counts["changes of tenants left out for want of tenants"] += len(kinds) - len(self.drifts)

    def _grow(self, tenant: Tenant, at_ms: int) -> None:
        after = sum((session.start_ms or 0) >= at_ms for session in tenant.live)
        more = [tenant.spare.pop() for _ in range(min(after, len(tenant.spare) // 2))]
        from_day = (at_ms - UNDATED_START_MS) / 1000 / DAY_S
        times = tenant.times(from_day, DAYS, len(more), rng(self._seed, "grow", tenant.name))
        tenant.live += map(dated, more, times)

    def poison(self, foreign: list[CorpusSession]) -> None:
        """Let tenants be led on; takes the attack that words are taken from out of `foreign`."""
        for what in POISONS:
            others = [tenant for tenant in self._busiest() if tenant.name not in self._changing]
            if not any(self._poisoned(tenant, what, foreign) for tenant in others):
                self.counts[f"poisoners by {what} left out for want of sessions"] += 1

    def _poisoned(self, tenant: Tenant, what: str, foreign: list[CorpusSession]) -> bool:
        random = rng(self._seed, "poison", what, tenant.name)
        attack = next((a for a in foreign if len(sentences(a)) >= _WORDS_MIN), None) if what == "words" else None
        ramp = Ramp(what, self._seed, tenant.name, tenant.material, attack)
        spare, origins, steps = list(tenant.spare), list[CorpusSession](), list[CorpusSession]()
        while spare and len(steps) < _STEPS:
            origin = spare.pop()
            step = ramp.step(origin, (len(steps) + 1) / _STEPS)
            if step is not None:
                origins.append(origin)
                steps.append(step)
        made = [] if attack is None else [self._in_tenant(attack, tenant)]
        while what in POISON_ATTACKS and spare and len(made) < _PREPARED:
            made += POISON_ATTACKS[what](spare.pop(), tenant.material, random)
        if len(steps) < _STEPS or not made:
            return False
        tenant.spare = spare
        if attack is not None:
            foreign.remove(attack)
        until, begins = (LEARN_DAYS + share * (DAYS - LEARN_DAYS) for share in (_POISON_UNTIL, _PREPARED_FROM))
        times = tenant.times(LEARN_DAYS, until, len(steps), random)
        origins, steps = (list(map(dated, part, times)) for part in (origins, steps))
        of_step = {step.session: origin for step, origin in zip(steps, origins, strict=True)}
        self.ramps[tenant.name] = replace(ramp, origins=of_step)
        made = list(map(dated, made, tenant.times(begins, DAYS, len(made), random)))
        for session in steps:
            self._judge(session, "control", f"poison.{what}")
        for session in made:
            self._judge(session, "attack", f"{session.attack_family or 'attack'}{POISONED}")
        names = (tuple(session.session for session in part) for part in (steps, made))
        self.poisonings.append(Poisoning(tenant.name, what, *names))
        self._changing.add(tenant.name)
        return True

    def behave(self, each: int, scrapers: int) -> None:
        """Let there be so many attacks of each behaviour, in tenants that stay as they are and have a past, if any do.

        A scraper is one attack of many sessions.
        """
        for what in BEHAVIOURS:
            waiting = sorted(self._tenants.values(), key=lambda tenant: self._suitable(tenant, what))
            wanted, done = scrapers if what == "scraping" else each, 0
            # Who could do it once comes again after all others.
            while waiting and done < wanted:
                tenant = waiting.pop(0)
                if self._behaves(tenant, what):
                    done += 1
                    waiting.append(tenant)
            if done < wanted:
                self.counts[f"{FAMILY}{what} left out for want of sessions to make it of"] += wanted - done

    def _suitable(self, tenant: Tenant, what: str) -> tuple[bool, bool, int]:
        return tenant.name in self._changing, len(tenant.learn) < _MATURE, rank(what, self._seed, tenant.name)

    def _behaves(self, tenant: Tenant, what: str) -> bool:
        random = rng(self._seed, "behaviour", what, tenant.name, len(tenant.spare))
        start_ms = self._when(tenant, what in AT_QUIET_HOURS, random)
        for at, session in enumerate(tenant.spare):
            made = BEHAVIOURS[what](dated(session, start_ms), tenant.material, random)
            for own in made:
                self._judge(own, "attack", f"{FAMILY}{what}", f"{tenant.name}/{made[0].session}")
            if made:
                del tenant.spare[at]
                return True
        return False

    def _when(self, tenant: Tenant, quiet: bool, random: np.random.Generator) -> int:
        if not quiet:
            return tenant.times(LEARN_DAYS, DAYS, 1, random)[0]
        day = LEARN_DAYS + int(random.integers(DAYS - LEARN_DAYS))
        return UNDATED_START_MS + int(1000 * (day * DAY_S + 3600 * (tenant.client.quiet_hour() + random.random())))

    def attack(self, attacks: Sequence[CorpusSession], count: int) -> None:
        """Let there be so many text attacks, or one of each family where that is more: the families in turn."""
        by_family: dict[str, list[CorpusSession]] = defaultdict(list)
        for session in attacks:
            by_family[session.attack_family or "attack"].append(session)
        families = sorted(by_family, key=lambda family: rank("family", self._seed, family))
        rounds = max((len(own) for own in by_family.values()), default=0)
        turns = [(family, turn) for turn in range(rounds) for family in families if turn < len(by_family[family])]
        for family, turn in turns[: max(count, len(families))]:
            session = by_family[family][turn]
            random = rng(self._seed, "attack", session.source, session.tenant, session.session)
            # A tenant of whom nothing else is known strikes others, as whoever has none.
            own = self._tenants.get(session.tenant or "")
            tenant = own or self._struck(random)
            cluster = None if own is None else base_of(session)
            session = self._in_tenant(session, tenant) if own is None else named(session)
            self._judge(dated(session, *tenant.times(LEARN_DAYS, DAYS, 1, random)), "attack", family, cluster)

    def _struck(self, random: np.random.Generator) -> Tenant:
        """Who is hit: whoever calls more, more often."""
        tenants = list(self._tenants.values())
        calling = np.array([len(tenant.live) for tenant in tenants], np.float64)
        return tenants[int(random.choice(len(tenants), p=calling / calling.sum()))]

    def _in_tenant(self, attack: CorpusSession, tenant: Tenant) -> CorpusSession:
        """A foreign attack as a session of the tenant's application.

        What nobody has answered is answered as the application answers, by its last words: that there is no answer is
        how the attack was collected, not how it would be met.
        """
        host = tenant.live[rank("host", self._seed, attack.source, attack.session) % len(tenant.live)]
        placed = placed_on(attack, host)
        answer = next((turn.text for turn in reversed(host.turns) if turn.role == "assistant" and turn.text), None)
        if answer is None or any(turn.role == "assistant" for turn in placed.turns):
            return placed
        return msgspec.structs.replace(placed, turns=(*placed.turns, Turn("assistant", answer)))

    def go_on(self) -> None:
        """Let tenants' daily traffic be judged as well."""
        changed = {drift.tenant: drift for drift in self.drifts}
        for tenant in self._tenants.values():
            drift = changed.get(tenant.name)
            for session in tenant.live:
                after = drift is not None and (session.start_ms or 0) >= drift.at_ms
                slices = {"drift": drift.what} if drift is not None and after else {}
                self._judge(session, "benign", "", slices=slices)

    def _judge(
        self,
        session: CorpusSession,
        label: Label,
        family: str,
        cluster: str | None = None,
        slices: Mapping[str, str] | None = None,
    ) -> None:
        session = keyed(session, self._seed) if session.key is None else session
        self.probes.append(Probe(session, label, family, cluster or base_of(session), slices=slices or {}))

    def _busiest(self) -> list[Tenant]:
        """Tenants by how much there is of them in both weeks, the one with most first."""
        return sorted(self._tenants.values(), key=lambda t: (-min(events_in(t.learn), events_in(t.live)), t.name))


def dated(session: CorpusSession, start_ms: int) -> CorpusSession:
    """The session at another time."""
    return msgspec.structs.replace(session, start_ms=start_ms, calls_ms=())


def events_in(sessions: Iterable[CorpusSession]) -> int:
    """How many calls they make."""
    return sum(len(calls(session)) for session in sessions)
