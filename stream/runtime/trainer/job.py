"""One retrain request, from its plan to the release in service: stages, each passed over once its output is there.

Killed anywhere, the job goes on at its next start and ends with the release it would have ended with.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from numpy.typing import NDArray

from schemas.label import Label
from schemas.manifest import InputFile, LabelsUsed, Manifest, Teacher, TrainingInput
from schemas.retrain import POPULATION, RetrainRequest
from stream.config import Settings
from stream.errors import UsageError
from stream.release import Release
from stream.runtime.embedders import as_configured, load_embedder, load_tagger, load_transformer
from stream.runtime.release.registry import Registry
from stream.runtime.release_store import CARD, load_release, read_manifest, write_release
from stream.runtime.topic_reader import TopicReader
from stream.runtime.train_command import EFFORT, git_revision, hashed
from stream.runtime.trainer import captured
from stream.runtime.trainer.folder import JobFolder
from stream.runtime.trainer.gating import GATE_JSON, Gated, audited, gate
from stream.runtime.trainer.plan import Plan, find_champion, make_plan, planned
from stream.runtime.trainer.publish import announce_once, promote_once
from stream.training.attack_words import attack_texts
from stream.training.attacks import collect_attacks, joined
from stream.training.capture import capture
from stream.training.card import Card
from stream.training.dataset import DataSet, assemble
from stream.training.events import TrainingEvents, arrange
from stream.training.gather import Tally, gather_files
from stream.training.suspects import without_suspects
from stream.training.teaching import HardNegatives
from stream.training.teaching import Teacher as TeacherOf
from stream.training.texts import TooFewAttacks
from stream.training.train import Trained, train

if TYPE_CHECKING:
    from models.embedder import StaticEmbedder
    from stream.training.attacks import AttackTexts
    from stream.training.audit import Audit
    from stream.training.texts import Again

_LOG = logging.getLogger(__name__)

PLAN, KEPT, CHALLENGER, FITTED, GATED = "plan.json", "kept", "challenger", "fitted.json", "gate"
RELEASE, RELEASED, ANNOUNCED, PROMOTED, DONE = (
    "release",
    "released.json",
    "announced.json",
    "promoted.json",
    "done.json",
)
FAILED, TEACHER = "failed.json", "teacher"
STAGES = ("plan", "read", "fit", "gate", "release", "announce", "promote")
"""In their order."""
Told = Callable[[str], None]
"""Told which stage begins."""


class Fitted(msgspec.Struct, frozen=True, kw_only=True):
    """What the fits said, and of what."""

    data: TrainingInput
    metrics: dict[str, float]
    counts: dict[str, int]


class Released(msgspec.Struct, frozen=True, kw_only=True):
    """The release, as it lies in the registry."""

    release: str
    path: str


class Announced(msgspec.Struct, frozen=True, kw_only=True):
    """What was said of it."""

    decision: str
    passed: bool


class Promoted(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the scorers were asked to serve it."""

    promoted: bool
    why_not: str | None


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """A job that is finished for good."""

    request_id: str
    release: str
    passed: bool
    promoted: bool
    decision: str
    seconds: dict[str, float]
    """Of the stages that ran since the last start."""


class Failed(msgspec.Struct, frozen=True, kw_only=True):
    """A job that will not be tried again until somebody asks again."""

    request_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class _Learned:
    """What a job learns from, before it has."""

    data: DataSet
    audit: Audit | None
    labels: list[Label]


