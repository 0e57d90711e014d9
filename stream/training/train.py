"""Training, from events to everything that scoring needs. Reads top to bottom."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.autoencoder import SequenceBank
from models.text_models import TextModels
from models.token_tagger import TokenTagger
from models.training.volume import fit_volume
from stream.config import Settings
from stream.errors import StateError, UsageError
from stream.release import Release
from stream.state.schema import (
    KINDS,
    KNOWN_ATTACK,
    LIMITS,
    ROLE_SURPRISE,
    TOOL_KNOWN_ATTACK,
    VOLUME,
    WEIGHTS,
    WEIGHTS_WITHOUT_EXAMPLES,
)
from stream.steps.content import TOOL, USER, Embeds
from stream.training.attacks import AttackTexts
from stream.training.calibrate import Known, Rings, calibrate, flagged_share, mature_events, rings
from stream.training.delegations import written_requests
from stream.training.effort import Effort
from stream.training.events import FOLDS, TrainingEvents
from stream.training.examples import Likenesses, examples, likenesses
from stream.training.passes import collect, held_out_scores, silent_calibration, unnamed_release, warm_rows
from stream.training.pupils import measured
from stream.training.said import TrainingTexts, collect_texts
from stream.training.sift import sifted
from stream.training.teaching import HardNegatives, Lessons, Teacher, Teaching, teach
from stream.training.texts import Again, SecondLooks, fitted_texts, looking, require_enough
from stream.training.voices import voices

_DAY_MS = 86_400_000
Progress = Callable[[str], None]
"""Told what begins."""


@dataclass(frozen=True, slots=True)
class Trained:
    """A release that has no name yet, and what was measured on held-out sessions."""

    release: Release
    metrics: dict[str, float]
    scores: NDArray[np.float64]
    """(n, kinds) signals of the events as held out, that the calibration was fitted on."""
    known: Known
    """What the calibration knew of attacks beside the events."""
    lineage: dict[str, str | int | float] = field(default_factory=dict)
    """Of the teacher, where there was one."""


def train(
    events: TrainingEvents,
    embedder: Embeds,
    space_id: str,
    settings: Settings,
    *,
    seed: int,
    labelled: bool,
    processes: int = 1,
    effort: Effort = Effort(),
    base: Release | None = None,
    adapters_only: bool = False,
    backbone: Mapping[str, NDArray[Any]] | None = None,
    attacks: AttackTexts | None = None,
    teacher: Teacher | None = None,
    hard: HardNegatives | None = None,
    again: Again | None = None,
    tagger: TokenTagger | None = None,
    progress: Progress = lambda _: None,
) -> Trained:
    """Fit the bank, calibrate on held-out sessions, and leave each tenant with what it has said.

    Held out are sessions from the fits of all that reads text or courses. What tenants' calls usually amount to, and
    the units of that, is of all sessions; and a task that several tenants hold may be in a fit by another tenant's.

    The same events, seed and machine give the same arrays to the bit, whatever `processes` is. Each part that is held
    out is scored by a bank like the final one, adapters and all, that has not seen it.

    Parameters
    ----------
    labelled
        Whether somebody said that all of it is benign: then everything is learned and counts in full. Else that is so
        of the sessions that `events` says it of.
    processes
        Fits side by side.
    base
        A release to go on from: its classifier of known attacks stays where nothing new is there to teach another, and
        with it the tails of what it says, as it has learned what would be held out.
    adapters_only
        Take its backbone as it is and fit adapters alone. Sessions that it was fitted on are not held out from it: what
        calibrates should have come after.
    backbone
        A bank's arrays whose backbone is taken as it is, as with `adapters_only`, while all else is learned anew.
    attacks
        Labelled ones, to learn a classifier of known attacks from; it is calibrated on the benign events as all else.
    teacher
        A language model that is fine-tuned on these attacks first, in processes of its own, and teaches the classifier.
    hard
        Segments that were flagged and judged benign, or a tool's beside an attack; the classifier learns them with more
        weight.
    again
        A transformer that looks at segments again; what it adds is learned and calibrated as it will be added.
    tagger
        Reads what role surprise finds strange once more; calibrated with it, and part of the release.

    Raises
    ------
    UsageError
        When no session can be held out, as there is only one, or one task; and for several `processes` beside CUDA.
    """
    if processes > 1 and _cuda_is_in_use():
        # A forked process cannot use the CUDA context of its parent: it would fail after minutes.
        raise UsageError(
            f"--nproc must be 1 while the embedder or the transformer is on a CUDA device; got {processes}. "
            "Leave it out, or set TIDEGATE_EMBEDDER__DEVICE=cpu and TIDEGATE_TRANSFORMER__DEVICE=cpu."
        )
    records, fold, tenants, learning = events.records, events.fold, events.tenants, events.learning
    if len(np.unique(fold[learning])) < 2:
        raise UsageError(
            "the input must hold at least two sessions of different tasks, as calibration needs some that the fit has "
            "not seen; it holds one. Name more --input."
        )
    progress(f"reading {len(learning):,} events of {len(events.session_tenant):,} sessions as the scorer does")
    # Sessions that do not teach are met as strangers by every fit: they are scored with their fold, and that is all.
    taught = [records[i] for i in learning.tolist()]
    session = events.session[learning]
    shown = collect(taught, settings, embedder, space_id)
    seen = _Seen(shown.windows, shown.lengths, events.session_tenant[session], fold[learning], len(tenants))
    mature = mature_events(events, settings.learning.grace_sessions)[learning]
    volume = fit_volume(shown.baseline, shown.volume[mature], session[mature])
    said = collect_texts(events, embedder, settings)
    if attacks is not None:
        attacks, said = sifted(attacks, said, embedder.vocabulary, seed=seed, judged=hard)
    if base is not None and adapters_only:
        backbone = base.bank.arrays
    looks = _looks(said, again, seed, progress)
    spoken = voices(embedder, settings.redaction.policy, seed=seed)
    requests = written_requests(embedder, settings.redaction.policy, seed=seed)
    # The base's classifier stays where nothing is there to teach another.
    shows = settings.learning.examples
    teaches = attacks is not None or (shows and hard is not None and not adapters_only)
    kept = base if base is not None and base.texts.attacks is not None and not teaches else None
    written = examples(embedder, settings.redaction.policy, seed=seed) if shows and kept is None else None
    lessons, teaching = _lessons(said, attacks, embedder.vocabulary, seed, teacher, hard, progress)

    def texts_of(part: TrainingTexts, without: int | None) -> TextModels:
        second = looks.without(without) if looks is not None else None
        lesson, told = lessons.without(without), written.without(without) if written is not None else None
        base_of_it, beside = kept.texts if kept is not None else None, spoken.without(without)
        return fitted_texts(
            part, embedder.vocabulary, seed, base_of_it, attacks, second, lesson, beside, told, tagger, requests, effort
        )

    def held_out(number: int) -> tuple[NDArray[np.float64], Likenesses]:
        progress(f"fitting without part {number + 1} of {FOLDS}, and scoring that part")
        rest, part = np.flatnonzero(seen.fold != number), np.flatnonzero(fold == number)
        bank = SequenceBank(_fitted(seen.of(rest), seed, effort, backbone))
        texts = looking(texts_of(said.without(number), number), again)
        heard, unheard = [taught[i] for i in rest.tolist()], [records[i] for i in part.tolist()]
        scores = held_out_scores(heard, unheard, bank, texts, volume, settings, embedder, space_id, tenants)
        likened = likenesses(texts, written.held_out(number)) if written is not None else {}
        return scores, {KINDS[ROLE_SURPRISE]: spoken.surprises(texts, number), **likened}

    def whole() -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]:
        progress("fitting on everything")
        texts = texts_of(said, None)
        return _fitted(seen, seed, effort, backbone), texts.to_arrays()

    numbers = np.unique(fold).tolist()
    jobs: list[Callable[[], Any]] = [whole, *(lambda number=number: held_out(number) for number in numbers)]
    (arrays, text_arrays), *parts = _done(jobs, processes)
    scores = np.full((len(records), len(KINDS)), np.nan)
    for number, (part, _) in zip(numbers, parts, strict=True):
        scores[fold == number] = part
    known = _known(kept, [own for _, own in parts])
    if volume.anyone is None:
        # Nothing tells conversations of another kind from floods: volume must not weigh as if it did.
        known = replace(known, weights={**known.weights, KINDS[VOLUME]: WEIGHTS_WITHOUT_EXAMPLES[KINDS[VOLUME]]})
    progress("calibrating, and leaving each tenant with what it has said")
    grace_sessions = settings.learning.grace_sessions
    calibration, scores = calibrate(events, scores, grace_sessions=grace_sessions, labelled=labelled, known=known)
    own = rings(events, scores, calibration)
    bank, texts = SequenceBank(arrays), looking(TextModels.from_arrays(text_arrays), again)
    # Of benign input everything is learned; of input that nobody has judged, what the release finds strange is not.
    judge = unnamed_release(space_id, bank, texts, volume, silent_calibration() if labelled else calibration, tenants)
    names, warm = warm_rows(taught, judge, settings, embedder)
    if names != tenants:
        raise StateError(f"every tenant must have a warm row beside its adapter; got {names} of {tenants}. A bug.")
    return Trained(
        unnamed_release(
            space_id,
            bank,
            texts,
            volume,
            calibration,
            names,
            _unsurprised(_with_rings(warm, own)),
            sessions_per_day=_sessions_per_day(events),
        ),
        {
            f"held_out_flagged_at_{fpr}": round(flagged_share(events, scores, calibration, own, fpr), 6)
            for fpr in (0.01, 0.05)
        }
        | {"tenants_adapted": _adapted(arrays)}
        | (teaching.metrics if teaching is not None else {}),
        scores,
        known,
        teaching.lineage if teaching is not None else {},
    )


def _known(kept: Release | None, likened: Sequence[Likenesses]) -> Known:
    """What is known of attacks: as the base knew it where its classifier stays, else by what each fold held out."""
    held_out = {name: np.concatenate([own[name] for own in likened]) for name in likened[0]}
    look_alikes = {name: values for name, values in held_out.items() if len(values)}
    if kept is not None:
        tails = {KINDS[kind]: kept.calibration.tails[kind] for kind in (KNOWN_ATTACK, TOOL_KNOWN_ATTACK)}
        written = kept.texts.direction is not None
    else:
        tails, written = {}, KINDS[KNOWN_ATTACK] in look_alikes
    return Known(WEIGHTS, LIMITS, look_alikes, tails) if written else Known(tails=tails)


def _lessons(
    said: TrainingTexts,
    attacks: AttackTexts | None,
    vocabulary: Sequence[str],
    seed: int,
    teacher: Teacher | None,
    hard: HardNegatives | None,
    progress: Progress,
) -> tuple[Lessons, Teaching | None]:
    """What the classifier learns beside labels, and what its teacher said."""
    taught = None
    if teacher is not None and attacks is not None:
        require_enough(attacks)
        taught = teach(said, attacks, vocabulary, teacher, seed=seed, hard=hard, progress=progress)
    if taught is not None and attacks is not None:
        progress("measuring the teacher and its student on what neither has learnt from")
        taught = replace(taught, metrics=taught.metrics | measured(said, attacks, taught, vocabulary, seed))
    return Lessons(said, taught, hard), taught


def _looks(said: TrainingTexts, again: Again | None, seed: int, progress: Progress) -> SecondLooks | None:
    """What a transformer makes of the segments; None without one, or where users or tools have said nothing."""
    if again is None or not all((said.role == role).any() for role in (USER, TOOL)):
        return None
    progress("the transformer reads what it will learn from")
    return SecondLooks(said, again, seed)


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a bank is fitted on: windows (n)."""

    windows: NDArray[np.int8]
    lengths: NDArray[np.int64]
    tenant: NDArray[np.int64]
    fold: NDArray[np.int64]
    tenants: int

    def of(self, at: NDArray[np.intp]) -> _Seen:
        return _Seen(self.windows[at], self.lengths[at], self.tenant[at], self.fold[at], self.tenants)


