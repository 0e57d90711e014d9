"""A job's directory, its plan's settings, what it keeps of topics, and how its process is told what to do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from schemas.manifest import InputRange
from schemas.retrain import Cause, Reason, RetrainRequest
from stream.config import (
    DecisionSettings,
    KafkaSettings,
    ReleaseSettings,
    Settings,
    TrainerSettings,
)
from stream.errors import StateError, UsageError
from stream.record import Record
from stream.runtime.topic_reader import Bounds, TopicReader
from stream.runtime.trainer.captured import EVENTS, keep, kept
from stream.runtime.trainer.command import check_signing
from stream.runtime.trainer.folder import JobFolder
from stream.runtime.trainer.job import keeps_backbone
from stream.runtime.trainer.plan import (
    Champion,
    Plan,
    _bounded,
    _champion,
    _pinned,
    last_switch,
    planned,
    served_as_told,
)
from stream.runtime.trainer.publish import _in_service
from stream.runtime.trainer.service import TrainerService
from stream.runtime.trainer.worker import Task, settings_of, task
from stream.sources.kafka import TopicSource
from tests.stream.runtime.release.made import key_file, make, signing

REQUEST = RetrainRequest(
    request_id="ab" * 16,
    subject="population",
    reasons=[Reason(cause="manual", detail="because")],
    time_ms=1,
    release="r-1",
    labels=3,
)


def a_plan(settings: Settings) -> Plan:
    return Plan(
        request=REQUEST,
        champion=Champion(release="r-1", manifest_sha256="0" * 64),
        events=[InputRange(topic="events", partition=0, from_offset=0, to_offset=2)],
        scores=[InputRange(topic="scores", partition=0, from_offset=0, to_offset=4)],
        labels=[InputRange(topic="labels", partition=0, from_offset=0, to_offset=2)],
        controls_end=0,
        seed=7,
        settings=_pinned(settings),
        git_revision=None,
    )


def test_an_output_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    folder = JobFolder(tmp_path, REQUEST.request_id)
    plan = a_plan(Settings())
    folder.write("plan.json", plan)
    assert folder.read("plan.json", Plan) == plan
    # A process that is killed leaves what it began under another name.
    begun = folder.making("kept")
    (begun.__enter__() / "half").write_bytes(b"x")
    assert not folder.has("kept")
    with folder.making("kept") as made:
        assert list(made.iterdir()) == []
        (made / "whole").write_bytes(b"x")
    assert sorted(path.name for path in folder.path.iterdir()) == ["kept", "plan.json"]
    assert not list(folder.path.glob(".kept.*"))


def test_a_damaged_output_names_its_path_and_the_remedy(tmp_path: Path) -> None:
    folder = JobFolder(tmp_path, REQUEST.request_id)
    (folder.path / "plan.json").write_text("{")
    with pytest.raises(StateError, match=r"plan\.json must be what a job of this version kept there.*ask again"):
        folder.read("plan.json", Plan)


def test_a_directory_that_cannot_be_made_is_told_with_its_setting(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="TIDEGATE_TRAINER__DIRECTORY"):
        JobFolder(tmp_path / "file", REQUEST.request_id)


def test_a_job_goes_on_with_the_settings_it_was_planned_with(tmp_path: Path) -> None:
    then = Settings(decision=DecisionSettings(session_fpr=0.05), trainer=TrainerSettings(held_out_share=0.3, nproc=2))
    plan = msgspec.json.decode(msgspec.json.encode(a_plan(then)), type=Plan)
    now = Settings(trainer=TrainerSettings(directory=str(tmp_path), held_out_share=0.1, nproc=1))
    settings = planned(now, plan)
    assert settings.decision.session_fpr == 0.05
    assert settings.trainer.held_out_share == 0.3
    # Where the job lies is this machine's.
    assert settings.trainer.directory == str(tmp_path)


def test_a_plan_of_settings_that_this_version_lacks_is_refused() -> None:
    plan = msgspec.structs.replace(a_plan(Settings()), settings={"gate": {"mood": 1}})
    with pytest.raises(StateError, match="section gate must be one that this version reads"):
        planned(Settings(), plan)


def test_of_too_many_events_each_partition_gives_up_the_same_share() -> None:
    bounds = {0: Bounds(0, 100, 0, 100), 1: Bounds(500, 1400, 0, 1400)}
    found = _bounded(bounds, 100)
    assert {p: (b.start, b.end) for p, b in found.items()} == {0: (90, 100), 1: (1310, 1400)}
    assert _bounded(bounds, 1000) == bounds


class Topics(TopicReader):
    """Topics as lists of records, read like a broker's."""

    def __init__(self, records: list[Record]) -> None:
        self._records = records

    def read(self, topic: str, partition: int, start: int, end: int) -> Iterator[list[Record]]:  # type: ignore[override]
        yield [r for r in self._records if (r.topic, r.partition) == (topic, partition) and start <= r.offset < end]


