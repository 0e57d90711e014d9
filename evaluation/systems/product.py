"""The product: a release trained on what there is to learn, the core that judges with it, and the same less a signal.

Everything is done once and asked for by several systems: one release is trained, each event's p-values are made by the
core, and an ablation is what they come to without one of them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from evaluation.events import Events
from evaluation.features import Embedder
from evaluation.systems.sessions import judged_by_strangest
from evaluation.systems.system import ALONE, Judged, evenly
from models.calibration import Calibration
from models.tail import probability
from models.token_tagger import TokenTagger
from schemas.corpus import CorpusSession
from stream.config import DecisionSettings, Settings
from stream.core import Core
from stream.errors import UsageError
from stream.inputs import InputBatch, Outcome
from stream.record import Record
from stream.release import Release
from stream.runtime.train_command import EFFORT
from stream.state.schema import KINDS, KNOWN_ATTACK, TOOL_KNOWN_ATTACK
from stream.steps.explain import anomaly
from stream.steps.scored import Scored
from stream.training.attacks import attack_texts
from stream.training.calibrate import Known, calibrate
from stream.training.effort import Effort
from stream.training.events import Gathered, TrainingEvents, arrange
from stream.training.passes import run, silent_calibration
from stream.training.texts import Again
from stream.training.train import Progress, Trained, train

_EVENTS_AT_ONCE = 2000
_SESSIONS_AT_ONCE = 256
"""Each is a partition of its own, and takes with its tenant's row some 40 KB while it is judged."""


@dataclass(frozen=True, slots=True)
class Said:
    """What the core says of events (n)."""

    p: NDArray[np.float64]
    """(n, kinds), 1 where an event has nothing to be judged by."""
    eligible: NDArray[np.bool_]
    """(n, kinds) which of them count."""
    newcomer: NDArray[np.bool_]
    """(n,) whether they are of the first sessions of a tenant that the release was not trained on."""
    shown: list[str]
    """(n,) what a finding would show first, empty where it would show nothing; none where nobody asked."""
    seconds: float
    alone_ms: Sequence[float]
    """What the core took for some events, each a batch of its own."""


