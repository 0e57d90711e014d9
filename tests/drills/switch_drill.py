"""Promote and roll back releases while a backlog is scored: how soon, at what pause, and whether anything was lost.

    python -m tests.drills.switch_drill --release out/demo/release --events 100000

The scorer is `tidegate score`, the switches are `tidegate release promote` and `rollback`. Figures:

- `promote_s`, `rollback_s`: from the control's timestamp to that of the last partition's journal entry;
- `rollback_command_s`: the whole command, as somebody at a terminal waits for it;
- `backlog_at_rollback`: events that were there and not scored yet;
- `gap_at_switch_s`, `gap_elsewhere_s`: the longest time without a score, around the switches and otherwise.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import uuid
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from confluent_kafka import Consumer, Message, Producer, TopicPartition
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from deploy.kafka.local import LocalKafka
from stream.config import ReleaseSettings, Settings
from stream.record import Record
from stream.runtime.release.registry import Registry
from stream.runtime.release_store import load_release, read_manifest, write_release
from stream.steps.ingest import IngestStep
from stream.steps.route import Router
from tests.drills.checker import check_scores, read
from tests.drills.traffic import raw_records
from tidegate.demo.process import Service, environment, run

PARTITIONS = 8
EVENTS, SCORES = "genai.gateway.events.v1", "genai.anomaly.scores.v1"
FINDINGS = "genai.anomaly.findings.v1"
JOURNAL, CONTROLS = "genai.anomaly.journal.v1", "genai.anomaly.controls.v1"
_READY_S, _END_S = 300.0, 1_200.0
_CHUNK = 1_000
_PATIENT = ("--timeout", "300")
_AROUND_S = 4.0
_WARM_EVENTS = 4_000
"""Scored before the first switch: importing river for the first drift detector takes seconds, which no switch costs."""


@dataclass(slots=True)
class SwitchDrill:
    """A scorer with a backlog, and two releases that differ in their names only.

    Parameters
    ----------
    release
        What both are made of.
    out
        For releases and logs.
    """

    bootstrap_servers: str
    release: Path
    out: Path
    prefix: str = field(default_factory=lambda: f"switch-{uuid.uuid4().hex[:8]}.")
    names: list[str] = field(default_factory=list)

    def run(self, events: int, *, to_end: bool = True) -> tuple[dict[str, float], list[str]]:
        """Figures, and what is wrong.

        Parameters
        ----------
        to_end
            Score the whole backlog, the rest of it after a restart, and compare with a replay; else stop after the
            rollback.
        """
        self.out.mkdir(parents=True, exist_ok=True)
        public, self.names = make_twins(self.release, self.out)
        settings = self._environment(public)
        run(["topics", "create"], settings, self.out / "topics.log")
        self._fill(events)
        first, second = self.names
        arguments = ["score", "--release", first, "--group-id", f"{self.prefix}score", "--instance-id", "a"]
        with Service(arguments, settings, self.out / "score.log") as scoring:
            scoring.ready(_READY_S)
            self._wait_scored(min(_WARM_EVENTS, events // 4))
            run(
                ["release", "promote", second, "--override-gate", "--why", "drill", *_PATIENT],
                settings,
                self.out / "promote.log",
            )
            # A fast machine may be through with all of it.
            self._wait_scored(min(self._scored() + _CHUNK // 4, events))
            left = events - self._scored()
            began = time.monotonic()
            run(["release", "rollback", *_PATIENT], settings, self.out / "rollback.log")
            took = time.monotonic() - began
            stopped_s = time.time()
        if to_end:
            # Another process, which has to find out what is in service.
            run([*arguments, "--until-end"], settings, self.out / "score-to-end.log")
            replay = ["replay", "--topic", self.prefix + EVENTS, "--release", first, "--out", str(self.out / "replay")]
            run(replay, settings, self.out / "replay.log")
        promoted, back = read(self.bootstrap_servers, self.prefix + CONTROLS)
        journal = list(read(self.bootstrap_servers, self.prefix + JOURNAL))
        scores = list(read(self.bootstrap_servers, self.prefix + SCORES))
        # What the restart takes is no pause of a switch.
        moments = sorted({time_s for time_s in map(_time_s, scores) if time_s <= stopped_s})
        gaps = [(later - earlier, earlier) for earlier, later in pairwise(moments)]
        switches = [_time_s(promoted), _time_s(back)]

        def around(gap: float, at: float) -> bool:
            return any(moment - gap <= at <= moment + _AROUND_S for moment in switches)

        figures = {
            "events": float(events),
            "scores": float(len(scores)),
            "promote_s": _last_entry_s(journal, promoted) - _time_s(promoted),
            "rollback_s": _last_entry_s(journal, back) - _time_s(back),
            "rollback_command_s": took,
            "backlog_at_rollback": float(left),
            "gap_at_switch_s": max(gap for gap, at in gaps if around(gap, at)),
            "gap_elsewhere_s": max(gap for gap, at in gaps if not around(gap, at)),
        }
        faults = _faults(scores, journal, events if to_end else len(scores))
        if to_end:
            faults += check_scores(
                self.bootstrap_servers,
                self.prefix + EVENTS,
                self.prefix + SCORES,
                self.prefix + FINDINGS,
                self.out / "replay",
            ).faults
        return figures, faults

    def _environment(self, public: str) -> dict[str, str]:
        return environment(
            KAFKA_BOOTSTRAP_SERVERS=self.bootstrap_servers,
            TIDEGATE_TOPICS__PREFIX=self.prefix,
            TIDEGATE_TOPICS__PARTITIONS=str(PARTITIONS),
            TIDEGATE_RELEASE__DIRECTORY=str(self.out / "releases"),
            TIDEGATE_RELEASE__TRUSTED_KEYS=public,
        )

    def _fill(self, events: int) -> None:
        producer = Producer({"bootstrap.servers": self.bootstrap_servers, "linger.ms": 20})
        step, chunk = IngestStep(Router(PARTITIONS), format="litellm"), list[Record]()
        for number, value in enumerate(raw_records(events)):
            chunk.append(Record("raw", 0, number, 1_800_000_000_000 + number, None, value))
            if len(chunk) == _CHUNK or number == events - 1:
                for event in step.step(chunk).events:
                    producer.produce(self.prefix + EVENTS, event.value, event.key, event.partition)
                producer.flush()
                chunk.clear()

    def _scored(self) -> int:
        """Ends of the scores' partitions, markers included: about how many scores there are."""
        consumer = Consumer({"bootstrap.servers": self.bootstrap_servers, "group.id": "ends"})
        try:
            bounds = [
                consumer.get_watermark_offsets(TopicPartition(self.prefix + SCORES, partition), timeout=120)
                for partition in range(PARTITIONS)
            ]
            return sum(bound[1] for bound in bounds if bound is not None)
        finally:
            consumer.close()

    def _wait_scored(self, count: int) -> None:
        until = time.monotonic() + _END_S
        while self._scored() < count:
            assert time.monotonic() < until, "the scorer makes no progress"
            time.sleep(0.1)