def test_what_was_read_comes_back_as_it_was(tmp_path: Path) -> None:
    events = [Record("events", 0, i, 5 + i, b"k" if i else None, b"v%d" % i) for i in range(2)]

    def said(offset: int, decision: str, learned: str) -> Record:
        value = {"partition": 0, "offset": offset, "decision": decision, "learned": learned, "tenant": "x"}
        return Record("scores", 0, offset, 0, None, json.dumps(value).encode())

    scores = [said(0, "finding", "quarantined"), said(1, "none", "yes"), said(2, "over_budget", "no")]
    scores.append(said(3, "suppressed", "yes"))
    broken = [Record("labels", 0, 0, 0, b"k", b"nonsense")]
    keep(tmp_path, a_plan(Settings()), Topics([*events, *scores, *broken]))
    found = kept(tmp_path, "events")
    assert found.events == events
    # What an exception says is harmless is not what was found.
    assert found.found == [(0, 0), (0, 2)]
    assert found.labels == []
    (tmp_path / EVENTS).write_bytes((tmp_path / EVENTS).read_bytes()[:-1])
    with pytest.raises(StateError, match="must hold what the job read"):
        kept(tmp_path, "events")


def test_a_worker_is_told_all_settings_and_finds_them_again() -> None:
    settings = Settings(
        kafka=KafkaSettings(properties={"sasl.password": "hush"}),
        release=ReleaseSettings(trusted_keys=("a", "b")),
        trainer=TrainerSettings(corpus=("c.jsonl",)),
    )
    given = msgspec.json.decode(task(settings, REQUEST, "json"), type=Task)
    assert settings_of(given.settings) == settings
    assert (given.request, given.parent, given.log_format) == (REQUEST, os.getpid(), "json")


def test_a_worker_of_a_service_that_is_gone_does_nothing() -> None:
    told = msgspec.json.encode(Task(settings={}, request=REQUEST, parent=1 << 30))
    command = [sys.executable, "-m", "stream.runtime.trainer.worker"]
    done = subprocess.run(command, input=told, capture_output=True, check=False, timeout=240)
    assert (done.returncode, done.stdout) == (1, b"")


def test_the_trainer_wants_a_key_that_scorers_trust(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"release\.signing_key_file must name an Ed25519 private key"):
        check_signing(Settings())
    key, public = key_file(tmp_path)
    signing = Settings(release=ReleaseSettings(signing_key_file=str(key)))
    check_signing(signing)
    trusted = replace(signing, release=replace(signing.release, trusted_keys=(public,)))
    check_signing(trusted)
    others = replace(signing, release=replace(signing.release, trusted_keys=("other",)))
    with pytest.raises(UsageError, match="what the trainer signs would be refused"):
        check_signing(others)


class Broker(Topics):
    """Whole topics of one partition, each record at the offset that is its place."""

    def __contains__(self, topic: object) -> bool:
        return True

    def bounds(self, topic: str, window: object = None) -> dict[int, Bounds]:
        end = sum(record.topic == topic for record in self._records)
        return {0: Bounds(0, end, 0, end)}

    def source(self, topic: str, bounds: object) -> TopicSource:
        return cast(TopicSource, Lying([record for record in self._records if record.topic == topic]))


class Lying:
    """A source of what lies there."""

    def __init__(self, records: list[Record]) -> None:
        self._records = records

    @property
    def exhausted(self) -> bool:
        return not self._records

    def poll(self, most: int) -> list[Record]:
        out, self._records = self._records[:most], self._records[most:]
        return out

    def close(self) -> None:
        """Nothing is held."""


