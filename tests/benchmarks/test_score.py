"""The table of where the time goes names code that is there."""

from __future__ import annotations

from benchmarks.score import WATCHED
from benchmarks.stages import Stages
from stream.core import Core


def test_every_stage_is_watched_and_left_as_it_was() -> None:
    before = Core.step, *(getattr(where, name) for _, where, name in WATCHED)
    with Stages().watching(WATCHED):
        assert all(getattr(where, name) is not was for (_, where, name), was in zip(WATCHED, before[1:], strict=True))
    assert (Core.step, *(getattr(where, name) for _, where, name in WATCHED)) == before