def _fitted(
    seen: _Seen, seed: int, effort: Effort, backbone: Mapping[str, NDArray[Any]] | None
) -> dict[str, NDArray[Any]]:
    """A bank's arrays, with an adapter for each tenant."""
    # Torch takes seconds to import: a mistake on the command line is told before that.
    from models.training.adapters import FitAdapters, fit_adapters
    from models.training.autoencoder import Fit, fit

    if backbone is None:
        how = Fit(epochs=effort.epochs, steps_min=effort.steps_min)
        backbone = fit(seen.windows, seen.lengths, seed=seed, how=how)
    adapters = fit_adapters(
        seen.windows,
        seen.lengths,
        seen.tenant,
        backbone,
        group=seen.fold,
        tenants=seen.tenants,
        seed=seed,
        how=FitAdapters(steps=effort.adapter_steps),
    )
    return {**backbone, **adapters}


def _sessions_per_day(events: TrainingEvents) -> dict[str, float]:
    """Sessions a day by tenant."""
    days = max((events.last_ms - events.first_ms) / _DAY_MS, 1.0)
    counts = events.sessions_of_tenants.tolist()
    return {tenant: round(count / days, 6) for tenant, count in zip(events.tenants, counts, strict=True)}


def _adapted(arrays: Mapping[str, NDArray[Any]]) -> int:
    """How many tenants' adapters are not zero."""
    moved = [array.any(axis=(1, 2)) for name, array in arrays.items() if name.endswith(".up")]
    return int(np.logical_or.reduce(moved).sum())


