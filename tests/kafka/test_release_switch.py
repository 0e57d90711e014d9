"""Controls and releases while events are scored, on a real broker, with a core that counts."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from models.embedder import StaticEmbedder
from tests.drills.switch_drill import SwitchDrill
from tests.kafka.harness import (
    FINDINGS,
    JOURNAL,
    PARTITIONS,
    PATIENCE_S,
    SCORES,
    STATE,
    Cluster,
    get,
    headers_of,
    run_to_end,
    scorer,
)
from tests.stream.releases import write

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(600)]
SLOW = ("--records-max", "50", "--step-seconds", "0.02")
SLOWER = ("--records-max", "50", "--step-seconds", "0.1")
"""Sixteen seconds for 8,000 events."""


@pytest.fixture
def cluster(kafka: str, topic_prefix: str) -> Cluster:
    made = Cluster(kafka, topic_prefix)
    made.create()
    return made


def controls(cluster: Cluster) -> dict[int, list[dict[str, Any]]]:
    """Partition -> its journal's controls that came from the topic, in order."""
    found: dict[int, list[dict[str, Any]]] = {partition: [] for partition in range(PARTITIONS)}
    for message in cluster.read(JOURNAL):
        entry = _json(message.value())
        if entry["kind"] == "control" and entry["control_offset"] is not None:
            found[message.partition() or 0].append(entry)
    return found


def _json(value: bytes | None) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(value or b"null")
    return loaded


def wait_for_controls(cluster: Cluster, offset: int) -> None:
    """Until every partition has journalled the control of that offset."""
    until = time.monotonic() + PATIENCE_S
    while not all(any(e["control_offset"] == offset for e in entries) for entries in controls(cluster).values()):
        assert time.monotonic() < until, f"no control {offset} in {controls(cluster)}"
        time.sleep(0.05)


def served(cluster: Cluster, given: str) -> dict[int, list[tuple[int, str]]]:
    """Partition -> (offset, release) from which on the journal says that a release scored."""
    out: dict[int, list[tuple[int, str]]] = {partition: [(0, given)] for partition in range(PARTITIONS)}
    for message in cluster.read(JOURNAL):
        entry = _json(message.value())
        value: Mapping[str, Any] = entry["value"]
        if entry["kind"] != "control" or "refused" in value or value["kind"] != "release":
            continue
        release = value["release"] if "release" in value else value["value"]["release"]
        out[message.partition() or 0].append((entry["before_offset"], release))
    return out


def assert_scored_once_and_by_the_release_that_the_journal_names(cluster: Cluster, count: int, given: str) -> set[str]:
    """The releases that scored something."""
    assert cluster.scores() == cluster.expected_scores(count)
    ranges = served(cluster, given)
    seen = set()
    for message in cluster.read(SCORES):
        headers = headers_of(message)
        _, partition, offset = headers["tg-source"].decode().rsplit("/", 2)
        expected = [release for start, release in ranges[int(partition)] if start <= int(offset)][-1]
        assert _json(message.value())["release"] == expected
        assert headers["tg-release"].decode() == expected
        seen.add(expected)
    return seen


def metric(url: str, name: str) -> float:
    """Value of one series."""
    return float(next(line.split()[-1] for line in get(f"{url}/metrics")[1].splitlines() if line.startswith(name)))


def wait_until_more_is_scored(cluster: Cluster, what: str) -> None:
    """Until something is committed that is not now."""
    before, until = cluster.committed(), time.monotonic() + PATIENCE_S
    while cluster.committed() == before:
        assert time.monotonic() < until, what


def test_promotion_and_rollback_under_load_lose_nothing_and_do_not_wait_for_the_disk(
    cluster: Cluster, tmp_path: Path
) -> None:
    cluster.events(range(8_000))
    disk = tmp_path / "disk"
    with scorer(cluster, *SLOWER, "--load-gate", str(disk), "--instance-id", "a") as process:
        url = process.ready()["http"]
        cluster.wait_committed({0: 50, 1: 50})
        promoted = cluster.switch("r2")
        until = time.monotonic() + PATIENCE_S
        while not (tmp_path / "r2.asked").exists():
            assert time.monotonic() < until, "the release is not loaded"
            time.sleep(0.02)
        # Should a slow machine be through with the others.
        cluster.events(range(8_000, 8_500))
        wait_until_more_is_scored(cluster, "scoring stopped while a release was loaded")
        disk.touch()
        wait_for_controls(cluster, promoted)
        assert metric(url, 'tidegate_release_info{release="r2",space_id="space"}') == 1
        assert metric(url, 'tidegate_release_info{release="r1",space_id="space"}') == 0
        cluster.events(range(8_500, 9_000))
        wait_until_more_is_scored(cluster, "nothing was scored after the promotion")
        # From here on nothing can be loaded.
        disk.unlink()
        began = time.monotonic()
        back = cluster.switch("r1")
        wait_for_controls(cluster, back)
        print(f"rollback in {time.monotonic() - began:.2f} s")
        cluster.wait_committed(cluster.ends())
        process.send(signal.SIGTERM)
        assert process.end()[0] == 0
    assert assert_scored_once_and_by_the_release_that_the_journal_names(cluster, 9_000, "r1") == {"r1", "r2"}
    for entries in controls(cluster).values():
        assert [(e["control_offset"], e["value"]["value"]["release"]) for e in entries] == [
            (promoted, "r2"), (back, "r1")
        ]  # fmt: skip
        assert all("refused" not in e["value"] for e in entries)


