"""A release is announced, asked for and waited for, on real topics."""

from __future__ import annotations

from pathlib import Path
from threading import Thread

import pytest

from stream.config import Settings, TopicsSettings
from stream.errors import CheckFailed, EnvironmentFault, StateError
from stream.runtime.release import history
from stream.runtime.release.announce import announce, announced
from stream.runtime.release.history import before, histories, in_service
from stream.runtime.release.promote import await_switch, journal_ends, promote
from stream.runtime.release.registry import manifest_sha256, uri_of
from stream.runtime.topic_reader import TopicReader
from tests.kafka.harness import PATIENCE_S
from tests.kafka.loop_topics import CONTROLS, RELEASES, Loop, ids
from tests.stream.runtime.release.made import make

pytestmark = pytest.mark.kafka


@pytest.fixture
def loop(kafka: str, topic_prefix: str, tmp_path: Path) -> Loop:
    return Loop(kafka, topic_prefix, tmp_path)


def test_what_was_announced_before_stays_named(loop: Loop) -> None:
    made = [loop.make(seed) for seed in (1, 2, 3)]
    for manifest, path in (*made, made[0]):
        announce(loop.settings, manifest, path, decision="within the floor", promoted=True)
    reader = TopicReader(loop.settings, "test")
    (*_, said), _ = announced(reader, loop.settings)
    reader.close()
    (first, path), (second, _), (third, third_path) = made
    assert (said.release, said.manifest_sha256, said.uri) == (first.name, manifest_sha256(path), uri_of(path))
    assert (said.decision, said.promoted, said.metrics) == ("within the floor", True, first.metrics)
    assert [each.release for each in said.earlier] == [third.name, second.name]
    assert said.earlier[0].manifest_sha256 == manifest_sha256(third_path)
    (message, *_) = loop.cluster.read(RELEASES)
    assert (message.key(), message.headers()) == (b"population", [("tg-schema", b"releases.v1")])


