"""The scorer's pipeline around a core."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any, cast

import pytest

from stream.config import Settings, TopicsSettings
from stream.errors import UsageError
from stream.inputs import FLAGS, Applied, InputBatch, Outcome
from stream.runtime import score_command
from stream.runtime.group import Polled
from stream.runtime.metrics import Metrics
from stream.runtime.release.loader import Loaded
from stream.runtime.scorer import InService, ScorePipeline
from tidegate.commands import parse

UNUSED = cast(Any, lambda *_: None)


def loaded(name: str) -> Loaded:
    return Loaded(f"the release {name}", name, "s", "f", "1", "0" * 64, verified=True)


class Odd:
    """A core that finds everything odd once, and remembers what it was told."""

    def __init__(self, cursor: Any = None) -> None:
        self._cursor = cursor
        self.told: list[object] = []

    def cursor(self, partition: int) -> Any:
        return self._cursor

    def serve(self, release: object) -> None:
        self.told.append(release)

    def step(self, inputs: InputBatch) -> Outcome:
        self.told.append(inputs)
        if self._cursor is not None:
            for control in inputs.controls:
                self._cursor.next_control = (control.control_offset or 0) + 1
                self._cursor.release = control.value.get("release", self._cursor.release)
        return Outcome(counts=dict.fromkeys(FLAGS, 2) | {"none": 3})

    def state_bytes(self) -> int:
        return 0

    def budget_used(self) -> float:
        return 0.4 * sum(isinstance(each, InputBatch) for each in self.told)


class Controls:
    """A queue with one control of `size` bytes at each offset, and a release that one of them put in service."""

    begun = True

    def __init__(self, offsets: int, size: int = 10, put: Loaded | None = None) -> None:
        self.offsets = offsets
        self._size = size
        self._put = put

    def reach(self, *_: object) -> None:
        pass

    def turn(self) -> int:
        return self.offsets

    def take(self) -> Loaded | None:
        put, self._put = self._put, None
        return put

    def forget(self, before: int) -> None:
        assert before == self.offsets

    def effects(self, first: int, served: str) -> Iterator[tuple[Any, Mapping[str, Any], None]]:
        for offset in range(first, self.offsets):
            yield SimpleNamespace(offset=offset, size=self._size), {"kind": "exception"}, None


class Restorer:
    """State is where it was."""

    def restore(self, committed: Mapping[int, int | None], waiting: object) -> dict[int, int]:
        return {partition: offset or 0 for partition, offset in committed.items()}


def pipeline(core: Odd, metrics: Metrics, controls: object = None) -> ScorePipeline:
    serving = InService(cast(Any, core), loaded("r1"), cast(Any, SimpleNamespace(announced=UNUSED)))
    made = ScorePipeline(
        Settings(), lambda: serving, UNUSED, cast(Any, lambda _: Restorer()), cast(Any, lambda _: controls),
        UNUSED, UNUSED, metrics, lambda: 0,
    )  # fmt: skip
    made.load()
    return made


def cursor(next_control: int, release: str = "r1") -> SimpleNamespace:
    return SimpleNamespace(
        next_offset=7, next_control=next_control, release=release, given="r1", config_hash=Settings().config_hash
    )


def flagged(metrics: Metrics) -> Mapping[str, float]:
    (family,) = metrics.flagged_events.collect()
    return {sample.labels["flag"]: sample.value for sample in family.samples if sample.name.endswith("_total")}


def test_what_is_odd_about_events_is_counted_once_it_is_committed() -> None:
    metrics = Metrics()
    work = pipeline(Odd(), metrics).step(Polled(), {("events", 0): 7})
    assert flagged(metrics) == {}
    work.committed()
    assert flagged(metrics) == dict.fromkeys(FLAGS, 2.0)


def test_how_much_of_the_budget_is_used_is_shown_once_it_is_committed() -> None:
    metrics = Metrics()
    made = pipeline(Odd(), metrics)
    work = made.step(Polled(), {("events", 0): 7})
    # The next batch is being worked on while this one is committed.
    made.step(Polled(), {("events", 0): 8})
    assert metrics.registry.get_sample_value("tidegate_budget_used_ratio") == 0
    work.committed()
    assert metrics.registry.get_sample_value("tidegate_budget_used_ratio") == 0.4


def test_a_release_serves_before_the_step_that_tells_its_partitions() -> None:
    core, metrics = Odd(cursor(2)), Metrics()
    made = pipeline(core, metrics, Controls(3, put=loaded("r2")))
    made.restore({("events", 0): 7}, lambda: None)
    work = made.due()
    assert work is not None
    assert work.offsets == {(Settings().topics.events, 0): 7}
    assert core.told[0] == "the release r2"
    (batch,) = [each for each in core.told[1:] if isinstance(each, InputBatch)]
    assert [control.control_offset for control in batch.controls] == [2, None]
    # The queue of this test does not say that its control was the switch, so the partition is told without one.
    assert batch.controls[1].value["release"] == made.release == "r2"
    assert made.due() is None


def test_a_partition_without_state_begins_and_then_takes_all_controls() -> None:
    core = Odd()
    made = pipeline(core, Metrics(), Controls(2))
    made.restore({("events", 0): None}, lambda: None)
    assert made.due() is not None
    (batch,) = [each for each in core.told if isinstance(each, InputBatch)]
    assert [(control.kind, control.control_offset) for control in batch.controls] == [
        ("start", None), ("control", 0), ("control", 1)
    ]  # fmt: skip
    start: Applied = batch.controls[0]
    assert (start.value["release"], start.value["given"]) == ("r1", "r1")


@pytest.mark.parametrize(("offsets", "size", "steps"), [(1_200, 10, 3), (5, 1_500_000, 5)])
def test_many_controls_are_applied_in_steps_that_fit_a_transaction(offsets: int, size: int, steps: int) -> None:
    core = Odd(cursor(0))
    made = pipeline(core, Metrics(), Controls(offsets, size))
    made.restore({("events", 0): 7}, lambda: None)
    while made.due() is not None:
        pass
    batches = [each for each in core.told if isinstance(each, InputBatch)]
    assert len(batches) == steps
    assert [c.control_offset for batch in batches for c in batch.controls] == list(range(offsets))


def test_a_shadow_needs_a_group_and_topics_of_its_own() -> None:
    with pytest.raises(UsageError, match=r"--shadow needs a group of its own.*Set --group-id, such as tidegate.shadow"):
        score_command.run(Settings(), parse(["score", "--release", "r", "--shadow", "--output-prefix", "shadow."]))
    given = parse(["score", "--release", "r", "--shadow", "--group-id", "g"])
    for topics in (TopicsSettings(), TopicsSettings("eu.", "eu.")):
        with pytest.raises(UsageError, match=r"--shadow needs topics of its own.*Set --output-prefix, such as shadow"):
            score_command.run(Settings(topics=topics), given)