def test_controls_reach_idle_partitions_within_a_second(cluster: Cluster) -> None:
    cluster.events(range(70))
    with scorer(cluster) as process:
        process.ready()
        cluster.wait_committed(cluster.ends())
        took = []
        for _ in range(5):
            began = time.monotonic()
            offset = cluster.control("exception", {"remove": "nobody's"})
            wait_for_controls(cluster, offset)
            took.append(time.monotonic() - began)
    print(f"seconds until a control was seen in the journal: {[round(seconds, 2) for seconds in took]}")
    # Of several: the machine may stand still for a while.
    assert min(took) < 3
    for entries in controls(cluster).values():
        assert len(entries) == 5
        assert all(entry["value"]["kind"] == "exception" for entry in entries)
        assert all(entry["value"]["issuer"] == "test" for entry in entries)
    ends = cluster.ends()
    assert {p: {e["before_offset"] for e in entries} for p, entries in controls(cluster).items()} == {
        partition: {end} for partition, end in ends.items()
    }


def test_a_bad_release_is_refused_while_the_old_one_goes_on_and_what_is_behind_it_takes_effect(
    cluster: Cluster,
) -> None:
    cluster.events(range(2_000))
    with scorer(cluster, *SLOW) as process:
        url = process.ready()["http"]
        bad = cluster.switch("bad")
        other = cluster.switch("r3", state_schema="2")
        garbage = cluster.raw_control(b"\xff{")
        nothing = cluster.control("release", {"release": 7})
        last = cluster.control("exception", {"remove": "nobody's"})
        wait_for_controls(cluster, last)
        assert metric(url, 'tidegate_release_refused_total{reason="damaged"}') == 1
        assert metric(url, 'tidegate_release_refused_total{reason="incompatible"}') == 1
        assert metric(url, 'tidegate_release_refused_total{reason="unreadable"}') == 2
        cluster.wait_committed(cluster.ends())
        until = time.monotonic() + PATIENCE_S
        while get(f"{url}/readyz")[0] != 200:
            assert time.monotonic() < until
        process.send(signal.SIGTERM)
        code, errors = process.end()
    assert code == 0
    assert "refused, r1 stays in service: release bad: bad is damaged" in errors
    assert assert_scored_once_and_by_the_release_that_the_journal_names(cluster, 2_000, "r1") == {"r1"}
    for entries in controls(cluster).values():
        assert [(e["control_offset"], "refused" in e["value"]) for e in entries] == [
            (bad, True), (other, True), (garbage, True), (nothing, True), (last, False)
        ]  # fmt: skip


def test_a_rollback_does_not_wait_for_the_release_that_it_takes_back(cluster: Cluster) -> None:
    cluster.events(range(700))
    with scorer(cluster, "--load-seconds", "3600") as process:
        process.ready()
        taken_back = cluster.switch("r2")
        time.sleep(0.5)
        rollback = cluster.switch("r1")
        wait_for_controls(cluster, rollback)
    for entries in controls(cluster).values():
        assert [e["control_offset"] for e in entries] == [taken_back, rollback]
        assert "r1, asked for later, was there first" in entries[0]["value"]["refused"]
        assert "refused" not in entries[1]["value"]


def test_a_restart_goes_on_with_what_was_promoted_until_release_names_another_one(cluster: Cluster) -> None:
    cluster.events(range(70))
    with scorer(cluster) as process:
        assert process.ready()["release"] == "r1"
        wait_for_controls(cluster, cluster.switch("r2"))
    cluster.events(range(70, 140))
    with scorer(cluster) as process:
        assert process.ready()["release"] == "r2"
        cluster.wait_committed(cluster.ends())
    cluster.events(range(140, 210))
    # Asked for while nobody ran: the scorer that starts with a name that is new to it is asked later.
    passed = cluster.switch("r4")
    with scorer(cluster, "--release", "r3") as process:
        assert process.ready()["release"] == "r3"
        cluster.wait_committed(cluster.ends())
    assert assert_scored_once_and_by_the_release_that_the_journal_names(cluster, 210, "r1") == {"r1", "r2", "r3"}
    for entries in controls(cluster).values():
        assert entries[-1]["control_offset"] == passed
        assert "before r3 was put in service" in entries[-1]["value"]["refused"]
    with scorer(cluster, "--release", "r3") as process:
        wait_for_controls(cluster, cluster.switch("r4"))
    with scorer(cluster, "--release", "r3") as process:
        assert process.ready()["release"] == "r4"


