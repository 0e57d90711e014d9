"""Kill the feedback worker at random moments while findings, scores and verdicts come in any order, some twice.

`python -m tests.drills.feedback_drill` is the long form; `tests/kafka/test_feedback_kills.py` runs a short one. The
checker knows Kafka and JSON only: it reads the inputs and joins them by itself.
"""

import argparse
import json
import os
import random
import sys
import threading
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploy.kafka.local import LocalKafka
from tests.drills.checker import Verdict, read
from tests.drills.feedback_traffic import CONTROLS, FINDINGS, LABELS, SCORES, VERDICTS, chunks, send, shuffled
from tidegate.demo.process import Service, environment, run

PARTITIONS = 2
_READY_S, _SETTLE_S = 300.0, 600.0
_SECONDS_A_KILL = 4.0
_ATTACKS, _HARMLESS = {2, 8}, {1, 5}


@dataclass(slots=True)
class FeedbackDrill:
    """A feedback worker under fire.

    Parameters
    ----------
    bootstrap_servers
        A broker to run it on; topics get a prefix of their own.
    out
        Where its log and its tables go.
    seed
        Of the traffic and of the moments.
    """

    bootstrap_servers: str
    out: Path
    seed: int
    prefix: str = field(default_factory=lambda: f"fbdrill-{uuid.uuid4().hex[:8]}.")
    module: str = "tidegate.cli"
    recoveries_s: list[float] = field(default_factory=list)

    def run(self, findings: int, kills: int) -> Verdict:
        """Let `findings` findings and their verdicts through, kill `kills` times; what the checker says."""
        self.out.mkdir(parents=True, exist_ok=True)
        run(["topics", "create"], self._environment(), self.out / "topics.log")
        feeding = threading.Thread(target=self._feed, args=(findings, kills * _SECONDS_A_KILL), daemon=True)
        moments = random.Random(self.seed)
        service = self._start()
        try:
            feeding.start()
            for number in range(kills):
                # Some kills meet the worker at its start or in recovery, most while it joins.
                if number % 4 == 3:
                    time.sleep(moments.uniform(0.5, 3.0))
                else:
                    begun = time.monotonic()
                    service.ready(_READY_S)
                    self.recoveries_s.append(time.monotonic() - begun)
                    time.sleep(moments.uniform(0.1, 2.0))
                service.kill()
                service.__exit__(None, None, None)
                service = self._start()
                print(f"kill {number + 1}/{kills}", flush=True)
            service.ready(_READY_S)
            feeding.join()
            self._settle(service)
        finally:
            service.__exit__(None, None, None)
        return check(self.bootstrap_servers, self.prefix)

    def _start(self) -> Service:
        # Static membership: the broker takes the restarted member at once, instead of after the dead one's session.
        arguments = ["feedback", "--group-id", f"{self.prefix}feedback", "--instance-id", "one"]
        return Service(arguments, self._environment(), self.out / "feedback.log", self.module)

    def _feed(self, findings: int, seconds: float) -> None:
        scored, judged = shuffled(findings, self.seed)
        parts = max(8, int(seconds))
        for number, (some, verdicts) in enumerate(zip(chunks(scored, parts), chunks(judged, parts), strict=False)):
            begun = time.monotonic()
            send(self.bootstrap_servers, self.prefix, verdicts, partitions=PARTITIONS)
            # What is aborted says other things of the same findings: a label of it would be seen.
            ghosts = [(t, p, k, _haunted(v)) for t, p, k, v in some[:10]]
            self._transaction(ghosts, commit=False)
            self._transaction(some, commit=True)
            if number < parts - 1:
                time.sleep(max(0.0, seconds / parts - (time.monotonic() - begun)))
        self._transaction(scored[:5], commit=False)

    def _transaction(self, records: list[Any], *, commit: bool) -> None:
        send(self.bootstrap_servers, self.prefix, records, partitions=PARTITIONS, transaction="scorer", commit=commit)

    def _settle(self, service: Service) -> None:
        """Wait until the labels are complete; the checker says what is missing when they never are."""
        until = time.monotonic() + _SETTLE_S
        while time.monotonic() < until:
            service.check()
            if not check(self.bootstrap_servers, self.prefix).faults:
                return
            time.sleep(1.0)

    def _environment(self) -> dict[str, str]:
        return environment(
            KAFKA_BOOTSTRAP_SERVERS=self.bootstrap_servers,
            TIDEGATE_TOPICS__PREFIX=self.prefix,
            TIDEGATE_TOPICS__PARTITIONS=str(PARTITIONS),
            TIDEGATE_FEEDBACK__DIRECTORY=str(self.out / "tables"),
            TIDEGATE_FEEDBACK__LABELS_MIN="5",
            TIDEGATE_FEEDBACK__QUIET_MS="500",
        )


def _haunted(value: dict[str, Any]) -> dict[str, Any]:
    ghost: dict[str, Any] = json.loads(json.dumps(value))
    if "metadata" in ghost:
        ghost["metadata"]["sequence"] = 99
        ghost["finding_info"]["title"] = "ghost"
    else:
        ghost |= {"partition": 0, "offset": 0, "release": "ghost"}
    return ghost


