"""What each set of signals costs and finds, and what a transformer that looks again costs and buys.

    python -m benchmarks.signal_sets

A release is trained for each setting of the transformer, on the sample's ten benign days and its labelled attacks; it
is kept beside the table and used again while nothing it is made of has changed.

Speed is that of one thread, from normalised events in batches of 2,000, embedding included: medians over repetitions,
each on a fresh core, and in each all sets take turns. A transformer is slow on a CPU and is given the last events
alone, of the live days: of the benign ones trained on it would read next to nothing behind a gate. Its ratio is to all
other signals on the same events. Sessions are those of the sample's live days, as native events, at
the demo's operating point.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

# One thread is what is measured; BLAS reads this when it is loaded.
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np
import orjson
from rich.console import Console

import stream.core as core_module
import stream.steps.content as content_module
from benchmarks.workload import litellm, normalised
from models.embedder import StaticEmbedder
from models.provenance import Provenance, Words
from models.text_models import TextModels
from models.wordpiece import TokenBags
from sample.records import LIVE, records
from schemas.corpus_records import Truth
from stream.config import DecisionSettings, Settings, TransformerSettings
from stream.core import Core
from stream.record import OutRecord, Record
from stream.release import Release
from stream.runtime.embedders import as_configured
from stream.runtime.release_store import load_release
from stream.steps.provenance import Obeyed
from stream.steps.sessions import Runs
from stream.training.passes import run
from tidegate.demo.__main__ import SESSION_FPR
from tidegate.demo.release import sample_release
from tidegate.demo.tally import rows

OFF = TransformerSettings("off", device="cpu")
FEWER, OTHERS = "novelty and sequence", "all but the transformer"
SETS = {
    FEWER: ("off", OFF),
    OTHERS: ("off", OFF),
    "all, the transformer from log-odds 4 on": ("gate-4", replace(OFF, mode="gated", gate=4.0)),
    "all, the transformer from log-odds 2 on": ("gate-2", replace(OFF, mode="gated", gate=2.0)),
    "all, the transformer on all that tools return": ("all", replace(OFF, mode="all")),
}
"""Signals, with the folder of the release and the setting that it is trained with."""


@dataclass(frozen=True, slots=True)
class Row:
    """One set of signals."""

    signals: str
    events: int
    events_per_s: float
    ratio: float
    """To `OTHERS` on the same events."""
    looked_again: float | None
    """Share of the tools' segments of these events that the transformer read."""
    looked_again_live: float | None
    """The same share of the live days, all of them."""
    attacks: tuple[int, int] | None
    """Sessions found, of how many."""
    benign: tuple[int, int] | None
    """Sessions flagged, of how many."""

    def cells(self) -> str:
        """As a row of the table."""
        shares = (self.looked_again, self.looked_again_live)
        read = " | ".join("" if share is None else f"{share:.1%}" for share in shares)
        speed = f"{self.events:,} | {self.events_per_s:,.0f} | {self.ratio:.2f}"
        return f"| {self.signals} | {speed} | {read} | {_of(self.attacks)} | {_of(self.benign)} |"


def _of(sessions: tuple[int, int] | None) -> str:
    return "" if sessions is None else f"{sessions[0]} of {sessions[1]} ({sessions[0] / sessions[1]:.1%})"


@dataclass(frozen=True, slots=True)
class Scorer:
    """A set of signals, ready to score."""

    name: str
    settings: Settings
    release: Release
    embedder: StaticEmbedder

    def scores(self, events: list[Record], settings: Settings | None = None) -> list[OutRecord]:
        """Score records of the events, by a fresh core."""
        with _only_novelty_and_sequence() if self.name == FEWER else nullcontext():
            return run(Core(settings or self.settings, self.release, self.embedder), events)

    def rate(self, events: list[Record]) -> float:
        """Events/s."""
        begun = time.perf_counter()
        self.scores(events)
        return len(events) / (time.perf_counter() - begun)