class Job:
    """A request's job.

    Parameters
    ----------
    told
        Called as each stage begins.
    """

    def __init__(self, request: RetrainRequest, settings: Settings, told: Told = lambda _: None) -> None:
        self.request = request
        self._given = settings
        self.folder = JobFolder(Path(settings.trainer.directory), request.request_id)
        self._told = told
        self._seconds: dict[str, float] = {}

    def run(self) -> Done:
        """Do what is left of it.

        Raises
        ------
        UsageError, StateError
            When it cannot be done as it is; the next start would fail alike.
        EnvironmentFault
            When the broker is away or a topic is missing.
        """
        for name, output, do in (
            ("plan", PLAN, self._plan),
            ("read", KEPT, self._read),
            ("fit", FITTED, self._fit),
            ("gate", GATED, self._gate),
            ("release", RELEASED, self._release),
            ("announce", ANNOUNCED, self._announce),
            ("promote", PROMOTED, self._promote),
        ):
            # What the last stages need is small; all else is let go of once the release is in the registry.
            if self.folder.has(output) or (name in STAGES[1:4] and self.folder.has(RELEASED)):
                continue
            self._told(name)
            began = time.monotonic()
            do()
            self._seconds[name] = round(time.monotonic() - began, 3)
            _LOG.info("job %s: %s in %.1f s", self.request.request_id, name, self._seconds[name])
        if not self.folder.has(DONE):
            self.folder.write(DONE, self._done())
        self.folder.remove(KEPT, CHALLENGER, RELEASE, TEACHER)
        return self.folder.read(DONE, Done)

    # -- stages --------------------------------------------------------------------------------------------------------

    def _plan(self) -> None:
        with closing(TopicReader(self._given, "trainer")) as reader:
            now_ms = time.time_ns() // 1_000_000
            plan = make_plan(self.request, reader, self._given, now_ms=now_ms, git_revision=git_revision())
        self.folder.write(PLAN, plan)

    def _read(self) -> None:
        with closing(TopicReader(self._given, "trainer")) as reader, self.folder.making(KEPT) as made:
            captured.keep(made, self.plan, reader)

    def _fit(self) -> None:
        plan, settings, embedder = self.plan, self.settings, self._embedder
        learned = self._learned
        champion, parent = self._champion
        adapters_only = self.request.subject != POPULATION
        if adapters_only and champion is None:
            raise UsageError(
                f"request {plan.request.request_id} asks for the adapter of {self.request.subject!r}, and nothing is "
                "in service whose backbone it could be fitted on. Ask for the population, or promote a release."
            )
        tally = Tally()
        files = [Path(path) for path in settings.trainer.corpus]
        gathered = [*gather_files(files, "corpus", settings, tally)] if files else []
        known = [replace(event, believed=True) for event in gathered]
        events = arrange([*known, *learned.data.training], settings.core.future_ms)
        labelled = self._labelled(learned.data)
        taught = events
        if labelled is not None:
            taught = without_suspects(events, labelled, embedder, settings, seed=plan.seed)
        suspects = len(events.session_tenant) - len(taught.session_tenant)
        if suspects:
            self._progress(f"{suspects:,} sessions that nobody judged speak like confirmed attacks, and teach nothing")
        attacks = None if adapters_only else joined(self._corpus_attacks(files), labelled)
        hard = self._mistaken(learned.data)

        tagger = load_tagger(settings, embedder.vocabulary)

        def fitted(attacks: AttackTexts | None, *, teacher: bool) -> Trained:
            return train(
                taught,
                embedder,
                embedder.space_id,
                settings,
                seed=plan.seed,
                labelled=False,
                processes=self._given.trainer.nproc,
                effort=EFFORT,
                base=champion if adapters_only or _goes_on(parent, attacks, events) else None,
                adapters_only=adapters_only,
                backbone=champion.bank.arrays if champion is not None and keeps_backbone(self.request) else None,
                attacks=attacks,
                teacher=self._teacher() if attacks is not None and teacher else None,
                hard=hard,
                again=self._again(),
                tagger=tagger,
                progress=self._progress,
            )

        try:
            trained = fitted(attacks, teacher=True)
        except TooFewAttacks as error:
            if attacks is None:
                raise
            # Beside written examples a single label teaches, though not a teacher.
            written = settings.learning.examples
            lacking = "no teacher, as" if written else "the classifier in service stays, as"
            self._progress(f"{lacking} there are too few attacks: {error}")
            trained = fitted(attacks if written else None, teacher=False)
        metrics = {name: value for name, value in trained.metrics.items() if not name.startswith("teacher_")}
        if labelled is not None:
            metrics["suspect_sessions"] = suspects
        data = self._input(taught, learned.data, files, tally, _teacher_of(trained), suspects)
        write_release(
            self.folder.path / CHALLENGER,
            trained.release,
            data=data,
            metrics=metrics,
            parent=parent.name if parent is not None else None,
            seed=plan.seed,
            git_revision=plan.git_revision,
            settings=self._given,
        )
        self.folder.write(FITTED, Fitted(data=data, metrics=metrics, counts=learned.data.counts))

    def _gate(self) -> None:
        learned = self._learned
        with self.folder.making(GATED) as made:
            gate(
                made, learned.data, learned.labels, learned.audit, self._champion, self._challenger(), self.settings,
                self._embedder,
            )  # fmt: skip

    def _release(self) -> None:
        fitted = self.folder.read(FITTED, Fitted)
        gated = Gated.read(self.folder.path / GATED)
        challenger = self._challenger()
        parent = self._champion[1]
        metrics = fitted.metrics | gated.metrics
        card = Card(
            data=fitted.data,
            metrics=metrics,
            parent=parent.name if parent is not None else None,
            space_id=challenger.space_id,
            feature_schema=challenger.feature_schema,
            state_schema=challenger.state_schema,
            seed=self.plan.seed,
            reasons=[reason.detail for reason in self.request.reasons],
            decision=gated.decision,
            slices=gated.slices,
            counts=fitted.counts,
        )
        out = self.folder.path / RELEASE
        manifest = write_release(
            out,
            challenger,
            data=fitted.data,
            metrics=metrics,
            parent=parent.name if parent is not None else None,
            seed=self.plan.seed,
            git_revision=self.plan.git_revision,
            settings=self._given,
            more={CARD: card.text().encode(), GATE_JSON: (self.folder.path / GATED / GATE_JSON).read_bytes()},
        )
        path = Registry(self._given).add(out)
        self.folder.write(RELEASED, Released(release=manifest.name, path=str(path)))

    def _announce(self) -> None:
        path, manifest = self.released
        gated = Gated.read(self.folder.path / GATED)
        decision = gated.decision
        if gated.passed and not self.settings.trainer.promote:
            decision += " It waits to be promoted: trainer.promote is off."
        announce_once(self._given, manifest, path, decision=decision, passed=gated.passed)
        self.folder.write(ANNOUNCED, Announced(decision=decision, passed=gated.passed))

    def _promote(self) -> None:
        path, manifest = self.released
        said = self.folder.read(ANNOUNCED, Announced)
        if not said.passed:
            why_not: str | None = said.decision
        elif not self.settings.trainer.promote:
            why_not = "trainer.promote is off"
        else:
            why_not = promote_once(self._given, manifest, path, self.plan, why=said.decision)
        if why_not is not None:
            _LOG.warning("release %s is not promoted: %s", manifest.name, why_not)
        self.folder.write(PROMOTED, Promoted(promoted=why_not is None, why_not=why_not))

    def _done(self) -> Done:
        said, promoted = self.folder.read(ANNOUNCED, Announced), self.folder.read(PROMOTED, Promoted)
        return Done(
            request_id=self.request.request_id,
            release=self.folder.read(RELEASED, Released).release,
            passed=said.passed,
            promoted=promoted.promoted,
            decision=said.decision,
            seconds=self._seconds,
        )

    # -- what stages share ---------------------------------------------------------------------------------------------

    @cached_property
    def plan(self) -> Plan:
        """As it was pinned."""
        return self.folder.read(PLAN, Plan)

    @cached_property
    def settings(self) -> Settings:
        """Those of the plan, where a release depends on them."""
        return planned(self._given, self.plan)

    @property
    def released(self) -> tuple[Path, Manifest]:
        """Where the release is, and its manifest."""
        path = Path(self.folder.read(RELEASED, Released).path)
        return path, read_manifest(path, self._given)

    @cached_property
    def _embedder(self) -> StaticEmbedder:
        return load_embedder(self.settings.embedder)

    @cached_property
    def _champion(self) -> tuple[Release | None, Manifest | None]:
        champion = self.plan.champion
        if champion is None:
            return None, None
        path = find_champion(champion, self._given)
        release = load_release(path, self._given, self._embedder.space_id)
        return as_configured(release, self.settings, self._embedder.vocabulary), read_manifest(path, self._given)

    def _challenger(self) -> Release:
        release = load_release(self.folder.path / CHALLENGER, self._given, self._embedder.space_id)
        return as_configured(release, self.settings, self._embedder.vocabulary)

    @cached_property
    def _learned(self) -> _Learned:
        kept = captured.kept(self.folder.path / KEPT, self._given.topics.events)
        read = capture(kept.events, self.settings.core.future_ms)
        self._progress(f"{len(read.records):,} events, {len(kept.labels):,} labels; dividing them")
        audit, refused = audited(kept.labels, read, kept.found, self._embedder, self.settings, self.plan.seed)
        champion, parent = self._champion
        data = assemble(
            read,
            kept.found,
            kept.labels,
            self.plan.labels,
            self.settings,
            refused=refused,
            heard_after_ms=parent.data.last_event_ms if parent is not None else None,
            surprise=self._surprise if champion is not None else None,
        )
        return _Learned(data, audit, kept.labels)

    def _surprise(self, texts: Sequence[str]) -> NDArray[np.floating]:
        """As the champion's n-grams say: which of an attack's sentences is the loudest is asked of nothing else."""
        champion = self._champion[0]
        if champion is None or champion.texts.role_surprise is None:
            return np.full(len(texts), np.nan)
        return champion.texts.role_surprise.score(self._embedder.encode(texts), champion.texts.ngrams)

    def _corpus_attacks(self, files: Sequence[Path]) -> AttackTexts | None:
        return collect_attacks(files, self._embedder, self.settings) if files else None

    def _labelled(self, data: DataSet) -> AttackTexts | None:
        return attack_texts(data.attacks, self._embedder)

    def _mistaken(self, data: DataSet) -> HardNegatives | None:
        """What was found and judged benign, and what tools said beside attacks."""
        harmless = [*data.mistaken, *data.beside]
        if not harmless:
            return None
        bags = self._embedder.encode([segment.text for segment in harmless])
        return HardNegatives(bags, [segment.group for segment in harmless])

    def _teacher(self) -> TeacherOf | None:
        trainer = self.settings.trainer
        if trainer.teacher == "none":
            return None
        from models.training.teacher import Tuning

        tuning = Tuning(
            epochs=trainer.teacher_epochs,
            examples_max=trainer.teacher_examples_max,
            # As it was planned: what comes of other numbers of processes differs in its last digits.
            nproc=max(count for count in range(1, trainer.nproc + 1) if Tuning().batch % count == 0),
            device=self._given.transformer.device.partition(":")[0],
            weights=Path(self._given.transformer.path) if self._given.transformer.path else None,
        )
        return TeacherOf(self.folder.path / TEACHER, tuning)

    def _again(self) -> Again | None:
        threshold = self.settings.transformer.threshold
        if threshold is None:
            return None
        from models.second_look import Remembering
        from stream.training.texts import Again

        return Again(Remembering(load_transformer(self.settings.transformer, self._embedder.vocabulary)), threshold)

    def _input(
        self,
        events: TrainingEvents,
        data: DataSet,
        files: Sequence[Path],
        tally: Tally,
        teacher: Teacher | None,
        suspects: int,
    ) -> TrainingInput:
        labels: LabelsUsed | None = data.labels if data.counts["labels"] else None
        hashes: list[InputFile] = [hashed(path) for path in files]
        return TrainingInput(
            files=hashes,
            ranges=[*self.plan.events, *self.plan.scores],
            events=len(events.records),
            sessions=len(events.session_tenant),
            tenants=len(events.tenants),
            left_out=data.counts["sessions"] - data.counts["training"] + tally.left_out + suspects,
            dead_letters=data.counts["unreadable"] + tally.dead_letters.total() + events.unreadable,
            first_event_ms=events.first_ms,
            last_event_ms=events.last_ms,
            events_sha256=events.sha256,
            labels=labels,
            teacher=teacher,
            request_id=self.request.request_id,
        )

    def _progress(self, what: str) -> None:
        _LOG.info("job %s: %s", self.request.request_id, what)


def keeps_backbone(request: RetrainRequest) -> bool:
    """Whether the champion's sequence backbone stays, as verdicts alone ask for a training.

    They say nothing of sequences, and one that is fitted anew finds other sessions strange than those that analysts
    have confirmed, by chance alone. Drift, age and people ask for everything anew.
    """
    return {reason.cause for reason in request.reasons} <= {"labels", "precision"}


def _goes_on(parent: Manifest | None, attacks: AttackTexts | None, events: TrainingEvents) -> bool:
    """Whether the champion's classifier helps: only where it learned from nothing that is learned from again.

    Held out from the fits, such sessions would be no strangers. Without attacks to learn from it stays all the same.
    """
    if parent is None:
        return False
    return attacks is None or parent.data.last_event_ms < events.first_ms


def _teacher_of(trained: Trained) -> Teacher | None:
    """What a manifest says of the teacher; None where there was none."""
    told = trained.lineage
    if not told:
        return None
    metrics = {name: value for name, value in trained.metrics.items() if name.startswith("teacher_")}
    return Teacher(
        base=str(told["teacher"]),
        sha256=str(told["teacher_sha256"]),
        examples=int(told["teacher_examples"]),
        metrics=metrics,
    )