def test_what_others_announce_meanwhile_is_not_lost(loop: Loop) -> None:
    made = [loop.make(seed) for seed in (1, 2, 3)]
    threads = [
        Thread(target=announce, args=(loop.settings, *each), kwargs={"decision": "", "promoted": False})
        for each in made
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    reader = TopicReader(loop.settings, "test")
    (*_, said), _ = announced(reader, loop.settings)
    reader.close()
    assert {said.release, *(each.release for each in said.earlier)} == {manifest.name for manifest, _ in made}


def test_an_unsigned_release_is_never_announced(loop: Loop, tmp_path: Path) -> None:
    manifest = make(tmp_path / "unsigned", loop.settings)
    for settings in (loop.settings, Settings(kafka=loop.settings.kafka, topics=loop.settings.topics)):
        with pytest.raises(StateError, match="must be signed to be announced; it is unsigned"):
            announce(settings, manifest, tmp_path / "unsigned", decision="", promoted=True)
    assert loop.cluster.values(RELEASES) == []


def test_what_is_no_release_on_the_topic_keeps_nobody_from_announcing(loop: Loop) -> None:
    loop.write(RELEASES, 0, b"population", {"hello": "world"})
    manifest, path = loop.make()
    assert announce(loop.settings, manifest, path, decision="", promoted=True).earlier == []


def test_a_promotion_is_a_control_that_every_partition_answers(loop: Loop) -> None:
    (first, _), (second, path) = loop.make(1), loop.make(2)
    loop.serve(first)
    offset = promote(loop.settings, second, path, who="ada@soc", why="tried in shadow")
    (control,) = loop.controls()
    assert (control["kind"], control["issuer"], control["tenant"]) == ("release", "ada@soc", None)
    said = {**ids(second), "manifest_sha256": manifest_sha256(path), "uri": uri_of(path), "why": "tried in shadow"}
    assert said.items() <= control["value"].items()
    assert loop.cluster.read(CONTROLS)[0].offset() == offset
    follower = Thread(target=loop.follow, args=(offset, 0, 1))
    follower.start()
    switched = await_switch(loop.settings, second.name, offset, PATIENCE_S)
    follower.join()
    assert list(switched) == [0, 1]
    assert all(0 <= each.seconds < PATIENCE_S and each.before_offset == 7 for each in switched.values())


def test_partitions_that_stay_away_are_named(loop: Loop) -> None:
    (first, _), (second, path) = loop.make(1), loop.make(2)
    loop.serve(first)
    offset = promote(loop.settings, second, path, who="ada@soc", why="")
    loop.follow(offset, 0)
    with pytest.raises(CheckFailed, match=r"1 of 2 partitions \(1\) have not taken it up after 15 s"):
        await_switch(loop.settings, second.name, offset, 15)


def test_what_was_served_before_a_promotion_does_not_answer_it(loop: Loop) -> None:
    first, path = loop.make(1)
    loop.serve(first)
    offset = promote(loop.settings, first, path, who="ada@soc", why="")
    with pytest.raises(CheckFailed, match=r"2 of 2 partitions \(0-1\)"):
        await_switch(loop.settings, first.name, offset, 1)


def test_a_partition_that_begins_with_the_release_needs_no_control(loop: Loop) -> None:
    manifest, path = loop.make(1)
    reader = TopicReader(loop.settings, "test")
    starts = journal_ends(reader, loop.settings)
    reader.close()
    offset = promote(loop.settings, manifest, path, who="ada@soc", why="")
    loop.serve(manifest)
    assert list(await_switch(loop.settings, manifest.name, offset, PATIENCE_S, starts=starts)) == [0, 1]


def test_a_refusal_is_told_with_its_reason(loop: Loop) -> None:
    (first, _), (second, path) = loop.make(1), loop.make(2)
    loop.serve(first)
    offset = promote(loop.settings, second, path, who="ada@soc", why="")
    loop.follow(offset, 0)
    loop.follow(offset, 1, refused="bank.safetensors was changed")
    sentence = (
        r"release r-.* is refused, and the one before goes on, in .*v1\[1\]: bank.safetensors was changed. "
        r"Partitions 0 serve it"
    )
    with pytest.raises(CheckFailed, match=sentence):
        await_switch(loop.settings, second.name, offset, PATIENCE_S)


def test_a_changed_release_is_not_promoted(loop: Loop) -> None:
    (first, _), (_, other) = loop.make(1), loop.make(2)
    with pytest.raises(StateError, match="written anew in the meantime"):
        promote(loop.settings, first, other, who="ada@soc", why="")
    assert loop.controls() == []


def test_a_missing_controls_topic_says_how_it_is_created(loop: Loop) -> None:
    manifest, path = loop.make(1)
    settings = Settings(
        kafka=loop.settings.kafka, topics=TopicsSettings(prefix="nowhere."), release=loop.settings.release
    )
    with pytest.raises(EnvironmentFault, match=r"nowhere\.genai\.anomaly\.controls\.v1 does not exist\. Create it"):
        promote(settings, manifest, path, who="ada@soc", why="")


@pytest.mark.parametrize("tail", [3, 2_000])
def test_history_tells_what_is_served_and_what_was_before(
    loop: Loop, monkeypatch: pytest.MonkeyPatch, tail: int
) -> None:
    # However little of a journal is read at first, it is read back to where another release was served.
    monkeypatch.setattr(history, "_FIRST_TAIL", tail)
    (first, _), (second, path), (third, _) = loop.make(1), loop.make(2), loop.make(3)
    loop.serve(first)
    offset = promote(loop.settings, second, path, who="ada@soc", why="")
    loop.follow(offset, 0, 1)
    loop.follow(offset, 1, refused="not that one")
    for _ in range(30):
        loop.journal(0, "tick", {"core_time_ms": 5})
    # Another --release at start is journalled as a control without an offset.
    loop.journal(0, "control", {"kind": "release", **ids(third)})
    reader = TopicReader(loop.settings, "test")
    found = histories(reader, loop.settings.topics.journal)
    reader.close()
    assert {p: each.release for p, each in in_service(found).items()} == {0: third.name, 1: second.name}
    pair = before(found)
    assert pair is not None
    assert [each.release for each in pair] == [third.name, second.name]
    assert (pair[1].manifest_sha256, pair[1].uri) == (manifest_sha256(path), uri_of(path))
    assert pair[0].ids == (third.space_id, third.feature_schema, third.state_schema)
