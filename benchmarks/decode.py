"""Decoding on one thread: gateways' bytes to normalised, redacted, routed events, by format.

    python -m benchmarks.decode

The sample's calls as each gateway would have logged them, medians over repetitions, each with empty caches: once as the
ingest step does it, once as decoders alone do, which split a record into calls with their messages still unread.
Seconds are of the processor, so that a machine with other work gives the same figures.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path

import orjson

from sample.records import LIVE
from schemas.corpus import Call, CorpusSession, decode_session
from schemas.corpus_kong import to_kong
from schemas.corpus_otel import otlp_batch, otlp_protobuf, to_otel
from schemas.corpus_records import to_litellm, to_native
from schemas.corpus_timeline import timeline
from schemas.gateways.detect import format_of
from stream.record import Record
from stream.sources.lines import read_lines
from stream.steps.ingest import IngestStep
from stream.steps.route import Router

Timed = tuple[CorpusSession, Call, int]
SPANS = 50
"""Calls in a batch of the Collector's, each with a span of other software beside it."""


def main() -> None:
    """Print the table, and write it to --out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("out/bench/decode.json"))
    given = parser.parse_args()
    calls = _calls()
    rows: dict[str, dict[str, float]] = {}
    print(f"{len(calls)} calls, one thread\n")
    print("| format | KiB a call | ingested events/s | decoded calls/s |\n|---|---|---|---|")
    for name, format, values in _workloads(calls):
        size = sum(map(len, values)) / len(calls) / 1024
        records = [Record("raw", 0, number, 0, None, value) for number, value in enumerate(values)]
        ingested = _rate(given.repetitions, len(calls), partial(_ingest, records, format))
        decoded = _rate(given.repetitions, len(calls), partial(_decode, values, format))
        rows[name] = {"kib": round(size, 2), "ingested_per_s": round(ingested), "decoded_per_s": round(decoded)}
        print(f"| {name} | {size:.1f} | {ingested:,.0f} | {decoded:,.0f} |")
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_bytes(orjson.dumps(rows, option=orjson.OPT_INDENT_2))


def _calls() -> list[Timed]:
    sessions = (decode_session(line) for line in read_lines(LIVE) if line.strip())
    return [(timed.session, timed.call, timed.time_ms) for timed in timeline(sessions)]


def _workloads(calls: list[Timed]) -> Iterator[tuple[str, str, list[bytes]]]:
    """Name, format and records of each workload."""
    yield "LiteLLM", "litellm", [orjson.dumps(to_litellm(*timed)) for timed in calls]
    yield "LiteLLM, format auto", "auto", [orjson.dumps(to_litellm(*timed)) for timed in calls]
    yield "native", "native", [orjson.dumps(to_native(*timed)) for timed in calls]
    spans = [to_otel(*timed) for timed in calls]
    yield "OTLP-JSON, a call a record", "otel", [orjson.dumps(record) for record in spans]
    held = iter(spans)
    batches = list(iter(lambda: list(islice(held, SPANS)), []))
    yield f"OTLP-JSON, {SPANS} calls a record", "otel", [orjson.dumps(otlp_batch(batch)) for batch in batches]
    yield f"OTLP protobuf, {SPANS} calls a record", "otel", [otlp_protobuf(otlp_batch(batch)) for batch in batches]
    yield "Kong, OpenAI Chat", "kong", [orjson.dumps(to_kong(*timed)) for timed in calls]
    yield "Kong, OpenAI Chat, streamed", "kong", [orjson.dumps(to_kong(*timed, streamed=True)) for timed in calls]
    yield "Kong, OpenAI Responses", "kong", [orjson.dumps(to_kong(*timed, "responses")) for timed in calls]
    yield (
        "Kong, Anthropic, streamed",
        "kong",
        [orjson.dumps(to_kong(*timed, "anthropic", streamed=True)) for timed in calls],
    )


def _rate(repetitions: int, events: int, run: Callable[[], int]) -> float:
    """Median events/s of `run`, which returns how many it made."""
    rates = []
    for _ in range(repetitions):
        begun = time.process_time()
        made = run()
        rates.append(events / (time.process_time() - begun))
        if made != events:
            raise SystemExit(f"{events} events were expected; got {made}")
    return statistics.median(rates)


def _ingest(records: list[Record], format: str) -> int:
    step = IngestStep(Router(8), format=format)
    return sum(len(step.step(records[at : at + 2000]).events) for at in range(0, len(records), 2000))


def _decode(values: list[bytes], format: str) -> int:
    decoder = format_of(format)
    return sum(hasattr(part, "messages") for value in values for part in decoder.decode(value))


if __name__ == "__main__":
    main()
