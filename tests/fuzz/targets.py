"""Every decoder of the project, with what must hold of it whatever comes: `check` returns what became of an input.

Anything else than an assertion's failure or an exception that escapes is fine, and counted by its name. What is allowed
to be raised is named here, decoder by decoder, and nothing besides.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import orjson

from models.novelty import Novelty
from schemas import dead_letter
from schemas.corpus import calls, decode_session, is_session
from schemas.corpus_records import to_litellm, to_native
from schemas.corpus_timeline import timeline
from schemas.dead_letter import REASONS
from schemas.event import decode_event
from schemas.gateways.bodies import read_answer, read_request
from schemas.gateways.call import Unreadable
from schemas.manifest import Manifest
from schemas.release import Release as Announcement
from schemas.retrain import RetrainRequest
from schemas.undecodable import UNDECODABLE
from stream.config import Settings
from stream.errors import DecodeError, StateError, UsageError
from stream.feedback.inputs import decode_input, encode_input, evidence_seen, finding_seen, verdict_of, verdict_seen
from stream.inputs import effect_of
from stream.journal import JournalPlan, read_entries
from stream.record import DeadLetter, OutRecord, Record, StateChange
from stream.runtime.controls import read_control
from stream.runtime.release_store import _name, _Refused, _release, read_manifest
from stream.runtime.settings import read_settings, rows
from stream.sources.file import FileSource, _event_time_ms
from stream.state.partition import CURSOR_KEY
from stream.state.rows import sealed
from stream.state.store import State
from stream.steps.decode import decode
from stream.steps.ingest import IngestStep
from stream.steps.route import Router
from stream.training.labels import latest_labels
from tests.doubles import WORDS, WordEmbedder
from tests.schemas.otlp_record import otlp_protobuf
from tests.stream.releases import release

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "schemas" / "examples"
PAYLOADS = ROOT / "tests" / "schemas" / "payloads"
NOW_MS = 1_795_304_830_000
GROWTH = 12
"""Bytes that an event may have for each byte of its record: each of them may be a control character in a text."""
SLACK = 6_000
"""And whatever the record: hashes, names, the skeleton."""


@dataclass(frozen=True, slots=True)
class Target:
    """A decoder: what it is called, what it is fed first, and what must hold."""

    name: str
    seeds: tuple[bytes, ...]
    check: Callable[[bytes], str]
    is_json: bool = True


# -- gateways' records -------------------------------------------------------------------------------------------------


class Ingest:
    """A record becomes events, a dead letter, or is counted as no call; and the events are what the scorer reads."""

    def __init__(self, format: str) -> None:
        self._step = IngestStep(Router(8), format=format, cache_bytes=1 << 20)
        self._forgetful = IngestStep(Router(8), format=format, cache_bytes=0)

    def __call__(self, data: bytes) -> str:
        record = Record("gateways.raw", 3, 7, NOW_MS, b"k", data)
        done = self._step.step([record])
        assert done.events or done.dead_letters or done.skipped, "a record is lost"
        assert len(done.dead_letters) <= 1
        again = self._forgetful.step([record])
        assert (done.events, done.dead_letters, done.skipped) == (again.events, again.dead_letters, again.skipped)
        for letter in done.dead_letters:
            _check_letter(letter, record)
        events = [_check_event(out) for out in done.events]
        assert sum(events) <= GROWTH * len(data) + SLACK * len(events), "an event is far larger than its record"
        if done.dead_letters:
            return f"dead letter {done.dead_letters[0].reason}"
        return "event" if events else "no call"


def _check_event(out: OutRecord) -> int:
    event = decode_event(out.value)
    assert decode_event(msgspec.json.encode(event)) == event
    assert orjson.loads(out.key)[0] == event.tenant
    assert 0 <= out.partition < 8
    batch, dead = decode([Record("genai.gateway.events.v1", out.partition, 1, NOW_MS, out.key, out.value)], 300_000)
    assert not dead, "the scorer refuses what ingest wrote"
    assert batch.heads[0].event_id == event.event_id == out.event_id
    return len(out.value)


def _check_letter(letter: DeadLetter, record: Record) -> None:
    assert letter.record is record
    assert letter.reason in REASONS
    assert len(letter.message.encode("utf-8", "surrogatepass")) < 8_000, "a message holds content"


def _check_reason(reason: str) -> None:
    assert reason in REASONS


def told(error: Exception) -> str:
    """What is refused is refused with a sentence."""
    assert len(str(error)) > 10
    return "refused"


def check_headers(data: bytes) -> str:
    """Headers of any names and values: kept in a dead letter, and a trace is one or none."""
    pieces = data.split(b"\n")
    given = tuple(
        (name.decode("utf-8", "replace"), value) for name, value in zip(pieces[::2], pieces[1::2], strict=False)
    )
    record = Record("t", 0, 1, NOW_MS, pieces[0], pieces[-1], given)
    trace = record.traceparent
    assert trace is None or len(trace) == 55
    told = dead_letter.headers(
        given, topic="t", partition=0, offset=1, reason="schema", message=data.decode("utf-8", "replace"),
        connector="c", step="s", stage="VALUE_CONVERTER", exception_class="E",
    )  # fmt: skip
    assert told[: len(given)] == given
    assert dict(told)["tg-reason"] == b"schema"
    assert all(len(value or b"") <= 4 * dead_letter.MESSAGE_MAX for name, value in told[len(given) :])
    sent = dead_letter.payload(
        data, key=None, headers=told, mode="raw", message_bytes_max=1_000, topic="t", partition=0, offset=1
    )
    assert sent == data or len(sent or b"") <= 300
    return "trace" if trace else "no trace"


def check_body(data: bytes) -> str:
    """A request's and an answer's body, as gateways log them."""
    said = []
    for read in (read_request, read_answer):
        try:
            read(data)
            said.append("read")
        except Unreadable as error:
            said.append(error.reason)
    return " ".join(said)


# -- Tidegate's own topics ---------------------------------------------------------------------------------------------


def check_events(data: bytes) -> str:
    """The events topic: a row of columns, or a dead letter."""
    record = Record("genai.gateway.events.v1", 0, 1, NOW_MS, None, data)
    batch, dead = decode([record], 300_000)
    assert len(batch.heads) + len(dead) == 1, "an event is lost"
    if dead:
        _check_letter(dead[0], record)
        return f"dead letter {dead[0].reason}"
    assert 0 <= batch.event_time_ms[0] <= NOW_MS + 300_000
    return "event"


def check_feedback(data: bytes) -> str:
    """Verdicts, findings and scores, as feedback reads them."""
    said = []
    for name, read in (
        ("verdict", lambda value: verdict_seen(verdict_of(value)[0], "unverified", NOW_MS)),
        ("finding", lambda value: finding_seen(value, NOW_MS)),
        ("evidence", lambda value: evidence_seen(value, NOW_MS)),
    ):
        try:
            seen = read(data)
        except DecodeError as error:
            _check_reason(error.reason)
            continue
        said.append(name)
        if seen is not None:
            assert decode_input(encode_input(seen)) == seen
    return " ".join(said) or "refused"


def check_controls(data: bytes) -> str:
    """A control has a place in the order whatever it holds, and can be journalled and read back."""
    known = read_control(Record("controls", 0, 7, NOW_MS, None, data))
    entry = orjson.dumps(
        {"partition": 0, "before_offset": 1, "seq": 0, "kind": "control", "control_offset": 7, "value": known.value},
        option=orjson.OPT_SORT_KEYS,
    )
    (read,) = read_entries([("journal[0]@0", entry)])
    assert effect_of(read.value) == effect_of(known.value)
    return "refused" if "refused" in known.value else str(known.value["kind"])


def check_journal(data: bytes) -> str:
    """An entry of a journal, and what a replay makes of it."""
    try:
        entries = read_entries([("journal[0]@0", data)])
        plan = JournalPlan.of(Settings(), entries, "r-1", {0: (0, 0)})
        for partition in plan.left():
            plan.take(partition)
    except StateError:
        return "refused"
    return "entry"


def check_released(data: bytes) -> str:
    """Announcements of releases, requests to retrain, and labels: each is one, or passed over."""
    said = []
    for kind in (Announcement, RetrainRequest):
        try:
            value = msgspec.json.decode(data, type=kind)
        except UNDECODABLE:
            continue
        assert msgspec.json.decode(msgspec.json.encode(value), type=kind) == value
        said.append(kind.__name__.lower())
    labels, unreadable = latest_labels([Record("labels", 0, 1, NOW_MS, b"k", data)])
    assert len(labels) + unreadable == 1
    return " ".join([*said, *("label" for _ in labels)]) or "refused"


class States:
    """A row of the state topic among good ones: taken, or refused with a sentence."""

    def __init__(self) -> None:
        self._state = State(Settings(), Novelty(dim=WORDS), "r-test")
        self._good = [(key, value) for key, value in state_rows() if b"tenant" in key or key == CURSOR_KEY]

    def __call__(self, data: bytes) -> str:
        key, _, value = data.partition(b"\n")
        if b',"crc":"' in value:
            # With a checksum that fits, or nothing behind it would be reached.
            value = sealed(StateChange(0, key, value[: value.rindex(b',"crc":"')] + b"}")).value or b""
        try:
            self._state.restore(0, [*self._good, (key, value)])
        except StateError as error:
            return told(error)
        finally:
            self._state.drop(0)
        return "row"


@cache
def state_rows() -> tuple[tuple[bytes, bytes], ...]:
    """The last row of each kind that a scorer writes for a partition."""
    from stream.core import Core
    from stream.inputs import InputBatch
    from tests.stream.streams import SETTINGS, Happening, Writer

    core, writer = Core(SETTINGS, release(), WordEmbedder()), Writer()
    found: dict[bytes, bytes] = {}
    for number in range(120):
        what: Any = ("turn", "strange", "again", "late")[number % 4 if number > 60 else 0]
        made = writer.write(Happening(0, number % 2, number % 3, 700, what))
        for change in core.step(InputBatch([made])).changes:
            if change.value is not None:
                found[change.key] = change.value
    return tuple(found.items())


# -- files -------------------------------------------------------------------------------------------------------------


class InFile:
    """A decoder that reads a file; the file lies in memory where there is such a place."""

    def __init__(self, name: str, read: Callable[[Path], str]) -> None:
        self._name = name
        self._read = read

    def __call__(self, data: bytes) -> str:
        with TemporaryDirectory(prefix="fuzz-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
            path = Path(folder) / self._name
            path.write_bytes(data)
            return self._read(path)


def read_config(path: Path) -> str:
    """A configuration file: settings that can be shown, or a sentence."""
    try:
        settings = read_settings({}, {}, path)
    except UsageError as error:
        return told(error)
    assert json.dumps({key: value for key, value, _ in rows(settings)}), "what `config show --json` prints"
    return "settings"


def read_release_manifest(path: Path) -> str:
    """A manifest: one whose name is the hash of what it says, or a sentence; with its name set right, too."""
    with suppress(ValueError, TypeError):
        plain = orjson.loads(path.read_bytes())
        path.write_bytes(orjson.dumps({**plain, "name": _name(plain)}))
    try:
        return f"manifest v{read_manifest(path.parent, Settings()).v}"
    except StateError as error:
        return told(error)


def read_captured(path: Path) -> str:
    """A file of records: whatever a line is, ingest gets it."""
    source = FileSource([path], "auto")
    records: list[Record] = []
    try:
        while not source.exhausted:
            records += source.poll(1_000)
    except UsageError:
        return "refused"
    step = IngestStep(Router(8), cache_bytes=0)
    done = [step.step([record]) for record in records]
    assert all(one.events or one.dead_letters or one.skipped for one in done), "a line is lost"
    return f"{min(len(records), 3)} records"


def check_corpus(data: bytes) -> str:
    """A line of a corpus: its calls are records that ingest reads."""
    _event_time_ms(data)
    assert is_session(data) in (True, False)
    try:
        session = decode_session(data)
    except ValueError:
        return "refused"
    try:
        timed = list(timeline([session]))
    except ValueError:
        return "unsorted"
    step = IngestStep(Router(8), cache_bytes=0)
    for call in timed[:3]:
        for made in (to_native(session, call.call, call.time_ms), to_litellm(session, call.call, call.time_ms)):
            done = step.step([Record("f", 0, 0, call.time_ms, None, orjson.dumps(made))])
            assert done.events or done.dead_letters, "a call is lost"
    return "session" if calls(session) else "no call"


class Weights:
    """A release's files under a manifest that vouches for them: a release, or a sentence."""

    def __init__(self) -> None:
        self._manifest, self._bodies = written_release()

    def __call__(self, data: bytes) -> str:
        names = sorted(self._bodies)
        name = names[data[0] % len(names)] if data else names[0]
        try:
            _release(self._manifest, {**self._bodies, name: data[1:]}, None)
        except _Refused as refused:
            return told(refused)
        return "release"


