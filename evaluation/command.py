"""`tidegate evaluate`: how well this version detects, on any corpus of the documented layout."""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import msgspec

from evaluation.corpus import Corpus, read_corpus
from evaluation.parts import Parts, fingerprint
from evaluation.protocols.stream import run_stream
from evaluation.protocols.verdicts import PROTOCOL as STREAM
from evaluation.report.columns import SESSIONS
from evaluation.report.facts import Facts, write_facts
from evaluation.report.write import EXCERPTS, PAGE, Excerpt, rebuild
from evaluation.seed_run import SeedRun, parts_of, trials_of
from evaluation.systems.registry import PRODUCT, SYSTEMS, Shared, taking_part
from stream.config import Settings
from stream.errors import UsageError
from stream.release import Release
from stream.runtime.embedders import as_configured, load_embedder, load_transformer
from stream.runtime.release_store import load_release
from stream.training.texts import Again

PROTOCOLS = ("paired", "splice", "session", "hard_negatives", "slices", STREAM)


def run(settings: Settings, arguments: Namespace) -> int:
    """Judge the corpus's sessions and write `--out`.

    Raises
    ------
    TidegateError
        With the exit code that says what is wrong.
    """
    begun = time.monotonic()

    def progress(what: str) -> None:
        print(f"{time.monotonic() - begun:7.1f} s  {what}", file=sys.stderr, flush=True)

    chosen = protocols(arguments.only)
    arrivals: Path | None = arguments.arrivals
    if STREAM in chosen and arrivals is None:
        raise UsageError("--arrivals must name a folder of arrival traces, for the protocol stream. Or set --only.")
    if arguments.seeds < 1:
        raise UsageError(f"--seeds must be at least 1; got {arguments.seeds}.")
    made = _shared(settings, arguments)
    progress(f"reading {arguments.corpus}")
    corpus = read_corpus(arguments.corpus)
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    shared = made()
    inputs = [path for folder in (arguments.corpus, arrivals) if folder for path in folder.glob("*.jsonl*")]
    name = shared.release.name if shared.release is not None else ""
    whose = fingerprint(inputs, (repr(shared.settings), name, str(arguments.stream_events)))
    parts, resumed = Parts.open(out / "parts", whose)
    if resumed:
        progress("going on with what is finished of this evaluation")
    plan = Plan(chosen, range(arguments.seeds), released=shared.release is not None)
    left, done = sum(not parts.has(part) for part in plan.names()), 0

    def step(what: str) -> None:
        nonlocal done
        done += 1
        progress(f"[{done}/{left}] {what}")

    with (out / EXCERPTS).open("ab" if resumed else "wb") as said:
        encoder = msgspec.json.Encoder()

        def excerpt(one: Excerpt) -> None:
            said.write(encoder.encode(one) + b"\n")

        for place, seed in enumerate(plan.seeds):
            trials = [trial for protocol in chosen for trial in trials_of(protocol)]
            one = SeedRun(corpus, seed, place, shared.settings, made, parts, step, excerpt)
            one.run(trials, released=plan.released)
            if STREAM in chosen and arrivals is not None and not parts.has(stream_part(seed)):
                step(f"{STREAM}, seed {seed}")
                events = arguments.stream_events
                _stream(corpus, arrivals, seed, place, events, made(), parts, plan.released, progress)
    progress("putting it together")
    _write(
        out,
        parts,
        plan,
        Facts(nominal=shared.settings.decision.session_fpr, embedder=shared.settings.embedder.name, release=name),
    )
    report = rebuild(out, progress)
    for sentence in report["headline"]:
        print(sentence)
    print(f"{out / PAGE}; {time.monotonic() - begun:.0f} s")
    return 0


def _shared(settings: Settings, arguments: Namespace) -> Callable[[], Shared]:
    """What makes systems anew, with the embedder and the release that were asked for."""
    if arguments.embedder:
        settings = replace(settings, embedder=replace(settings.embedder, name=arguments.embedder))
    embedder = load_embedder(settings.embedder)
    release: Release | None = None
    if arguments.release is not None:
        release = load_release(arguments.release, settings, embedder.space_id)
        release = as_configured(release, settings, embedder.vocabulary)
    gate = settings.transformer.threshold
    again = Again(load_transformer(settings.transformer, embedder.vocabulary), gate) if gate is not None else None
    return partial(Shared, settings, embedder, release=release, again=again)


def _write(out: Path, parts: Parts, plan: Plan, head: Facts) -> None:
    """Rows and facts of all parts, as one."""
    names = plan.names()
    waiting = out / f".{SESSIONS}"
    with waiting.open("wb") as sessions:
        for rows in parts.rows(names):
            sessions.write(rows)
    waiting.replace(out / SESSIONS)
    write_facts(parts.facts(names, head), out)


class Plan:
    """The parts of an evaluation, in the order of the report.

    Parameters
    ----------
    released
        Whether a release is given.
    """

    def __init__(self, chosen: Sequence[str], seeds: Sequence[int], *, released: bool) -> None:
        self.chosen = chosen
        self.seeds = seeds
        self.released = released

    def names(self) -> list[str]:
        """Names of all parts."""
        names: list[str] = []
        for protocol in self.chosen:
            for place, seed in enumerate(self.seeds):
                for trial in trials_of(protocol):
                    names += parts_of(trial, seed, place, released=self.released).values()
                if protocol == STREAM:
                    names.append(stream_part(seed))
        return names


def protocols(only: str | None) -> list[str]:
    """The protocols that `--only` names, in their order; all without it.

    >>> protocols("stream,paired")
    ['paired', 'stream']

    Raises
    ------
    UsageError
        When it names another.
    """
    if only is None:
        return list(PROTOCOLS)
    wanted = [name.strip() for name in only.split(",") if name.strip()]
    if unknown := [name for name in wanted if name not in PROTOCOLS] or not wanted:
        raise UsageError(f"--only must name some of {', '.join(PROTOCOLS)}; got {unknown if wanted else only!r}.")
    return [name for name in PROTOCOLS if name in wanted]


def stream_part(seed: int) -> str:
    """The part of a seed's two weeks."""
    return f"{STREAM}.{seed}.all"


def _indented(progress: Callable[[str], None], what: str) -> None:
    progress(f"  {what}")


def _stream(
    corpus: Corpus,
    arrivals: Path,
    seed: int,
    place: int,
    events: int,
    shared: Shared,
    parts: Parts,
    released: bool,
    progress: Callable[[str], None],
) -> None:
    names = [name for name in taking_part(STREAM, place, released=released) if name != PRODUCT]
    systems = [SYSTEMS[name].make(shared) for name in names]
    rows, facts = run_stream(
        corpus,
        arrivals,
        seed,
        events,
        shared.settings,
        shared.embedder,
        systems,
        product=shared.product,
        progress=partial(_indented, progress),
    )
    parts.put(stream_part(seed), rows, facts)