def make_twins(release: Path, out: Path) -> tuple[str, list[str]]:
    """Two signed releases made of one in `out/releases` that differ in their names only; the public key, the names."""
    key = Ed25519PrivateKey.generate()
    pem = out / "key.pem"
    pem.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public = b64encode(key.public_key().public_bytes_raw()).decode()
    signing = Settings(
        release=ReleaseSettings(str(out / "releases"), trusted_keys=(public,), signing_key_file=str(pem))
    )
    models, manifest = load_release(release, Settings()), read_manifest(release, Settings())
    names = []
    for seed in (1, 2):
        made = write_release(
            out / "made", models, data=manifest.data, metrics={}, parent=None, seed=seed, git_revision=None,
            settings=signing,
        )  # fmt: skip
        names.append(Registry(signing).add(out / "made").name)
        assert names[-1] == made.name
    return public, names


def _time_s(message: Message) -> float:
    return message.timestamp()[1] / 1000


def _last_entry_s(journal: list[Message], control: Message) -> float:
    """When the last partition journalled a control."""
    offset = control.offset()
    said = [(json.loads(message.value() or b"{}"), message) for message in journal]
    found = [message for entry, message in said if entry["control_offset"] == offset]
    assert len(found) == PARTITIONS, f"{len(found)} partitions of {PARTITIONS} journalled control {offset}"
    assert not any("refused" in entry["value"] for entry, _ in said)
    return max(map(_time_s, found))


def _faults(scores: list[Message], journal: list[Message], events: int) -> list[str]:
    """Scores that are missing, double, out of order, or of another release than the journal says."""
    faults = []
    ranges: dict[int, list[tuple[int, str]]] = {}
    for message in journal:
        entry = json.loads(message.value() or b"{}")
        said: Mapping[str, object] = entry["value"].get("value", entry["value"])
        if entry["kind"] in ("start", "control") and "release" in said:
            ranges.setdefault(entry["partition"], []).append((entry["before_offset"], str(said["release"])))
    if len(scores) != events:
        faults.append(f"{len(scores)} scores of {events} events")
    last: dict[int, int] = {}
    for message in scores:
        headers = dict(message.headers() or [])
        source = headers["tg-source"]
        assert isinstance(source, bytes)
        _, partition, offset = source.decode().rsplit("/", 2)
        place, at = int(partition), int(offset)
        if at <= last.get(place, -1):
            faults.append(f"score of {place}/{at} comes after that of {last[place]}")
        last[place] = max(at, last.get(place, -1))
        expected = [release for start, release in ranges[place] if start <= at][-1]
        if (named := json.loads(message.value() or b"{}")["release"]) != expected:
            faults.append(f"{place}/{at} was scored by {named}; the journal says {expected}")
    return faults[:20]


def main() -> int:
    """Figures to stdout and --out; 1 when something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--release", type=Path, default=Path("out/demo/release"))
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--bootstrap-servers", help="(default: a broker of its own)")
    parser.add_argument("--stop-after-rollback", action="store_true", help="do not score the rest of the backlog")
    parser.add_argument("--out", type=Path, default=Path("out/switch"))
    given = parser.parse_args()

    def drill(servers: str) -> int:
        figures, faults = SwitchDrill(servers, given.release, given.out).run(
            given.events, to_end=not given.stop_after_rollback
        )
        text = json.dumps({**figures, "faults": len(faults)}, indent=2, sort_keys=True)
        (given.out / "summary.json").write_text(text + "\n")
        print("\n".join([text, *faults]))
        return int(bool(faults))

    if given.bootstrap_servers:
        return drill(given.bootstrap_servers)
    with LocalKafka() as kafka:
        return drill(kafka.bootstrap_servers)


if __name__ == "__main__":
    sys.exit(main())