@cache
def written_release() -> tuple[Manifest, dict[str, bytes]]:
    """Manifest and files of a release for tests."""
    from tests.stream.releases import write

    with TemporaryDirectory(prefix="fuzz-") as folder:
        out = Path(folder) / "release"
        write(out, "words-32")
        manifest = read_manifest(out, Settings())
        return manifest, {name: (out / name).read_bytes() for name in manifest.files}


# -- all of them -------------------------------------------------------------------------------------------------------


def _examples(*topics: str) -> tuple[bytes, ...]:
    return tuple(path.read_bytes() for topic in topics for path in sorted((EXAMPLES / topic).glob("*.json")))


def _payloads(*names: str) -> tuple[bytes, ...]:
    paths = [path for path in sorted(PAYLOADS.glob("*.json")) if "event" not in path.name]
    return tuple(path.read_bytes() for path in paths if not names or path.name.startswith(names))


def _bodies() -> Iterator[bytes]:
    for payload in map(json.loads, _payloads("kong", "litellm_success")):
        payload = payload[0] if isinstance(payload, list) else payload
        held = payload.get("ai", {}).get("proxy", {}).get("payload", {}) or payload
        for name in ("request", "response", "messages"):
            if name in held:
                yield orjson.dumps(held[name])
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
    yield orjson.dumps({"model": "m", "input": [{"role": "user", "content": "hi"}, call]})
    result = {"type": "tool_result", "tool_use_id": "t", "content": "x"}
    yield orjson.dumps({"model": "m", "system": "s", "messages": [{"role": "user", "content": [result]}]})
    for kind in (
        {"choices": [{"delta": {"content": "a"}}]},
        {"type": "message_start", "message": {"role": "assistant"}},
    ):
        yield orjson.dumps(f"data: {json.dumps(kind)}\n\ndata: [DONE]\n\n")


