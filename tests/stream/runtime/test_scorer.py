"""The scorer's pipeline around a core."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from stream.config import Settings
from stream.inputs import FLAGS, InputBatch, Outcome
from stream.runtime.group import Polled
from stream.runtime.metrics import Metrics
from stream.runtime.scorer import InService, ScorePipeline


class Odd:
    """A core that finds everything odd once."""

    def step(self, inputs: InputBatch) -> Outcome:
        return Outcome(counts=dict.fromkeys(FLAGS, 2) | {"none": 3})

    def state_bytes(self) -> int:
        return 0


def flagged(metrics: Metrics) -> Mapping[str, float]:
    (family,) = metrics.flagged_events.collect()
    return {sample.labels["flag"]: sample.value for sample in family.samples if sample.name.endswith("_total")}


def test_what_is_odd_about_events_is_counted_once_it_is_committed() -> None:
    metrics = Metrics()
    serving = InService(cast(Any, Odd()), "r1", "s", "f", "1")
    unused = cast(Any, lambda *_: None)
    pipeline = ScorePipeline(Settings(), lambda: serving, unused, unused, unused, unused, metrics, lambda: 0)
    pipeline.load()
    work = pipeline.step(Polled(), {("events", 0): 7})
    assert flagged(metrics) == {}
    work.committed()
    assert flagged(metrics) == dict.fromkeys(FLAGS, 2.0)
