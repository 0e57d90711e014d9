"""A scorer with a core so small that what it must have written can be told by counting; run as a process of its own."""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import msgspec
import orjson

from schemas.control import ReleaseSwitch
from stream.config import KafkaSettings, Settings, TopicsSettings
from stream.errors import TidegateError
from stream.inputs import InputBatch, Outcome
from stream.record import DeadLetter, JournalEntry, OutRecord, Record, StateChange
from stream.runtime.clients import Membership
from stream.runtime.release.loader import Loaded, Refused
from stream.runtime.scorer import InService
from stream.runtime.services import score_service

CURSOR = b'["cursor"]'
NEVER_MS = 1 << 60


class Cursor(msgspec.Struct):
    """Where a partition stands."""

    next_offset: int = 0
    core_time_ms: int = 0
    ingest_time_ms: int = 0
    release: str = ""
    config_hash: str = ""
    given: str = ""
    next_control: int = 0


class CountingCore:
    """Counts each tenant's events: the score of an event is its number, so that a lost or repeated one shows.

    Parameters
    ----------
    step_seconds
        What a step takes, so that a process can be killed in the middle of things.
    bytes_per_event
        Of each state row.
    close_after_ms
        Time without an event after which a partition's counts begin anew.
    gate
        No step with records ends before this file is there.
    """

    def __init__(
        self,
        step_seconds: float = 0.0,
        bytes_per_event: int = 0,
        close_after_ms: int = NEVER_MS,
        gate: Path | None = None,
    ) -> None:
        self._gate = gate
        self._close_after_ms = close_after_ms
        self._step_seconds = step_seconds
        # Such that no compression makes a large row small.
        self._padding = random.Random(7).randbytes(bytes_per_event // 2).hex()
        self._counts: dict[int, dict[str, int]] = {}
        self._cursors: dict[int, Cursor] = {}
        self._serving = ""

    def serve(self, release: str) -> None:
        self._serving = release

    def cursor(self, partition: int) -> Cursor | None:
        return self._cursors.get(partition)

    def next_timer_ms(self, partition: int) -> int | None:
        cursor = self._cursors.get(partition)
        if cursor is None or not self._counts.get(partition):
            return None
        return cursor.core_time_ms + self._close_after_ms

    def state_bytes(self) -> int:
        return sum(map(len, self._counts.values()))

    def budget_used(self) -> float:
        return 0.0

    def drop(self, partition: int) -> None:
        self._counts.pop(partition, None)
        self._cursors.pop(partition, None)

    def restore(self, partition: int, rows: Iterable[tuple[bytes, bytes | None]]) -> None:
        self.drop(partition)
        for key, value in rows:
            if key == CURSOR and value is not None:
                self._cursors[partition] = msgspec.json.decode(value, type=Cursor)
            elif value is None:
                self._counts.get(partition, {}).pop(orjson.loads(key)[1], None)
            else:
                self._counts.setdefault(partition, {})[orjson.loads(key)[1]] = orjson.loads(value)["count"]

    def step(self, inputs: InputBatch) -> Outcome:
        outcome = Outcome()
        touched: set[tuple[int, str]] = set()
        for control in inputs.controls:
            cursor = self._cursors.setdefault(control.partition, Cursor())
            entry = {
                "before_offset": cursor.next_offset,
                "kind": control.kind,
                "value": control.value,
                "control_offset": control.control_offset,
                "partition": control.partition,
            }
            outcome.journal.append(JournalEntry(control.partition, orjson.dumps(entry)))
            cursor.release = control.value.get("release", cursor.release)
            cursor.given = control.value.get("given", cursor.given)
            if control.control_offset is not None:
                cursor.next_control = control.control_offset + 1
                if control.value["kind"] == "release" and "refused" not in control.value:
                    cursor.release = control.value["value"]["release"]
            cursor.config_hash = control.value.get("config_hash", cursor.config_hash)
            if control.kind == "tick":
                cursor.core_time_ms = control.value["core_time_ms"]
                cursor.ingest_time_ms = control.value["ingest_time_ms"]
                for tenant in self._counts.pop(control.partition, {}):
                    outcome.changes.append(StateChange(control.partition, row_key(tenant), None))
        for record in inputs.records:
            # What the shell has to see to: all partitions of a step stand on the release that the core serves.
            assert self._cursors[record.partition].release == self._serving
            self._score(record, outcome, touched)
        for partition, offset in inputs.next_offsets.items():
            self._cursors.setdefault(partition, Cursor()).next_offset = offset
        for partition, tenant in sorted(touched):
            row = {"count": self._counts[partition][tenant], "padding": self._padding}
            outcome.changes.append(StateChange(partition, row_key(tenant), orjson.dumps(row)))
        for partition in inputs.next_offsets:
            outcome.changes.append(StateChange(partition, CURSOR, msgspec.json.encode(self._cursors[partition])))
        if self._step_seconds:
            time.sleep(self._step_seconds)
        if inputs.records:
            await_file(self._gate)
        return outcome

    def _score(self, record: Record, outcome: Outcome, touched: set[tuple[int, str]]) -> None:
        cursor = self._cursors.setdefault(record.partition, Cursor())
        cursor.core_time_ms = cursor.ingest_time_ms = record.timestamp_ms
        try:
            event = orjson.loads(record.value or b"")
            tenant, event_id = str(event["tenant"]), str(event["event_id"])
        except (ValueError, KeyError) as error:
            outcome.dead_letters.append(DeadLetter(record, "schema", str(error), "score", type(error).__name__))
            return
        counts = self._counts.setdefault(record.partition, {})
        counts[tenant] = counts.get(tenant, 0) + 1
        touched.add((record.partition, tenant))
        source = (record.topic, record.partition, record.offset)
        said = {"event_id": event_id, "tenant": tenant, "count": counts[tenant], "release": self._serving}
        score = orjson.dumps(said)
        parent = record.header("traceparent")
        outcome.scores.append(OutRecord(record.partition, record.key or b"", score, source, event_id, parent))
        if counts[tenant] % 10 == 0:
            finding = orjson.dumps({"activity_id": 1, "severity_id": 3, "tenant": tenant, "count": counts[tenant]})
            outcome.findings.append(OutRecord(record.partition, tenant.encode(), finding, source, event_id))


class CountingReleases:
    """Names without files; one that begins with `bad` is damaged, one that begins with `lost` is nowhere."""

    def __init__(self, state_schema: str, load_seconds: float, gate: Path | None) -> None:
        self._state_schema = state_schema
        self._load_seconds = load_seconds
        self._gate = gate

    def loaded(self, name: str) -> Loaded:
        return Loaded(name, name, "space", "features", self._state_schema, "0" * 64, verified=True)

    def announced(self, switch: ReleaseSwitch) -> Loaded:
        time.sleep(self._load_seconds)
        if self._gate is not None:
            self._gate.with_name(f"{switch.release}.asked").touch()
            await_file(self._gate)
        if switch.release.startswith("bad"):
            raise Refused("damaged", f"{switch.release} is damaged")
        if switch.release.startswith("lost"):
            raise Refused("missing", f"{switch.release} is nowhere")
        return self.loaded(switch.release)

    def named(self, name: str, switch: ReleaseSwitch | None) -> Loaded:
        return self.loaded(name)


def await_file(path: Path | None) -> None:
    """Wait until a file is there; not at all without one."""
    while path is not None and not path.exists():
        time.sleep(0.02)


def row_key(tenant: str) -> bytes:
    """Key of a tenant's count."""
    return orjson.dumps(["count", tenant])


def main(arguments: list[str]) -> int:
    """What `tidegate score` does, with the counting core."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--bootstrap-servers", required=True)
    parser.add_argument("--topic-prefix", required=True)
    parser.add_argument("--partitions", type=int, default=2)
    parser.add_argument("--instance-id")
    parser.add_argument("--group-id", required=True)
    parser.add_argument("--release", default="r1")
    parser.add_argument("--state-schema", default="1")
    parser.add_argument("--records-max", type=int, default=500)
    parser.add_argument("--step-seconds", type=float, default=0.0)
    parser.add_argument("--bytes-per-event", type=int, default=0)
    parser.add_argument("--close-after-ms", type=int, default=NEVER_MS)
    parser.add_argument("--session-timeout-ms", type=int, default=6_000)
    parser.add_argument("--transaction-timeout-ms", type=int)
    parser.add_argument("--deadline-ms", type=int, default=Settings().shutdown.deadline_ms)
    parser.add_argument("--group-protocol", default="classic")
    parser.add_argument("--lost-records-max", type=int, default=0)
    parser.add_argument("--property", action="append", default=[], help="NAME=VALUE, of librdkafka")
    parser.add_argument("--http-listen", default="127.0.0.1:0")
    parser.add_argument("--load-seconds", type=float, default=0.0)
    parser.add_argument("--load-gate", type=Path, help="no release is loaded before it is there; NAME.asked beside it")
    parser.add_argument("--step-gate", type=Path, help="no step with records ends before it is there")
    parser.add_argument("--output-prefix", default="")
    parser.add_argument("--shadow", action="store_true")
    parser.add_argument("--until-end", action="store_true")
    parser.add_argument("--at-least-once", action="store_true")
    given = parser.parse_args(arguments)
    if given.transaction_timeout_ms is None:
        # One without a name is succeeded by others, who wait until the broker ends what it left open. For one with a
        # name its successor does so at once, and a process that stood still for longer would be fenced for good.
        given.transaction_timeout_ms = 10_000 if given.instance_id is None else 60_000
    defaults = Settings()
    settings = replace(
        defaults,
        kafka=KafkaSettings(
            given.bootstrap_servers,
            session_timeout_ms=given.session_timeout_ms,
            transaction_timeout_ms=given.transaction_timeout_ms,
            group_protocol=given.group_protocol,
            lost_records_max=given.lost_records_max,
            properties=dict(each.split("=", 1) for each in given.property),
        ),
        http=replace(defaults.http, listen=given.http_listen),
        topics=TopicsSettings(given.topic_prefix, given.output_prefix, partitions=given.partitions),
        batch=replace(defaults.batch, records_max=given.records_max),
        shutdown=replace(defaults.shutdown, deadline_ms=given.deadline_ms),
    )

    def load() -> InService:
        core = CountingCore(given.step_seconds, given.bytes_per_event, given.close_after_ms, given.step_gate)
        releases = CountingReleases(given.state_schema, given.load_seconds, given.load_gate)
        core.serve(given.release)
        return InService(core, releases.loaded(given.release), releases)

    try:
        score_service(
            settings,
            load,
            Membership(given.group_id, given.instance_id),
            until_end=given.until_end,
            exactly_once=not given.at_least_once,
            shadow=given.shadow,
        ).run()
    except TidegateError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
