"""Which controls take effect, and when: decided over a topic in memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from threading import Event
from typing import Any, cast

import orjson
import pytest

from schemas.control import ReleaseSwitch
from stream.core import Core
from stream.errors import RetriableError, StateError
from stream.inputs import Applied, InputBatch
from stream.record import Record
from stream.runtime.controls import CONTROL_BYTES_MAX, ControlLog, ControlQueue, Known, read_control
from stream.runtime.release.loader import BackgroundLoader, Loaded, Reason, Refused
from stream.sources.kafka import Place
from tests.doubles import WordEmbedder
from tests.stream.releases import release
from tests.stream.streams import SETTINGS

IDS = ("space", "features", "1")


def nothing() -> None:
    """Nobody waits."""


def switch(release: str, **differing: str) -> dict[str, Any]:
    ids = dict(zip(("space_id", "feature_schema", "state_schema"), IDS, strict=True))
    value = {"release": release, **ids, "manifest_sha256": "0" * 64, **differing}
    return {"kind": "release", "value": value, "time_ms": 1, "issuer": "ada"}


RULE = {"kind": "exception", "value": {"remove": "x"}, "time_ms": 1, "issuer": "ada"}


class Topic(ControlLog):
    """Controls in a list, an offset each."""

    def __init__(self, *controls: object) -> None:
        super().__init__({}, "controls", cast(Any, None))
        self.lies: list[bytes] = [orjson.dumps(control) for control in controls]

    def ends(self, places: list[Place]) -> Mapping[Place, int]:
        return {place: len(self.lies) for place in places}

    def begin(self, first: int, end: int, waiting: Callable[[], None]) -> None:
        self._known, self._first, self.end = list(self._range(first, end, waiting)), first, end

    def poll(self, wait_seconds: float = 0.0) -> list[Known]:
        came = list(self._range(self.end, len(self.lies), nothing))
        self._known += came
        self.end = len(self.lies)
        return came

    def _range(self, first: int, end: int, waiting: Callable[[], None]) -> Iterator[Known]:
        for offset in range(first, end):
            yield read_control(Record("controls", 0, offset, 0, None, self.lies[offset]))


class Scorer:
    """A queue over a topic, with releases by name: `bad…` is refused, `slow…` waits for `go`."""

    def __init__(self, topic: Topic, *, follows: bool = True, since: int | None = 0, served: str = "r1") -> None:
        self.refusals: list[Reason] = []
        self.asked: list[str] = []
        self.go = Event()
        self.queue = ControlQueue(topic, topic.ends, follows=follows, refused=self._refused)
        self.queue.begin(0, served, since, BackgroundLoader(self._load, 0.0), IDS, nothing)
        self.served = served

    def _refused(self, reason: Reason, message: str) -> None:
        self.refusals.append(reason)

    def _load(self, switch: ReleaseSwitch) -> Loaded:
        self.asked.append(switch.release)
        if switch.release.startswith("bad"):
            raise Refused("damaged", "damaged")
        if switch.release.startswith("slow"):
            self.go.wait(120)
        return Loaded(None, switch.release, *IDS, "0" * 64, verified=True)

    def until(self, decided: int) -> None:
        """Turns until all before that offset are decided."""
        give_up = time.monotonic() + 120
        while self.queue.turn() < decided:
            assert time.monotonic() < give_up
            time.sleep(0.001)

    def effects(self, first: int = 0) -> list[tuple[int, str]]:
        """Offset and what is said of it: `yes`, or the reason why it is refused."""
        found = self.queue.effects(first, self.served)
        return [(known.offset, value.get("refused", "yes")) for known, value, _ in found]


def test_what_lies_behind_a_release_waits_until_it_is_loaded() -> None:
    topic = Topic(RULE, switch("slow"), RULE)
    scorer = Scorer(topic)
    scorer.queue.turn()
    assert scorer.queue.decided == 1
    assert scorer.effects() == [(0, "yes")]
    assert scorer.queue.take() is None
    scorer.go.set()
    scorer.until(3)
    assert scorer.effects() == [(0, "yes"), (1, "yes"), (2, "yes")]
    taken = scorer.queue.take()
    assert taken is not None
    assert taken.name == "slow"
    assert scorer.queue.take() is None


def test_the_last_release_that_was_asked_for_counts_and_those_before_it_need_not_be_loaded() -> None:
    topic = Topic(switch("slow"))
    scorer = Scorer(topic)
    scorer.queue.turn()
    topic.lies += [orjson.dumps(RULE), orjson.dumps(switch("r3"))]
    scorer.until(3)
    assert scorer.effects() == [(0, "r3, asked for later, was there first"), (1, "yes"), (2, "yes")]
    # Whoever still waits would say so in the middle of another test.
    scorer.go.set()


def test_a_refused_release_leaves_the_one_before_it_to_be_served() -> None:
    topic = Topic(switch("r2"), switch("bad"), switch("r3", space_id="other"))
    scorer = Scorer(topic)
    scorer.until(3)
    (first, second, third) = scorer.effects()
    assert (first, second) == ((0, "yes"), (1, "damaged"))
    assert third[1].startswith("its ids must be space, features, 1, those of the release in service; they are other,")
    assert sorted(scorer.refusals) == ["damaged", "incompatible"]
    taken = scorer.queue.take()
    assert taken is not None
    assert taken.name == "r2"
    # A refusal is final, a repaired release is asked for again.
    topic.lies.append(orjson.dumps(switch("bad")))
    scorer.until(4)
    assert scorer.asked.count("bad") == 2


def test_what_no_scorer_can_read_has_a_place_and_no_effect() -> None:
    topic = Topic({"kind": "release", "value": {"release": 7}, "time_ms": 1, "issuer": "a"}, [1], RULE)
    topic.lies.append(orjson.dumps({**RULE, "issuer": "a" * CONTROL_BYTES_MAX}))
    scorer = Scorer(topic)
    scorer.until(4)
    said = dict(scorer.effects())
    assert said[0].startswith("no release switch: ")
    assert said[1].startswith("no control: ")
    assert said[2] == "yes"
    assert said[3].startswith(f"no control: it must have at most {CONTROL_BYTES_MAX} bytes; it has ")


def test_a_start_with_another_release_is_later_than_all_that_lies_there() -> None:
    topic = Topic(switch("r2"), RULE)
    scorer = Scorer(topic, since=None, served="r9")
    scorer.until(2)
    assert scorer.effects() == [(0, "it was asked for before r9 was put in service"), (1, "yes")]
    assert scorer.asked == []
    topic.lies.append(orjson.dumps(switch("r3")))
    scorer.until(3)
    assert scorer.effects(2) == [(2, "yes")]


def test_a_restart_follows_again_what_it_followed_and_decides_of_what_came_since() -> None:
    topic = Topic(switch("r0"), switch("r2"), RULE, switch("r3"))
    scorer = Scorer(topic, since=3, served="r2")
    assert scorer.queue.decided == 3
    assert scorer.effects() == [(0, "it was asked for before r2 was put in service"), (1, "yes"), (2, "yes")]
    scorer.until(4)
    assert scorer.asked == ["r3"]


def test_a_shadow_follows_no_release() -> None:
    topic = Topic(switch("r2"), RULE)
    scorer = Scorer(topic, follows=False)
    scorer.until(2)
    assert scorer.effects() == [(0, "a shadow keeps the release that it was started with"), (1, "yes")]
    assert (scorer.asked, scorer.refusals) == ([], [])


def test_partitions_that_others_have_brought_further_are_waited_for() -> None:
    topic = Topic(RULE)
    scorer = Scorer(topic)
    topic.lies += [orjson.dumps(switch("r2")), orjson.dumps(RULE)]
    scorer.queue.reach(0, 3, nothing)
    assert scorer.queue.decided == 3
    with pytest.raises(RetriableError, match="ends at offset 3, but others have seen 4"):
        scorer.queue.reach(0, 4, nothing)


def test_what_was_forgotten_is_read_again() -> None:
    topic = Topic(RULE, switch("r2"), RULE)
    scorer = Scorer(topic)
    scorer.until(3)
    scorer.queue.forget(3)
    assert scorer.effects() == []
    scorer.queue.reach(1, 1, nothing)
    assert scorer.effects() == [(1, "yes"), (2, "yes")]


def test_a_topic_that_ends_before_what_took_effect_is_another_one() -> None:
    with pytest.raises(StateError, match="controls ends at offset 1, but controls up to offset 2 have taken effect"):
        Scorer(Topic(RULE), since=2)


HOSTILE = {
    "a time of 2^65": b'{"kind": "exception", "value": {"remove": "x"}, "time_ms": %d, "issuer": "ada"}' % 2**65,
    "a number of 2^65": b'{"kind": "exception", "value": {"remove": "x", "n": %d}, "time_ms": 1, "issuer": "ada"}'
    % 2**65,
    "300 nested arrays": b'{"kind": "exception", "value": {"remove": "x", "n": %s}, "time_ms": 1, "issuer": "ada"}'
    % (b"[" * 300 + b"]" * 300),
    "30,000 nested arrays": b'{"kind": "exception", "value": {"n": %s}, "time_ms": 1, "issuer": "ada"}'
    % (b"[" * 30_000 + b"]" * 30_000),
    "a time before 1970": b'{"kind": "exception", "value": {"remove": "x"}, "time_ms": -1, "issuer": "ada"}',
    "a name without end": b'{"kind": "exception", "value": {}, "time_ms": 1, "issuer": "%s"}' % (b"a" * 5_000),
    "no UTF-8": b'{"kind": "exception", "value": {}, "time_ms": 1, "issuer": "\xff"}',
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_control_that_no_journal_could_hold_is_refused_and_stops_no_scorer(name: str) -> None:
    known = read_control(Record("controls", 0, 7, 0, None, HOSTILE[name]))
    assert known.value["kind"] == "unreadable"
    assert known.value["refused"].startswith("no control: ")
    core = Core(SETTINGS, release(), WordEmbedder())
    outcome = core.step(InputBatch([], [Applied(0, "control", known.value, 7)], topic="events"))
    assert orjson.loads(outcome.journal[0].value)["value"] == known.value
    cursor = core.cursor(0)
    assert cursor is not None
    assert cursor.next_control == 8