def test_a_group_that_begins_passes_over_what_was_asked_of_others(cluster: Cluster) -> None:
    old = cluster.switch("r0")
    rule = cluster.control("exception", {"remove": "nobody's"})
    cluster.events(range(70))
    assert run_to_end(cluster)[0] == 0
    assert assert_scored_once_and_by_the_release_that_the_journal_names(cluster, 70, "r1") == {"r1"}
    for entries in controls(cluster).values():
        assert [(e["control_offset"], "refused" in e["value"]) for e in entries] == [(old, True), (rule, False)]


def test_killed_while_it_switches_it_goes_on_with_all_partitions_on_one_release(cluster: Cluster) -> None:
    cluster.events(range(6_000))
    arguments = (*SLOW, "--load-seconds", "0.3", "--instance-id", "a")
    names = ("r2", "r1", "r3", "r2", "r4")
    for number, name in enumerate(names):
        with scorer(cluster, *arguments) as process:
            process.ready()
            cluster.switch(name)
            time.sleep(0.25 + 0.05 * number)
            process.kill()
    last = cluster.switch("r5")
    with scorer(cluster, *arguments) as process:
        process.ready()
        wait_for_controls(cluster, last)
        cluster.events(range(6_000, 6_070))
        cluster.wait_committed(cluster.ends())
    # The counting core itself refuses to score a partition that stands on another release than it serves.
    seen = assert_scored_once_and_by_the_release_that_the_journal_names(cluster, 6_070, "r1")
    assert "r5" in seen


def test_two_scorers_switch_and_partitions_that_move_between_them_stay_on_the_release(cluster: Cluster) -> None:
    cluster.events(range(6_000))
    with scorer(cluster, *SLOW) as first, scorer(cluster, *SLOW) as second:
        first.ready()
        second.ready()
        wait_for_controls(cluster, cluster.switch("r2"))
        second.send(signal.SIGTERM)
        assert second.end()[0] == 0
        wait_for_controls(cluster, cluster.switch("r3"))
        # Should they be through with the others.
        cluster.events(range(6_000, 6_070))
        cluster.wait_committed(cluster.ends())
    assert "r3" in assert_scored_once_and_by_the_release_that_the_journal_names(cluster, 6_070, "r1")


def test_a_shadow_scores_beside_reports_nothing_and_keeps_its_release(cluster: Cluster) -> None:
    shadow = Cluster(cluster.servers, cluster.prefix)
    shadow.group = f"{cluster.prefix}shadow"
    prefix = f"{cluster.prefix}shadow."
    Cluster(cluster.servers, prefix).create(SCORES, STATE, JOURNAL)
    cluster.events(range(700))
    with scorer(cluster), scorer(shadow, "--shadow", "--output-prefix", prefix, "--release", "r9") as beside:
        assert beside.ready()["release"] == "r9"
        switched = cluster.switch("r2")
        rule = cluster.control("exception", {"remove": "nobody's"})
        wait_for_controls(cluster, rule)
        wait_for_controls(Cluster(cluster.servers, prefix), rule)
        cluster.wait_committed(cluster.ends())
        shadow.wait_committed(cluster.ends())
    assert cluster.scores() == cluster.expected_scores(700)
    theirs = Cluster(cluster.servers, prefix)
    assert [(s["event_id"], s["count"]) for s in theirs.values(SCORES)] == cluster.expected_scores(700)
    assert {s["release"] for s in theirs.values(SCORES)} == {"r9"}
    assert {headers_of(m)["tg-release"] for m in cluster.read(FINDINGS)} <= {b"r1", b"r2"}
    assert len(cluster.read(FINDINGS)) == 70
    for entries in controls(theirs).values():
        assert [e["control_offset"] for e in entries] == [switched, rule]
        assert "a shadow keeps the release" in entries[0]["value"]["refused"]


@pytest.mark.timeout(1200)
def test_real_releases_are_switched_by_the_commands_while_a_backlog_is_scored(
    kafka: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A scorer with a name that stood still for longer would be fenced for good.
    monkeypatch.setenv("TIDEGATE_KAFKA__TRANSACTION_TIMEOUT_MS", "120000")
    write(tmp_path / "tiny", StaticEmbedder.load().space_id)
    figures, faults = SwitchDrill(kafka, tmp_path / "tiny", tmp_path).run(16_000)
    print(figures)
    assert faults == []
    assert figures["scores"] == 16_000
    # A bound for what hangs: the figure itself is that of docs, measured by the drill on a machine with nothing to do.
    assert figures["rollback_s"] < 60