def asked(offset: int, release: str) -> dict[str, Any]:
    ids = {"space_id": "s", "feature_schema": "f", "state_schema": "1"}
    value = {"release": release, **ids, "manifest_sha256": release[-1] * 64, "why": ""}
    return {"kind": "release", "value": value, "time_ms": offset, "issuer": "ada", "tenant": None}


def on_topics(*entries: tuple[int | None, dict[str, Any]], controls: Sequence[str] = ()) -> Broker:
    """A journal of controls with their offsets, and a topic of controls for releases."""
    topics, records = Settings().topics, []
    for number, (offset, value) in enumerate(entries):
        said = {
            "partition": 0, "before_offset": 0, "seq": number, "kind": "control", "control_offset": offset,
            "value": value,
        }  # fmt: skip
        records.append(Record(topics.journal, 0, number, 10 + number, None, json.dumps(said).encode()))
    for offset, name in enumerate(controls):
        records.append(Record(topics.controls, 0, offset, 10 + offset, None, json.dumps(asked(offset, name)).encode()))
    return Broker(records)


REFUSED = {"refused": "damaged", "ignored": True}


def test_the_champion_is_what_the_journals_tell_and_not_what_was_asked_for() -> None:
    first, second = (0, asked(0, "r-1")), (1, {**asked(1, "r-2"), **REFUSED})
    champion = _champion(REQUEST, on_topics(first, second, controls=["r-1", "r-2"]), Settings(), 2)
    assert champion == Champion(release="r-1", manifest_sha256="1" * 64)
    followed = _champion(REQUEST, on_topics(first, (1, asked(1, "r-2")), controls=["r-1", "r-2"]), Settings(), 2)
    assert followed == Champion(release="r-2", manifest_sha256="2" * 64)


def test_where_nothing_is_served_yet_the_last_control_names_the_champion() -> None:
    champion = _champion(REQUEST, on_topics(controls=["r-1", "r-2"]), Settings(), 2)
    assert champion == Champion(release="r-2", manifest_sha256="2" * 64)


def test_a_control_that_was_refused_puts_nothing_in_service_and_one_that_waits_will() -> None:
    settings = Settings()

    def now(reader: Broker) -> str | None:
        return _in_service(served_as_told(reader, settings), last_switch(reader, settings, 2))

    first = (0, asked(0, "r-1"))
    assert now(on_topics(first, (1, {**asked(1, "r-2"), **REFUSED}), controls=["r-1", "r-2"])) == "r-1"
    assert now(on_topics(first, (1, asked(1, "r-2")), controls=["r-1", "r-2"])) == "r-2"
    assert now(on_topics(first, controls=["r-1", "r-2"])) == "r-2"
    assert now(on_topics()) is None


def test_a_release_counts_as_made_for_a_request_only_where_a_trusted_key_vouches_for_it(tmp_path: Path) -> None:
    (ours, public), (theirs, _) = key_file(tmp_path), key_file(tmp_path, "theirs.pem")
    settings = Settings(release=ReleaseSettings(directory=str(tmp_path), trusted_keys=(public,)))
    service = TrainerService(settings, cast(Any, None), dict)
    unsigned = make(tmp_path / "unsigned", replace(settings, release=ReleaseSettings()))
    foreign = make(tmp_path / "foreign", signing(replace(settings, release=ReleaseSettings()), theirs))
    good = make(tmp_path / "good", signing(settings, ours))
    assert not service._believed(tmp_path / "unsigned", unsigned)
    assert not service._believed(tmp_path / "foreign", foreign)
    assert service._believed(tmp_path / "good", good)


def test_verdicts_alone_keep_the_backbone_and_anything_else_fits_it_anew() -> None:
    def asked(*causes: Cause) -> RetrainRequest:
        return msgspec.structs.replace(REQUEST, reasons=[Reason(cause=cause, detail="") for cause in causes])

    assert keeps_backbone(asked("labels", "precision"))
    assert not any(keeps_backbone(asked("labels", cause)) for cause in ("drift", "age", "manual"))