def main() -> None:
    """Print the table, and write it to --out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--few", type=int, default=1000, help="events scored with a transformer (default: 1000)")
    parser.add_argument("--out", type=Path, default=Path("out/bench/signal_sets.json"))
    given = parser.parse_args()
    console = Console(stderr=True)
    scorers = [_scorer(console, name, given.out.with_suffix("")) for name in SETS]
    events = normalised(litellm())
    few = events[-given.few :]
    rates: dict[tuple[str, int], list[float]] = defaultdict(list)
    for number in range(given.repetitions):
        for scorer in scorers:
            for part in {FEWER: [events], OTHERS: [events, few]}.get(scorer.name, [few]):
                rates[scorer.name, len(part)].append(scorer.rate(part))
                console.print(f"repetition {number + 1}: {scorer.name}, {rates[scorer.name, len(part)][-1]:,.0f}/s")
    speed = {key: statistics.median(measured) for key, measured in rates.items()}
    table = []
    for scorer in scorers:
        console.print(f"live sessions: {scorer.name}")
        table.append(_row(scorer, events if scorer.name in (FEWER, OTHERS) else few, speed))
    size = statistics.mean(len(event.value or b"") for event in events) / 1024
    print(f"\nevents of {size:.1f} KiB, one thread; with a transformer the last {len(few):,}, of which the other")
    print(f"signals score {speed[OTHERS, len(few)]:,.0f}/s; sessions at a nominal {float(SESSION_FPR):.0%}\n")
    print("| signals | events | events/s | ratio | read again | of all live | attacks found | benign flagged |")
    print("|---|---|---|---|---|---|---|---|")
    for row in table:
        print(row.cells())
    print("\nread again: of the segments that tools returned, in the events whose speed is told and in all live ones")
    print(f"{FEWER}: no sessions, as the calibration is that of all signals, whose tails the two hardly reach")
    given.out.write_bytes(orjson.dumps(table, option=orjson.OPT_INDENT_2))


def _scorer(console: Console, name: str, out: Path) -> Scorer:
    """A set's release, trained if need be."""
    folder, transformer = SETS[name]
    console.print(f"release for {name}")
    (out / folder).mkdir(parents=True, exist_ok=True)
    variables = {"TIDEGATE_TRANSFORMER__MODE": transformer.mode, "TIDEGATE_TRANSFORMER__GATE": str(transformer.gate)}
    path = sample_release(console, out / folder, variables)
    settings, embedder = Settings(transformer=transformer), StaticEmbedder.load(device="cpu")
    release = as_configured(load_release(path, settings, embedder.space_id), settings, embedder.vocabulary)
    if name == FEWER:
        release = replace(release, texts=TextModels.silent())
    return Scorer(name, settings, release, embedder)


def _row(scorer: Scorer, events: list[Record], speed: dict[tuple[str, int], float]) -> Row:
    """Its figures; its sessions are scored here."""
    texts, rate = scorer.release.texts, speed[scorer.name, len(events)]
    judged, again = texts.judged, texts.looked_again
    sessions = (None, None) if scorer.name == FEWER else _sessions(scorer)
    read = again / judged if judged else None
    live = (texts.looked_again - again) / (texts.judged - judged) if judged else None
    return Row(scorer.name, len(events), rate, rate / speed[OTHERS, len(events)], read, live, *sessions)


def _sessions(scorer: Scorer) -> tuple[tuple[int, int], tuple[int, int]]:
    """Attack sessions found and benign ones flagged, each of how many."""
    captured = list(records(LIVE, "native"))
    raw = [Record("raw", 0, at, ms, None, orjson.dumps(value)) for at, (ms, value, _) in enumerate(captured)]
    settings = replace(scorer.settings, decision=DecisionSettings(session_fpr=float(SESSION_FPR)))
    scores = [orjson.loads(score.value) for score in scorer.scores(normalised(raw, "native"), settings)]
    findings = {score["event_id"] for score in scores if score["decision"] == "finding"}
    truths = {_session(truth): truth for _, _, truth in captured}
    kinds = rows(truths, {_session(truth) for _, _, truth in captured if truth.event_id in findings})
    attacks, benign = ((sum(row.flagged for row in part), sum(row.sessions for row in part)) for part in kinds)
    return attacks, benign


def _session(truth: Truth) -> tuple[str, str]:
    return str(truth.tenant), truth.gateway_session


def _silent(*_: Any) -> SimpleNamespace:
    """In the place of the volume and the drift step: hears nothing, says nothing, learns nothing."""
    return SimpleNamespace(
        observe=lambda *_: None,
        hear=lambda *_: None,
        score=lambda *_: (np.nan, 0.0),
        learn=lambda *_: [],
        store=lambda *_: np.zeros(0, np.int64),
    )


def _unheard(provenance: Provenance, runs: Runs, *_: Any) -> Obeyed:
    return Obeyed(np.full(len(runs.of_event), np.nan), provenance.empty(0))


def _wordless(bags: TokenBags, *_: Any) -> Words:
    texts = len(bags.offsets) - 1
    return Words(np.zeros((texts, 0), np.uint32), np.zeros((texts, 0), np.uint8))


@contextmanager
def _only_novelty_and_sequence() -> Iterator[None]:
    """Take out of the core what volume, provenance and drift do; a release's text models are another matter."""
    core: dict[str, Any] = {"VolumeStep": _silent, "DriftStep": _silent, "tool_calls": lambda _: None}
    core |= {"obeyed": _unheard, "store_told": lambda *_: None}
    # Words, and the values of tool calls, are read for provenance alone.
    content: dict[str, Any] = {"words": _wordless, "_values": lambda _: ""}
    with patch.multiple(core_module, **core), patch.multiple(content_module, **content):
        yield


if __name__ == "__main__":
    main()