CORPUS = (
    b'{"session":"s","tenant":"t","task":"q","label":"benign","key":"k","start_ms":1795000000000,"calls_ms":[1795000000000],'
    b'"tools":{"search":["q"]},"turns":[{"role":"system","text":"be kind"},{"role":"user","text":"hi"},'
    b'{"role":"assistant","text":"","tool_calls":[{"name":"search","args":{"q":"x"}}]},{"role":"tool","text":"None"},'
    b'{"role":"assistant","text":"done"}]}'
)
CONFIG = b"""[kafka]
bootstrap_servers = "b:9092"
session_timeout_ms = 15000
[kafka.properties]
"security.protocol" = "SASL_SSL"
"sasl.mechanism" = "SCRAM-SHA-512"
ssl.ca.location = "/ca.pem"
[decision]
mode = "fpr"
session_fpr = 0.01
exceptions = { team = "a reason" }
[release]
trusted_keys = ["a", "b"]
[routing.shards]
team = 4
"""
HEADERS = b"traceparent\n00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\ntg-schema\nevents.v1\ntg-reason\nnone"


def _weights() -> Target:
    _, bodies = written_release()
    order = sorted(bodies)
    seeds = tuple(bytes([number]) + bodies[name] for number, name in enumerate(order) if len(bodies[name]) <= _SMALL)
    return Target("weights", seeds, Weights(), is_json=False)