def _with_rings(warm: dict[str, NDArray[Any]], own: Rings) -> dict[str, NDArray[Any]]:
    """What a tenant heard while it learned would make its own past look more ordinary than its future."""
    replaced: dict[str, NDArray[Any]] = {
        "maxima": own.maxima,
        "maxima_count": own.counts,
        "location": own.location,
        "scale": own.scale,
    }
    return {name: replaced[name].astype(column.dtype) if name in replaced else column for name, column in warm.items()}


def _unsurprised(warm: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """How surprised a tenant's own signals are is watched anew: what was heard so far was fitted, and says less.

    Traffic that models have learned surprises them less than any that comes after it, and of labelled input nothing is
    judged while it is heard: a tenant's first days in service would be drift.
    """
    heard = dict(warm)
    for name in ("drift_detectors", "drift_counts", "drift_sums"):
        heard[name] = heard[name].copy()
        heard[name][:, : len(KINDS)] = 0
    return heard


_JOBS: list[Callable[[], Any]] = []
"""What forked processes find here; their input is too large to be sent."""


def _cuda_is_in_use() -> bool:
    """Whether this process has a CUDA context; without torch it has none."""
    torch = sys.modules.get("torch")
    return torch is not None and bool(torch.cuda.is_initialized())


def _done(jobs: Sequence[Callable[[], Any]], processes: int) -> list[Any]:
    """Results of `jobs`, in their order."""
    if processes < 2:
        return [job() for job in jobs]
    _JOBS[:] = jobs
    try:
        with ProcessPoolExecutor(min(processes, len(jobs)), mp_context=get_context("fork")) as pool:
            return list(pool.map(_do, range(len(jobs))))
    finally:
        _JOBS.clear()


def _do(number: int) -> Any:
    return _JOBS[number]()
