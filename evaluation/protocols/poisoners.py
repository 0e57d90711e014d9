"""Slow poisoners against the product: how they stay below its threshold, and what it would have found without them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, replace

from evaluation.events import events_of
from evaluation.protocols.live import live
from evaluation.protocols.two_weeks import TwoWeeks
from evaluation.protocols.verdicts import Week, of_service
from stream.config import Settings
from stream.release import Release
from stream.steps.content import Embeds

_TRIES = 4
LOWERED, GIVEN_UP = "steps of slow poisoners made lower", "steps of slow poisoners given up"


@dataclass(frozen=True, slots=True)
class Poisoners:
    """What poisoners do who know the release, and try each step on it before they take it.

    Each tenant is lived through by itself: no tenant's normal hangs on another's.

    Parameters
    ----------
    release
        Which the first week has taught.
    settings
        Of the product at its share of sessions.
    embedder
        Of the release's space.
    """

    release: Release
    settings: Settings
    embedder: Embeds

    def held_back(self, laid_out: TwoWeeks) -> TwoWeeks:
        """The two weeks, with each step that the product flags made half as high, and again, up to four times.

        A step that is flagged even so is given up: its session says nothing that it would not have said, and is flagged
        only if it is strange in itself. `counts` says how many were lowered and given up.
        """
        probes, counts = list(laid_out.probes), Counter(laid_out.counts)
        place = {(probe.session.tenant, probe.session.session): at for at, probe in enumerate(probes)}
        for poisoning in laid_out.poisonings:
            ramp = laid_out.ramps[poisoning.tenant]
            levels = {name: (at + 1) / len(poisoning.steps) for at, name in enumerate(poisoning.steps)}
            lowered, given_up = set[str](), set[str]()
            for left in reversed(range(_TRIES + 1)):
                flagged = self._flagged(replace(laid_out, probes=probes), poisoning.tenant).intersection(levels)
                for name in flagged:
                    levels[name] /= 2
                    lower = ramp.step(ramp.origins[name], levels[name]) if left else None
                    (lowered if lower is not None else given_up).add(name)
                    at = place[poisoning.tenant, name]
                    probes[at] = replace(probes[at], session=lower if lower is not None else ramp.plain(name))
                if not flagged:
                    break
            counts[LOWERED] += len(lowered - given_up)
            counts[GIVEN_UP] += len(given_up)
        return replace(laid_out, probes=probes, counts={name: count for name, count in counts.items() if count})

    def unpoisoned(self, laid_out: TwoWeeks) -> dict[str, int]:
        """Way of poisoning -> how many of its attacks are found where nobody has poisoned the tenant."""
        return {
            poisoning.what: len(
                self._flagged(laid_out, poisoning.tenant, without=poisoning.steps).intersection(poisoning.attacks)
            )
            for poisoning in laid_out.poisonings
        }

    def _flagged(self, laid_out: TwoWeeks, tenant: str, without: Collection[str] = ()) -> set[str]:
        """The tenant's sessions that findings are about, where some sessions never were."""
        own = [p for p in laid_out.probes if p.session.tenant == tenant and p.session.session not in without]
        week = Week.of(replace(laid_out, probes=own), events_of([probe.session for probe in own], self.settings))
        first = of_service(week, live(week.events, self.release, self.settings, self.embedder)).first
        return {probe.session.session for probe, row in zip(own, first.tolist(), strict=True) if row >= 0}