class Product:
    """A release and what it says; made once however many systems ask.

    Parameters
    ----------
    settings
        As of a service. What it does not find because of a budget or of exceptions is judged all the same.
    embedder
        Of the release's space.
    release
        To judge with, in place of one that is trained. What is to be learned it hears as a service does: tenants that
        it knows go on from their warm rows, others begin.
    labelled
        Whether attacks may be learned from.
    effort
        Of the fits.
    again
        The transformer that looks again, where the settings have one.
    tagger
        The tagger that reads in their sentences what role surprise finds strange, where the settings have one.
    processes
        Fits side by side.
    progress
        Told what training does.
    """

    def __init__(
        self,
        settings: Settings,
        embedder: Embedder,
        *,
        release: Release | None = None,
        labelled: bool = False,
        effort: Effort = EFFORT,
        again: Again | None = None,
        tagger: TokenTagger | None = None,
        processes: int = 1,
        progress: Progress = lambda _: None,
    ) -> None:
        self.nominal = settings.decision.session_fpr
        self._settings = replace(settings, decision=DecisionSettings(session_fpr=self.nominal))
        self._embedder = embedder
        self._given = release
        self._labelled = labelled
        self._effort = effort
        self._again = again
        self._tagger = tagger
        self._processes = processes
        self._progress = progress
        self._fitted: tuple[Events, int, Sequence[CorpusSession]] | None = None
        self._release: Release | None = None
        self._held_out: tuple[TrainingEvents, Trained] | None = None
        self._asked: tuple[Events, Said] | None = None

    @property
    def release(self) -> Release:
        """What is judged with."""
        if self._release is None:
            raise ValueError("a system must be fitted before it judges. A bug.")
        return self._release

    def fit(self, learn: Events, seed: int, attacks: Sequence[CorpusSession]) -> None:
        """Train, unless it was these events that were learned last.

        Raises
        ------
        UsageError
            When there are fewer than two sessions of different tasks.
        """
        attacks = attacks if self._labelled else ()
        if self._fitted is not None:
            events, with_seed, with_attacks = self._fitted
            if events is learn and with_seed == seed and with_attacks is attacks:
                return
        self._asked = None
        if self._given is not None:
            self._release = self._heard(self._given, learn)
        else:
            self._release = self._trained(learn, seed, attacks)
        self._fitted = learn, seed, attacks

    def said(self, events: Events) -> Said:
        """What the release says of `events`, each session met as if it were the first after those learned."""
        if self._asked is None or self._asked[0] is not events:
            self._asked = events, said_alone(events, self.release, self._settings, self._embedder)
        return self._asked[1]

    def keep(self, events: Events, said: Said) -> None:
        """What was said of `events` in service, learning as they came, instead of each session alone."""
        self._asked = events, said

    def without(self, kinds: Sequence[int]) -> Calibration:
        """The release's calibration had it never had these signals, which are ordinary whatever their values.

        What the signals come to together is fitted again on what was held out, without them.

        Raises
        ------
        UsageError
            When the release was not trained here: what was held out from its fits is not known.
        """
        if self._held_out is None:
            raise UsageError("an ablation needs a release that is trained for it. Leave out --release.")
        events, trained = self._held_out
        scores = trained.scores.copy()
        scores[:, kinds] = np.nan
        made = calibrate(
            events,
            scores,
            grace_sessions=self._settings.learning.grace_sessions,
            labelled=True,
            known=self._known_without(trained.known, kinds),
        )[0]
        tails = list(made.tails)
        for kind in kinds:
            tails[kind] = silent_calibration().tails[kind]
        return replace(made, tails=tuple(tails))

    @staticmethod
    def _known_without(known: Known, kinds: Sequence[int]) -> Known:
        """As if no attack had been written where nothing is left of any; role surprise has its tail all the same."""
        silenced = {KINDS[kind] for kind in kinds}
        rest = {name: values for name, values in known.look_alikes.items() if name not in silenced}
        if {KNOWN_ATTACK, TOOL_KNOWN_ATTACK} <= set(kinds):
            return Known(look_alikes=rest)
        return replace(known, look_alikes=rest)

    def _trained(self, learn: Events, seed: int, attacks: Sequence[CorpusSession]) -> Release:
        tasks = [session.task for session in learn.sessions]
        gathered = (
            Gathered(record, tasks[row]) for record, row in zip(learn.records, learn.session.tolist(), strict=True)
        )
        events = arrange(gathered, self._settings.core.future_ms)
        made = train(
            events,
            self._embedder,
            self._embedder.space_id,
            self._settings,
            seed=seed,
            labelled=True,
            processes=self._processes,
            effort=self._effort,
            again=self._again,
            tagger=self._tagger,
            attacks=attack_texts(attacks, self._embedder, self._settings) if attacks else None,
            progress=self._progress,
        )
        self._held_out = events, made
        return made.release

    def _heard(self, release: Release, learn: Events) -> Release:
        core = Core(self._settings, release, self._embedder)
        run(core, learn.records)
        names, warm = core.export_tenants()
        # Tenants that nothing was heard of are still as the release left them.
        others = [name for name in release.warm_rows if name not in set(names)]
        rows = [release.warm_rows[name] for name in others]
        warm = {
            name: np.concatenate([column, release.warm[name][rows]]) if rows else column
            for name, column in warm.items()
        }
        return replace(release, warm=warm, warm_rows={name: row for row, name in enumerate([*names, *others])})


class Tidegate:
    """The product as it would be in service.

    Parameters
    ----------
    name
        Of the system.
    product
        Whose release judges.
    """

    def __init__(self, name: str, product: Product) -> None:
        self.name = name
        self._product = product

    def fit(self, learn: Events, seed: int, attacks: Sequence[CorpusSession] = ()) -> None:
        """Train the release."""
        self._product.fit(learn, seed, attacks)

    def judge(self, events: Events) -> Judged:
        """Judge with it."""
        said = self._product.said(events)
        return _judged(events, said, self._product.release.calibration, self._product.nominal)


class Without:
    """The product less some signals: the same models, which have learned the same.

    They are ordinary on every event, and the tails of what the signals come to together are fitted again on the
    held-out sessions, without them. What the models of one signal do for another stays: text that is known to a tenant
    by its novelty is no surprise in its role.

    Parameters
    ----------
    name
        Of the system.
    product
        Whose release judges.
    kinds
        The signals' places among `KINDS`.
    """

    def __init__(self, name: str, product: Product, kinds: Sequence[int]) -> None:
        self.name = name
        self._product = product
        self._kinds = list(kinds)
        self._calibration: Calibration | None = None

    def fit(self, learn: Events, seed: int, attacks: Sequence[CorpusSession] = ()) -> None:
        """Train the release, and calibrate it without the signals."""
        self._product.fit(learn, seed, attacks)
        self._calibration = self._product.without(self._kinds)

    @property
    def release(self) -> Release:
        """The product's, calibrated without the signals."""
        if self._calibration is None:
            raise ValueError("a system must be fitted before it judges. A bug.")
        return replace(self._product.release, calibration=self._calibration)

    def judge(self, events: Events) -> Judged:
        """Judge with what is left."""
        said = self._product.said(events)
        p = said.p.copy()
        # All others are as they were: no signal's own tail knows of another.
        p[:, self._kinds] = 1
        return _judged(events, replace(said, p=p), self.release.calibration, self._product.nominal)


