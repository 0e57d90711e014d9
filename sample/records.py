"""The sample as the gateway records that it stands for, each with what is known about it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import orjson

from schemas.corpus import Call, CorpusSession, decode_session
from schemas.corpus_kong import Dialect, kong_truth, to_kong
from schemas.corpus_otel import otel_truth, otlp_protobuf, to_otel
from schemas.corpus_records import Truth, litellm_truth, native_truth, to_litellm, to_native
from schemas.corpus_timeline import timeline, unit
from stream.sources.lines import read_lines

HERE = Path(__file__).parent
TRAIN = HERE / "train.jsonl.gz"
"""Benign sessions of ten days."""
LIVE = HERE / "live.jsonl.gz"
"""Benign sessions and attacks of the four days that follow."""
ATTACKS = HERE / "attacks.jsonl.gz"
"""Labelled attacks to train a classifier on, none of which says what one of the live ones says."""

Format = Literal["litellm", "native"]


def records(path: Path, format: Format = "litellm") -> Iterator[tuple[int, dict[str, Any], Truth]]:
    """Start in ms, record and truth of every call in the corpus file `path`, in the order of time.

    Raises
    ------
    ValueError
        When a line is no session, or sessions are not sorted by start.
    """
    for timed in timeline(_sessions(path)):
        session, call, time_ms = timed.session, timed.call, timed.time_ms
        if format == "litellm":
            yield time_ms, to_litellm(session, call, time_ms), litellm_truth(session, call)
        else:
            yield time_ms, to_native(session, call, time_ms), native_truth(session, call)


def mixed(path: Path) -> Iterator[tuple[int, bytes, Truth]]:
    """As `records`, but as the tenants' different gateways write them: each has one of LiteLLM, OpenTelemetry and Kong.

    OpenTelemetry's are OTLP in JSON or protobuf; Kong's bodies are of one of three dialects, streamed or whole.
    """
    yield from as_gateways(_sessions(path))


def as_gateways(sessions: Iterable[CorpusSession]) -> Iterator[tuple[int, bytes, Truth]]:
    """As `mixed`, of sessions in the order of their start."""
    for timed in timeline(sessions):
        session, call, time_ms = timed.session, timed.call, timed.time_ms
        yield time_ms, *_BY_GATEWAY[gateway_of(session.tenant)](session, call, time_ms)


def gateway_of(tenant: str | None) -> str:
    """Which gateway's format the tenant's calls are logged in, in `mixed`."""
    return tuple(_BY_GATEWAY)[int(unit("gateway", tenant) * len(_BY_GATEWAY))]


def _sessions(path: Path) -> Iterator[CorpusSession]:
    return (decode_session(line) for line in read_lines(path) if line.strip())


def _litellm(session: CorpusSession, call: Call, time_ms: int) -> tuple[bytes, Truth]:
    return orjson.dumps(to_litellm(session, call, time_ms)), litellm_truth(session, call)


def _otel(session: CorpusSession, call: Call, time_ms: int) -> tuple[bytes, Truth]:
    record = to_otel(session, call, time_ms)
    packed = unit("encoding", session.tenant) < 0.5
    return otlp_protobuf(record) if packed else orjson.dumps(record), otel_truth(session, call)


def _kong(session: CorpusSession, call: Call, time_ms: int) -> tuple[bytes, Truth]:
    dialect = _DIALECTS[int(unit("dialect", session.tenant) * len(_DIALECTS))]
    streamed = unit("stream", session.session) < 0.5
    return orjson.dumps(to_kong(session, call, time_ms, dialect, streamed=streamed)), kong_truth(session, call)


_DIALECTS: tuple[Dialect, ...] = ("chat", "responses", "anthropic")
_BY_GATEWAY = {"litellm": _litellm, "otel": _otel, "kong": _kong}
