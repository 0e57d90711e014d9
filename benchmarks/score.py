"""Scoring on one thread: from normalised events, and from LiteLLM bytes.

    python -m benchmarks.score --release out/demo/release

Medians over repetitions, each on a fresh core with empty caches. Beside the core: the same core without the token
tagger, which is a transformer, and given one event at a time, and what a user would pick instead, river's
HalfSpaceTrees called for every event on the mean embedding of its last message. The ratio is the figure; events/s are
this machine's.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

# One thread is what is measured; BLAS reads this when it is loaded.
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import orjson

import stream.core as core_module
from benchmarks.stages import Stages
from benchmarks.workload import ingest_step, litellm, normalised
from models.embedder import StaticEmbedder
from models.novelty import Novelty
from models.text_models import TextModels
from stream.config import Settings
from stream.core import Core
from stream.inputs import InputBatch
from stream.record import Record
from stream.release import Release
from stream.runtime.release_store import load_release
from stream.steps.content import ContentReader
from stream.steps.drift import DriftStep
from stream.steps.report import ReportStep
from stream.steps.score import ScoreStep
from stream.steps.volume import VolumeStep

WATCHED: list[tuple[str, ModuleType | type, str]] = [
    ("decode", core_module, "decode"),
    ("time, duplicates", core_module, "timed"),
    ("sessions, new content", core_module, "find_runs"),
    ("sessions, new content", core_module, "find_new_content"),
    ("segments, tokens, embedding, words", ContentReader, "read"),
    ("role surprise, known attacks", TextModels, "score"),
    ("provenance", core_module, "obeyed"),
    ("volume", VolumeStep, "observe"),
    ("volume", VolumeStep, "score"),
    ("volume", VolumeStep, "learn"),
    ("volume", VolumeStep, "store"),
    ("drift", DriftStep, "observe"),
    ("drift", DriftStep, "hear"),
    ("drift", DriftStep, "learn"),
    ("drift", DriftStep, "store"),
    ("features, windows", core_module, "features"),
    ("features, windows", core_module, "windows"),
    ("novelty", Novelty, "score"),
    ("learning", ScoreStep, "_learn"),
    ("sequence, calibration, decision", ScoreStep, "score"),
    ("state rows", Core, "_store_sessions"),
    ("score records, findings", ReportStep, "report"),
]
"""Stages as the table names them, and what of the code takes their time."""


def main() -> None:
    """Print the tables, and write them to --out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--release", type=Path, default=Path("out/demo/release"))
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("out/bench/score.json"))
    given = parser.parse_args()
    settings = Settings()
    release = load_release(given.release, settings)
    untagged = replace(release, texts=release.texts.without_tagger())
    raw = litellm()
    events = normalised(raw)
    stages = Stages()
    few = events[:2000]
    times = given.repetitions
    rows = {
        "normalised events, batches of 2,000": _rate(times, events, lambda: _score(settings, release, events, 2000)),
        "the same, all signals without the token tagger": _rate(
            times, events, lambda: _score(settings, untagged, events, 2000)
        ),
        "LiteLLM bytes, batches of 2,000": _rate(times, raw, lambda: _from_bytes(settings, release, raw)),
        "normalised events, one at a time": _rate(times, few, lambda: _score(settings, release, few, 1)),
        "river HalfSpaceTrees on embeddings": _rate(times, few, lambda: _half_space_trees(few)),
    }
    with stages.watching(WATCHED):
        begun = time.perf_counter()
        _score(settings, release, events, 2000)
        watched = time.perf_counter() - begun
    slowest = min(rows.values())
    size = statistics.mean(len(event.value or b"") for event in events) / 1024
    print(f"{len(events)} events of {size:.1f} KiB, one thread\n")
    print("| from | events/s | ratio |\n|---|---|---|")
    for name, rate in rows.items():
        print(f"| {name} | {rate:,.0f} | {rate / slowest:.1f} |")
    print("\n| where the time goes (normalised events) | µs an event |\n|---|---|")
    print(stages.table(len(events), watched))
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_bytes(orjson.dumps({"events_per_s": rows, "stage_s": stages.seconds}, option=orjson.OPT_INDENT_2))


def _rate(repetitions: int, events: list[Record], run: Callable[[], None]) -> float:
    """Median events/s of `run` over `events`."""
    rates = []
    for _ in range(repetitions):
        begun = time.perf_counter()
        run()
        rates.append(len(events) / (time.perf_counter() - begun))
    return statistics.median(rates)


def _score(settings: Settings, release: Release, events: list[Record], size: int) -> None:
    core = Core(settings, release, StaticEmbedder.load(device="cpu"))
    for at in range(0, len(events), size):
        core.step(InputBatch(events[at : at + size]))


def _from_bytes(settings: Settings, release: Release, raw: list[Record]) -> None:
    core, ingest = Core(settings, release, StaticEmbedder.load(device="cpu")), ingest_step()
    offset = 0
    for at in range(0, len(raw), 2000):
        events = []
        for event in ingest.step(raw[at : at + 2000]).events:
            events.append(Record("events", event.partition, offset, raw[at].timestamp_ms, event.key, event.value))
            offset += 1
        core.step(InputBatch(events))


def _half_space_trees(events: list[Record]) -> None:
    from river.anomaly import HalfSpaceTrees

    embedder = StaticEmbedder.load(device="cpu")
    trees: Any = HalfSpaceTrees(seed=7)
    for event in events:
        body = orjson.loads(event.value or b"")
        texts = [part.get("text") or part.get("response") or "" for part in body["messages"][-1]["parts"]]
        vector = embedder.embed(texts).mean(axis=0)
        point = dict(enumerate(((vector + 1) / 2).tolist()))
        trees.score_one(point)
        trees.learn_one(point)


if __name__ == "__main__":
    main()