def said_alone(events: Events, release: Release, settings: Settings, embedder: Embedder) -> Said:
    """What `release` says of the events (n) of sessions that do not know of each other.

    A session would otherwise find its tenant one session older, its API key used a moment ago, and its time moved on by
    those judged before it. So each has a partition of its own, whose tenants begin at their warm rows.
    """
    begun = time.perf_counter()
    p = np.ones((len(events), len(KINDS)))
    eligible = np.zeros(p.shape, np.bool_)
    newcomer, heard = np.zeros((2, len(events)), np.bool_)
    shown, showing_seconds = [""] * len(events), 0.0

    def watch(scored: Scored, _: Outcome) -> None:
        at = scored.live.offset
        p[at], heard[at] = scored.scores.p, True
        # Of each event, as any may be its session's strangest; a service does it for findings alone.
        nonlocal showing_seconds
        since = time.perf_counter()
        for place, (event, row) in enumerate(zip(at.tolist(), scored.placed.live.tolist(), strict=True)):
            evidence = anomaly(scored, row, place).evidence
            shown[event] = evidence[0].text if evidence else ""
        showing_seconds += time.perf_counter() - since
        eligible[at], newcomer[at] = scored.scores.eligible, scored.scores.newcomer

    core = Core(settings, release, embedder, learning=False, watch=watch)
    for part in _parts(events.session):
        place = np.cumsum(np.r_[0, np.diff(events.session[part]) != 0]).tolist()
        core.step(InputBatch([_placed(events.records[at], number, at) for number, at in zip(place, part, strict=True)]))
        for number in range(place[-1] + 1):
            core.drop(number)
    if not heard.all():
        raise ValueError(f"no event may be there twice; {int((~heard).sum())} of {len(events)} are. A bug.")
    seconds = time.perf_counter() - begun - showing_seconds
    return Said(p, eligible, newcomer, shown, seconds, _alone_ms(events, release, settings, embedder))


def _alone_ms(events: Events, release: Release, settings: Settings, embedder: Embedder) -> list[float]:
    """What the core takes for each event of some sessions (`some_sessions`)."""
    core = Core(settings, release, embedder, learning=False)
    took: list[float] = []
    for session in some_sessions(events.session, len(events.sessions)):
        for at in session:
            begun = time.perf_counter()
            core.step(InputBatch([_placed(events.records[at], 0, at)]))
            took.append(1000 * (time.perf_counter() - begun))
        core.drop(0)
    return took


def some_sessions(session: NDArray[np.int64], sessions: int) -> list[list[int]]:
    """Rows of the events of whole sessions, evenly spread, with about `ALONE` events in all.

    Parameters
    ----------
    session
        (n,) of each event, 0 to `sessions` - 1.

    Examples
    --------
    >>> some_sessions(np.array([0, 1, 0, 2]), 3)
    [[0, 2], [1], [3]]
    >>> few = some_sessions(np.repeat(np.arange(1000), 6), 1000)
    >>> len(few), few[0], few[-1]
    (50, [0, 1, 2, 3, 4, 5], [5880, 5881, 5882, 5883, 5884, 5885])
    """
    order = np.argsort(session, kind="stable")
    starts = np.searchsorted(session[order], np.arange(sessions + 1))
    chosen = evenly(sessions, -(-ALONE * sessions // max(len(session), 1)))
    return [order[starts[at] : starts[at + 1]].tolist() for at in chosen.tolist()]


def _parts(session: NDArray[np.int64]) -> Iterator[list[int]]:
    """Events of whole sessions, session after session, not too many at once."""
    order = np.argsort(session, kind="stable")
    part: list[int] = []
    held = 0
    for own in np.split(order, np.flatnonzero(np.diff(session[order])) + 1):
        if part and (held == _SESSIONS_AT_ONCE or len(part) + len(own) > _EVENTS_AT_ONCE):
            yield part
            part, held = [], 0
        part += own.tolist()
        held += 1
    if part:
        yield part


def _placed(record: Record, partition: int, offset: int) -> Record:
    return Record(record.topic, partition, offset, record.timestamp_ms, record.key, record.value)


def _judged(events: Events, said: Said, calibration: Calibration, nominal: float) -> Judged:
    """By the least of the combined p-values, or rather by their surprise, which has no floor."""
    begun = time.perf_counter()
    level = calibration.surprise(said.p, said.eligible, said.newcomer)[1]
    counted = np.where(said.eligible, said.p, 1.0)
    cause, least = counted.argmin(axis=1).tolist(), counted.min(axis=1, initial=1.0).tolist()
    signal = [KINDS[kind] if low < 1 else "" for kind, low in zip(cause, least, strict=True)]
    seconds = said.seconds + time.perf_counter() - begun
    p = probability(level)
    return judged_by_strangest(events, level, p, nominal, signal, seconds, said.shown, said.alone_ms)
