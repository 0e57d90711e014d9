"""One seed of all protocols but `stream`: trials are made, systems fitted once for all of them, and probes judged."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

import msgspec

from evaluation.corpus import Corpus
from evaluation.events import Events, events_of
from evaluation.known_attacks import folds
from evaluation.marking import marks
from evaluation.parts import Parts
from evaluation.protocols.hard_negatives import hard_negatives
from evaluation.protocols.paired import paired
from evaluation.protocols.session import session
from evaluation.protocols.slices import slices
from evaluation.protocols.splice import splice
from evaluation.report.facts import Absent, Cost, Counted, Facts
from evaluation.report.write import Excerpt
from evaluation.row import Row
from evaluation.split import Split, split
from evaluation.systems.registry import LABELLED, PRODUCT, SYSTEMS, Shared, taking_part
from evaluation.systems.system import Judged, System
from evaluation.trial import Nothing, Probe, Trial
from schemas.corpus import CorpusSession
from stream.config import Settings
from stream.errors import StateError, UsageError
from stream.training.texts import TooFewAttacks

SEEN = "hard_negatives-seen"
_MAKES: Mapping[str, Callable[[Corpus, Split], Trial | Nothing]] = {
    "paired": paired,
    "splice": splice,
    "session": session,
    "hard_negatives": lambda corpus, halves: hard_negatives(corpus, halves, seen=False),
    SEEN: lambda corpus, halves: hard_negatives(corpus, halves, seen=True),
    "slices": slices,
}
"""By the name of a trial; that of its protocol is what stands before the dash."""
EXCERPT_CHARS = 400
Step = Callable[[str], None]
_Own = tuple[str, frozenset[tuple[str | None, str]]]
"""A system, and which labelled attacks it has learned."""


def trials_of(protocol: str) -> list[str]:
    """Names of a protocol's trials.

    >>> trials_of("hard_negatives"), trials_of("stream")
    (['hard_negatives', 'hard_negatives-seen'], [])
    """
    return [name for name in _MAKES if name.partition("-")[0] == protocol]


def parts_of(
    trial: str, seed: int, place: int, *, released: bool, chosen: Collection[str] | None = None
) -> dict[str, str]:
    """Systems of a trial, each with the name of its part.

    Parameters
    ----------
    place
        The how-manieth seed it is, from 0.
    released
        Whether a release is given.
    chosen
        Systems that are wanted; None: all.
    """
    names = taking_part(trial.partition("-")[0], place, released=released, systems=chosen)
    return {name: f"{trial}.{seed}.{name}" for name in names if trial != SEEN or name in (PRODUCT, LABELLED)}


@dataclass(slots=True)
class SeedRun:
    """Judges what is not finished yet.

    Parameters
    ----------
    shared
        Makes a fresh set of systems for something new to learn.
    step
        Told which system judges what.
    excerpt
        Given what each judged session says.
    chosen
        Systems that are wanted; None: all.
    """

    corpus: Corpus
    seed: int
    place: int
    settings: Settings
    shared: Callable[[], Shared]
    parts: Parts
    step: Step
    excerpt: Callable[[Excerpt], None]
    chosen: Collection[str] | None = None
    _halves: Split | None = None
    _systems: dict[_Own, System] = field(default_factory=dict)
    _shared: Shared | None = None
    _learned: tuple[Sequence[CorpusSession], Events] | None = None
    _fitted: set[_Own] = field(default_factory=set)

    def run(self, trials: Sequence[str], *, released: bool) -> None:
        """Judge the probes of `trials`; the one that learns something else comes last: nothing is fitted twice."""
        for name in sorted(trials, key=SEEN.__eq__):
            wanted = parts_of(name, self.seed, self.place, released=released, chosen=self.chosen)
            missing = {system: part for system, part in wanted.items() if not self.parts.has(part)}
            if missing:
                self._trial(name, missing)

    def _trial(self, name: str, missing: Mapping[str, str]) -> None:
        protocol = name.partition("-")[0]
        if self._halves is None:
            self._halves = split(self.corpus, self.seed)
        made = _MAKES[name](self.corpus, self._halves)
        if isinstance(made, Nothing):
            absent = Absent(protocol=protocol, seed=self.seed, reason=made.reason)
            for system, part in missing.items():
                self.parts.put(part, (), Facts(absent=[absent] if system == PRODUCT else []))
            return
        learn = self._events(made.learn)
        probes = events_of([probe.session for probe in made.probes], self.settings)
        for said in excerpts(made.probes, probes):
            self.excerpt(said)
        counted = [
            Counted(protocol=protocol, seed=self.seed, name=what.replace("_", " "), count=count)
            for what, count in made.figures.items()
        ]
        for system, part in missing.items():
            self.step(f"{name}, seed {self.seed}: {system}")
            try:
                rows, cost = self._judged(system, made, learn, probes)
            except (StateError, UsageError) as error:
                # Weights that are not installed are missed where a system is made; later it is a fault of what judges.
                if isinstance(error, StateError) and any(each == system for each, _ in self._systems):
                    raise
                absent = Absent(protocol=protocol, seed=self.seed, reason=str(error), system=system)
                self.parts.put(part, (), Facts(absent=[absent]))
                continue
            facts = Facts(counts=counted if system == PRODUCT else [], costs=[cost] if cost is not None else [])
            self.parts.put(part, rows, facts)

    def _events(self, learn: Sequence[CorpusSession]) -> Events:
        """What is learned, as events; with it systems that have learned nothing else."""
        if self._learned is None or self._learned[0] is not learn:
            self._learned = learn, events_of(learn, self.settings)
            self._shared, self._systems, self._fitted = self.shared(), {}, set()
        return self._learned[1]

    def _judged(self, name: str, trial: Trial, learn: Events, probes: Events) -> tuple[list[Row], Cost | None]:
        if name != LABELLED:
            return self._by(name, trial, learn, probes)
        rows: list[Row] = []
        costs: list[Cost] = []
        # What is judged for its false positives alone needs no folds: no attack of it could be known.
        dealt = folds(trial, self.corpus) if any(probe.label == "attack" for probe in trial.probes) else [trial]
        if not dealt:
            raise TooFewAttacks("All attacks share a source, a family or texts: none is left to learn from.")
        for fold in dealt:
            own, cost = self._by(name, fold, learn, events_of([probe.session for probe in fold.probes], self.settings))
            rows += own
            costs.append(cost)
        return rows, summed(costs)

    def _by(self, name: str, trial: Trial, learn: Events, probes: Events) -> tuple[list[Row], Cost]:
        assert self._shared is not None
        attacks = trial.attacks if name == LABELLED else ()
        # What has learned the same serves all trials: those of foreign attacks have the same folds.
        own = name, frozenset((attack.source, attack.session) for attack in attacks)
        if own not in self._systems:
            self._systems[own] = SYSTEMS[name].make(self._shared)
        system = self._systems[own]
        fit_seconds = None
        if own not in self._fitted:
            begun = time.perf_counter()
            system.fit(learn, self.seed, attacks)
            fit_seconds = time.perf_counter() - begun
            self._fitted.add(own)
        judged = system.judge(probes)
        cost = Cost.of(trial.protocol, self.seed, name, len(probes), judged.seconds, fit_seconds, judged.alone_ms)
        return list(rows_of(trial, probes, judged, name, self.settings.decision.session_fpr)), cost


def rows_of(trial: Trial, events: Events, judged: Judged, system: str, nominal: float) -> Iterator[Row]:
    """A row for each probe of a trial."""
    counts = [0] * len(trial.probes)
    for at in events.session.tolist():
        counts[at] += 1
    for at, probe in enumerate(trial.probes):
        p, first = float(judged.p[at]), int(judged.first_turn[at])
        yield Row(
            protocol=trial.protocol,
            seed=trial.seed,
            system=system,
            tenant=probe.session.tenant or "",
            session=probe.session.session,
            family=probe.family,
            task=probe.cluster,
            label=probe.label,
            score=float(judged.score[at]),
            flagged=p <= nominal,
            first_finding_turn=first if first >= 0 else None,
            p=p,
            obeyed=probe.obeyed,
            signal=judged.signal[at],
            events=counts[at],
            marked=marks(judged.shown[at], probe.placed) if judged.shown and probe.placed else None,
            slices=probe.slices,
        )


def summed(costs: Sequence[Cost]) -> Cost | None:
    """What folds took together, and the mean over them of what a single event took; None of none."""
    if not costs:
        return None
    fits = [cost.fit_seconds for cost in costs if cost.fit_seconds is not None]
    p50 = [cost.latency_p50_ms for cost in costs if cost.latency_p50_ms is not None]
    p99 = [cost.latency_p99_ms for cost in costs if cost.latency_p99_ms is not None]
    return msgspec.structs.replace(
        costs[0],
        events=sum(cost.events for cost in costs),
        seconds=sum(cost.seconds for cost in costs),
        fit_seconds=sum(fits) if fits else None,
        latency_p50_ms=fmean(p50) if p50 else None,
        latency_p99_ms=fmean(p99) if p99 else None,
    )


def excerpts(probes: Sequence[Probe], events: Events) -> Iterator[Excerpt]:
    """What each session says, as ingest's redaction leaves it: the message that is marked, else its user's last."""
    last = dict(zip(events.session.tolist(), events.heads, strict=True))
    for at, probe in enumerate(probes):
        messages = last[at].messages if at in last else []
        marked = [i for i, turn in enumerate(probe.session.turns) if turn.payload and i < len(messages)]
        asked = [i for i, message in enumerate(messages) if message.role == "user"]
        for chosen in (marked or asked)[-1:]:
            text = " ".join(part.text or part.response or "" for part in messages[chosen].parts)
            yield Excerpt(probe.session.tenant or "", probe.session.session, text[:EXCERPT_CHARS])