def check(servers: str, prefix: str) -> Verdict:
    """Every label that the inputs give is there, as they give it, and none besides; the last control of each agrees."""
    verdict = Verdict()
    findings: dict[str, dict[str, Any]] = {}
    for record in _values(servers, prefix + FINDINGS):
        uid = record["finding_info"]["uid"]
        if uid not in findings or record["metadata"]["sequence"] > findings[uid]["metadata"]["sequence"]:
            findings[uid] = record
    scores: dict[str, dict[str, Any]] = {}
    for record in _values(servers, prefix + SCORES):
        if record["finding_uid"] is not None:
            scores[record["event_id"]] = min(
                record, scores.get(record["event_id"], record), key=lambda each: (each["partition"], each["offset"])
            )
    said: dict[str, dict[str, dict[str, Any]]] = {}
    for record in _values(servers, prefix + VERDICTS):
        of_finding = said.setdefault(record["finding_uid"], {})
        known = of_finding.get(record["analyst"])
        if known is None or record["time"] >= known["time"]:
            of_finding[record["analyst"]] = record
    expected = {
        (uid, analyst): _label(findings[uid], scores, by_analyst, analyst)
        for uid, by_analyst in said.items()
        if uid in findings
        for analyst in by_analyst
    }
    found: dict[tuple[str, str], Any] = {}
    written = 0
    for message in read(servers, prefix + LABELS):
        uid, analyst = json.loads(message.key() or b"[]")
        found[uid, analyst] = _short(json.loads(message.value() or b"null"))
        written += 1
    effects = {}
    for record in _values(servers, prefix + CONTROLS):
        effects[record["value"]["finding_uid"]] = record["value"]
    verdict.figures |= {"findings": len(findings), "labels": len(found), "labels_written": written}
    verdict.figures |= {"controls": len(effects), "expected": len(expected)}
    missing, more = expected.keys() - found.keys(), found.keys() - expected.keys()
    verdict.require(not missing, f"{len(missing)} labels are missing, such as {min(missing, default='')}")
    verdict.require(not more, f"{len(more)} labels came from nowhere, such as {min(more, default='')}")
    wrong = sorted(key for key in expected.keys() & found.keys() if expected[key] != found[key])
    verdict.require(not wrong, f"{len(wrong)} labels differ from the join, such as {wrong[:1]}")
    for uid, by_analyst in said.items():
        if uid not in findings:
            continue
        numbers = {record["verdict_id"] for record in by_analyst.values()}
        effect = "keep_out" if numbers & _ATTACKS else "admit" if numbers & _HARMLESS else "none"
        sent = effects.get(uid, {"effect": "none"})
        verdict.require(sent["effect"] == effect, f"finding {uid}: effect {sent['effect']}, not {effect}")
    return verdict


def _label(
    finding: dict[str, Any], scores: dict[str, Any], said: dict[str, dict[str, Any]], analyst: str
) -> dict[str, Any]:
    def teaches(number: int) -> str | None:
        return "attack" if number in _ATTACKS else "benign" if number in _HARMLESS else None

    own = teaches(said[analyst]["verdict_id"])
    others = {teaches(each["verdict_id"]) for each in said.values()} - {None, own}
    ids = [event["uid"] for event in finding["finding_info"]["related_events"]]
    told = sorted((scores[i]["partition"], scores[i]["offset"], i) for i in ids if i in scores)
    return {
        "verdict_id": said[analyst]["verdict_id"],
        "verdict_time": said[analyst]["time"],
        "teaches": own,
        "disputed": own is not None and bool(others),
        "title": finding["finding_info"]["title"],
        "revision": finding["metadata"]["sequence"],
        "tenant": finding["metadata"]["tenant_uid"],
        "p": finding["unmapped"]["p"],
        "events": told,
        "events_told": len(ids),
        "segments": [each["data"]["excerpt"] for each in finding["evidences"]],
    }


def _short(label: dict[str, Any]) -> dict[str, Any]:
    same = ("verdict_id", "verdict_time", "teaches", "disputed", "title", "revision", "tenant", "p", "events_told")
    return {
        **{name: label[name] for name in same},
        "events": [(each["partition"], each["offset"], each["event_id"]) for each in label["events"]],
        "segments": [each["text"] for each in label["segments"]],
    }


def _values(servers: str, topic: str) -> list[dict[str, Any]]:
    return [json.loads(message.value() or b"null") for message in read(servers, topic)]


def main() -> int:
    """The long form: CHAOS_SEED, CHAOS_KILLS and CHAOS_FINDINGS set its size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out/chaos-feedback"))
    given = parser.parse_args()
    size = {name: int(os.environ.get(f"CHAOS_{name.upper()}", default)) for name, default in _SIZE.items()}
    begun = time.monotonic()
    servers = os.environ.get("TIDEGATE_TEST_KAFKA")
    if servers:
        drill = FeedbackDrill(servers, given.out, size["seed"])
        verdict = drill.run(size["findings"], size["kills"])
    else:
        with LocalKafka() as kafka:
            drill = FeedbackDrill(kafka.bootstrap_servers, given.out, size["seed"])
            verdict = drill.run(size["findings"], size["kills"])
    summary = {
        **size,
        **verdict.figures,
        "seconds": round(time.monotonic() - begun, 1),
        "recovery_s_max": round(max(drill.recoveries_s, default=0.0), 2),
        "faults": verdict.faults,
    }
    (given.out / "summary.json").write_text(json.dumps(summary, indent=2, sort_keys=True) + "\n")
    print(json.dumps(summary, indent=2, sort_keys=True))
    return 4 if summary["faults"] else 0


_SIZE = {"seed": "1", "kills": "20", "findings": "2000"}

if __name__ == "__main__":
    sys.exit(main())
