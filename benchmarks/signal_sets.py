"""What each set of signals costs, and what a transformer that looks again costs and buys.

    python -m benchmarks.signal_sets

A release is trained for each setting of the transformer, on the sample's ten benign days and its labelled attacks.
Speed is that of one thread, from normalised events, embedding included, each repetition on a fresh core; with a
transformer on the first events alone, which it makes slow. Sessions are those of the sample's live days, as `make demo`
streams them: how many attacks are found, and how many benign ones are flagged.
"""

import argparse
import os
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

# One thread is what is measured; BLAS reads this when it is loaded.
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import orjson
from rich.console import Console

from benchmarks.score import WATCHED
from benchmarks.stages import Stages
from benchmarks.workload import EVENTS_TOPIC, PARTITIONS, litellm, normalised
from models.embedder import StaticEmbedder
from sample.records import LIVE, mixed
from schemas.corpus_records import Truth
from stream.config import DecisionSettings, Settings
from stream.core import Core
from stream.inputs import InputBatch
from stream.record import Record
from stream.release import Release
from stream.runtime.embedders import looking_again
from stream.runtime.release_store import load_release
from stream.steps.ingest import IngestStep
from stream.steps.route import Router
from tidegate.demo.__main__ import SESSION_FPR
from tidegate.demo.release import sample_release

BATCH = 2000
SETTINGS = {
    "all but the transformer": {"TIDEGATE_TRANSFORMER__MODE": "off"},
    "all, the transformer from log-odds 4 on": {
        "TIDEGATE_TRANSFORMER__MODE": "gated",
        "TIDEGATE_TRANSFORMER__GATE": "4",
    },
    "all, the transformer from log-odds 2 on": {
        "TIDEGATE_TRANSFORMER__MODE": "gated",
        "TIDEGATE_TRANSFORMER__GATE": "2",
    },
    "all, the transformer on all that tools return": {"TIDEGATE_TRANSFORMER__MODE": "all"},
}
LATER_STAGES = ("role surprise, known attacks", "provenance", "volume", "drift")
"""Of the stages of `benchmarks.score`: what novelty and sequence alone would not need."""


@dataclass(frozen=True, slots=True)
class Row:
    """One set of signals."""

    signals: str
    events_per_s: float
    looked_again: float
    """Share of tools' segments that the transformer read."""
    found: str
    flagged: str


def main() -> None:
    """Print the table, and write it to --out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--events", type=int, default=1000, help="scored with a transformer (default: 1000)")
    parser.add_argument("--out", type=Path, default=Path("out/bench/signal_sets"))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    console = Console(stderr=True)
    events = normalised(litellm())
    rows: list[Row] = []
    for number, (name, variables) in enumerate(SETTINGS.items()):
        console.print(f"{number + 1} of {len(SETTINGS)}: {name}")
        folder = given.out / str(number)
        folder.mkdir(exist_ok=True)
        release = load_release(sample_release(console, folder, variables), Settings())
        if release.texts.second is None:
            rows += _plain(name, release, events, given.repetitions)
        else:
            release = looking_again(release, Settings(), StaticEmbedder.load(device="cpu").vocabulary)
            rows.append(_looking(name, release, events[: given.events], given.repetitions))
    slowest = min(row.events_per_s for row in rows)
    print(f"\nevents of {statistics.mean(len(event.value or b'') for event in events) / 1024:.1f} KiB, one thread\n")
    print("| signals | events/s | ratio | tools' segments read again | attack sessions found | benign flagged |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row.signals} | {row.events_per_s:,.0f} | {row.events_per_s / slowest:.1f} | {row.looked_again:.1%} "
            f"| {row.found} | {row.flagged} |"
        )
    (given.out / "table.json").write_bytes(orjson.dumps(rows, option=orjson.OPT_INDENT_2))


def _plain(name: str, release: Release, events: list[Record], repetitions: int) -> list[Row]:
    """All signals without a transformer; and novelty and sequence, the same runs less the others' stages."""
    whole, reduced = [], []
    for _ in range(repetitions):
        stages = Stages()
        begun = time.perf_counter()
        with stages.watching(WATCHED):
            _score(Settings(), release, events)
        seconds = time.perf_counter() - begun
        whole.append(len(events) / seconds)
        reduced.append(len(events) / (seconds - sum(stages.seconds[stage] for stage in LATER_STAGES)))
    return [
        Row("novelty and sequence", statistics.median(reduced), 0.0, "", ""),
        Row(name, statistics.median(whole), 0.0, *_sessions(release)),
    ]


def _looking(name: str, release: Release, events: list[Record], repetitions: int) -> Row:
    rates = []
    for _ in range(repetitions):
        begun = time.perf_counter()
        _score(Settings(), release, events)
        rates.append(len(events) / (time.perf_counter() - begun))
    share = release.texts.looked_again / max(release.texts.judged, 1)
    return Row(name, statistics.median(rates), share, *_sessions(release))


def _score(settings: Settings, release: Release, events: list[Record]) -> list[bytes]:
    """Score records of the events."""
    core = Core(settings, release, StaticEmbedder.load(device="cpu"))
    scores: list[bytes] = []
    for at in range(0, len(events), BATCH):
        scores += [record.value or b"" for record in core.step(InputBatch(events[at : at + BATCH])).scores]
    return scores


def _sessions(release: Release) -> tuple[str, str]:
    """Attack sessions found and benign ones flagged, each of how many."""
    ingest = IngestStep(Router(PARTITIONS), format="auto")
    truths: dict[str, Truth] = {}
    offsets = [0] * PARTITIONS
    events: list[Record] = []
    for number, (time_ms, raw, truth) in enumerate(mixed(LIVE)):
        truths[truth.event_id] = truth
        for event in ingest.step([Record("raw", 0, number, time_ms, None, raw)]).events:
            offset = offsets[event.partition]
            events.append(Record(EVENTS_TOPIC, event.partition, offset, time_ms, event.key, event.value))
            offsets[event.partition] += 1
    settings = Settings(decision=DecisionSettings(session_fpr=float(SESSION_FPR)))
    found = set()
    for value in _score(settings, release, events):
        score = orjson.loads(value)
        if score["decision"] == "finding":
            found.add(_session(truths[score["event_id"]]))
    cells = []
    for attack in (True, False):
        own = {_session(truth) for truth in truths.values() if (truth.label == "attack") is attack}
        cells.append(f"{len(own & found)} of {len(own)} ({len(own & found) / len(own):.1%})")
    return cells[0], cells[1]


def _session(truth: Truth) -> tuple[str | None, str]:
    return truth.tenant, truth.session


if __name__ == "__main__":
    main()
