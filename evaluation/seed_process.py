"""A seed of an evaluation from its first protocol to its last, so that seeds can be judged side by side."""

from __future__ import annotations

import os
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from pathlib import Path
from threading import Thread

import msgspec
from threadpoolctl import threadpool_limits

from evaluation.corpus import Corpus, read_corpus
from evaluation.parts import Parts
from evaluation.protocols.stream import run_stream
from evaluation.protocols.verdicts import PROTOCOL as STREAM
from evaluation.report.write import EXCERPTS, Excerpt
from evaluation.seed_run import SeedRun, parts_of, trials_of
from evaluation.systems.registry import LABELLED, PRODUCT, SYSTEMS, Shared, chosen, taking_part
from models.training.quantised import threads_of_torch
from schemas.corpus_records import hex_of
from stream.config import Settings
from stream.release import Release
from stream.runtime.embedders import as_configured, load_embedder, load_tagger, load_transformer
from stream.runtime.release_store import load_release
from stream.training.texts import Again


@dataclass(frozen=True, slots=True)
class Order:
    """What all seeds of an evaluation are judged by: plain values, as other processes take it."""

    settings: Settings
    corpus: Path
    arrivals: Path | None
    out: Path
    embedder: str | None
    release: Path | None
    stream_events: int
    protocols: tuple[str, ...]
    begun: float
    """By the monotonic clock, which processes share."""
    systems: frozenset[str] | None = None
    """Those that are wanted; None: all."""

    @classmethod
    def of(cls, settings: Settings, given: Namespace, protocols: tuple[str, ...], begun: float) -> Order:
        """What a command line orders."""
        where = (given.corpus, given.arrivals, given.out, given.embedder, given.release, given.stream_events)
        return cls(settings, *where, protocols, begun, chosen(given.systems.split(",")) if given.systems else None)

    @property
    def parts(self) -> Parts:
        """What is finished."""
        return Parts(self.out / "parts")

    def names(self, place: int, seed: int, *, released: bool) -> list[str]:
        """Names of a seed's parts, in the order of the report."""
        names: list[str] = []
        for protocol in self.protocols:
            for trial in trials_of(protocol):
                names += parts_of(trial, seed, place, released=released, chosen=self.systems).values()
            if protocol == STREAM:
                names.append(self.stream_part(seed))
        return names

    def missing(self, place: int, seed: int, *, released: bool, labelled: bool) -> list[str]:
        """Names of a seed's parts that are not finished, of the product that learns labels or of all others."""
        names = self.names(place, seed, released=released)
        return [name for name in names if name.endswith(f".{LABELLED}") == labelled and not self.parts.has(name)]

    def stream_part(self, seed: int) -> str:
        """The part of a seed's two weeks, which all systems share."""
        wanted = "all" if self.systems is None else hex_of("systems", *sorted(self.systems), size=8)
        return f"{STREAM}.{seed}.{wanted}"

    def tell(self, what: str) -> None:
        """Show that something begins."""
        print(f"{time.monotonic() - self.begun:7.1f} s  {what}", file=sys.stderr, flush=True)


def judge(order: Order, seeds: Sequence[int], *, released: bool) -> None:
    """Judge what `seeds` have not finished: one after another, or as many at once as there are processors.

    What learns labels comes last: it is trained for each fold, and takes as long as all else.

    Raises
    ------
    TidegateError
        Of the first seed that fails; others end what they are at.
    """
    waiting = [
        (place, seed, labelled)
        for labelled in (False, True)
        for place, seed in enumerate(seeds)
        if order.missing(place, seed, released=released, labelled=labelled)
    ]
    at_once = min(len(waiting), len(os.sched_getaffinity(0)))
    if at_once < 2:
        for place, seed, labelled in waiting:
            judge_seed(order, place, seed, labelled=labelled)
        return
    # Started anew: a fork of a process that has run threaded code of torch can wait for ever.
    with ProcessPoolExecutor(at_once, get_context("spawn"), _end_with_parent) as pool:
        running = [pool.submit(judge_seed, order, place, seed, labelled=labelled) for place, seed, labelled in waiting]
        try:
            for done in as_completed(running):
                done.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _end_with_parent() -> None:
    """Let this process end when the one that began it is gone, killed or not: nobody waits for what it judges."""
    parent = parent_process()
    if parent is not None:
        ended = parent.sentinel
        Thread(target=lambda: (wait([ended]), os._exit(1)), name="end-with-parent", daemon=True).start()


def judge_seed(order: Order, place: int, seed: int, *, labelled: bool) -> None:
    """Judge what a seed has not finished, of `LABELLED` or all others; the how-manieth it is, from 0, is its `place`.

    Products of matrices take one thread, as how many there are decides their last bits: a seed says the same beside
    others, by itself, and after what a process did before.
    """
    with threadpool_limits(1, user_api="blas"), threads_of_torch(1):
        _judge_seed(order, place, seed, labelled)


def _judge_seed(order: Order, place: int, seed: int, labelled: bool) -> None:
    made = shared_by(order)
    shared = made()
    released = shared.release is not None
    corpus = read_corpus(order.corpus)
    missing, done = order.missing(place, seed, released=released, labelled=labelled), 0

    def step(what: str) -> None:
        nonlocal done
        done += 1
        order.tell(f"[{done}/{len(missing)}] {what}")

    # Not buffered: what other seeds write at the same time comes between lines, never into one.
    with (order.out / EXCERPTS).open("ab", buffering=0) as said:
        encoder = msgspec.json.Encoder()

        def excerpt(one: Excerpt) -> None:
            said.write(encoder.encode(one) + b"\n")

        trials = [trial for protocol in order.protocols for trial in trials_of(protocol)]
        wanted = order.systems or SYSTEMS.keys()
        judging = wanted & {LABELLED} if labelled else wanted - {LABELLED}
        one = SeedRun(corpus, seed, place, shared.settings, made, order.parts, step, excerpt, judging)
        one.run(trials, released=released)
        if order.stream_part(seed) in missing:
            step(f"{STREAM}, seed {seed}")
            _stream(corpus, seed, place, made(), order, released)


def shared_by(order: Order) -> Callable[[], Shared]:
    """What makes systems anew, with the embedder and the release that were asked for."""
    settings = order.settings
    if order.embedder:
        settings = replace(settings, embedder=replace(settings.embedder, name=order.embedder))
    embedder = load_embedder(settings.embedder)
    release: Release | None = None
    if order.release is not None:
        release = load_release(order.release, settings, embedder.space_id)
        release = as_configured(release, settings, embedder.vocabulary)
    gate = settings.transformer.threshold
    again = Again(load_transformer(settings.transformer, embedder.vocabulary), gate) if gate is not None else None
    tagger = load_tagger(settings, embedder.vocabulary)
    return partial(Shared, settings, embedder, release=release, again=again, tagger=tagger)


def _stream(corpus: Corpus, seed: int, place: int, shared: Shared, order: Order, released: bool) -> None:
    names = taking_part(STREAM, place, released=released, systems=order.systems)
    names.remove(PRODUCT)
    systems = [SYSTEMS[name].make(shared) for name in names]
    if order.arrivals is None:
        raise ValueError("two weeks need arrival traces; got none. A bug.")
    rows, facts = run_stream(
        corpus,
        order.arrivals,
        seed,
        order.stream_events,
        shared.settings,
        shared.embedder,
        systems,
        product=shared.product,
        progress=lambda what: order.tell(f"  {what}"),
    )
    order.parts.put(order.stream_part(seed), rows, facts)