def _protobuf() -> Target:
    seeds = tuple(otlp_protobuf(json.loads(payload)) for payload in _payloads("otel"))
    return Target("otel-protobuf", seeds, Ingest("otel"), is_json=False)


_SMALL = 4_096
_EVENTS = _examples("events.v1")
_FEEDBACK = _examples("verdicts.v1", "findings.v1", "scores.v1")
_RELEASED = _examples("releases.v1", "retrain.v1", "labels.v1")
TARGETS: Mapping[str, Callable[[], Target]] = {
    "litellm": lambda: Target("litellm", _payloads("litellm"), Ingest("litellm")),
    "otel": lambda: Target("otel", _payloads("otel"), Ingest("otel")),
    "otel-protobuf": _protobuf,
    "kong": lambda: Target("kong", _payloads("kong"), Ingest("kong")),
    "native": lambda: Target("native", _EVENTS, Ingest("native")),
    "auto": lambda: Target("auto", (*_payloads(), *_EVENTS), Ingest("auto")),
    "bodies": lambda: Target("bodies", tuple(_bodies()), check_body),
    "headers": lambda: Target("headers", (HEADERS,), check_headers, is_json=False),
    "events": lambda: Target("events", _EVENTS, check_events),
    "feedback": lambda: Target("feedback", _FEEDBACK, check_feedback),
    "controls": lambda: Target("controls", _examples("controls.v1"), check_controls),
    "journal": lambda: Target("journal", _examples("journal.v1"), check_journal),
    "released": lambda: Target("released", _RELEASED, check_released),
    "state": lambda: Target(
        "state", tuple(key + b"\n" + value for key, value in state_rows()), States(), is_json=False
    ),
    "manifest": lambda: Target("manifest", _examples("manifest.v1"), InFile("manifest.json", read_release_manifest)),
    "weights": _weights,
    "corpus": lambda: Target("corpus", (CORPUS,), check_corpus),
    "captured": lambda: Target("captured", (CORPUS, *_payloads(), *_EVENTS), InFile("captured.jsonl", read_captured)),
    "config": lambda: Target("config", (CONFIG,), InFile("tidegate.toml", read_config), is_json=False),
}
"""Every decoder, made when it is asked for."""
SHARES = {
    "headers": 0.5, "journal": 0.5, "state": 0.5, "manifest": 0.5, "weights": 0.1, "corpus": 0.5, "captured": 0.3,
    "config": 0.3,
}  # fmt: skip
"""Of the inputs, against 1 for the others: what costs more to decode, or says less, is fed less."""
