"""Which release a rollback goes back to."""

from __future__ import annotations

from pathlib import Path

import pytest

from schemas.control import ReleaseSwitch
from stream.config import Settings
from stream.errors import CheckFailed, UsageError
from stream.runtime.release.history import History, Served, awaited
from stream.runtime.release.serve import _Asked, _check_override, _former, _told
from tests.stream.runtime.release.made import make
from tidegate.commands import parse


def served(partition: int, *names: str, at_ms: int = 0) -> list[Served]:
    return [
        Served(partition, name, 0, at_ms + number, "control", None, None) for number, name in enumerate(names, at_ms)
    ]


def asked(name: str, offset: int, time_ms: int) -> _Asked:
    switch = ReleaseSwitch(release=name, space_id="", feature_schema="", state_schema="", manifest_sha256="")
    return _Asked(switch, offset, time_ms)


def test_it_is_the_one_served_before_and_from_there_back_again() -> None:
    found = {p: History(served(p, "a", "b"), 4) for p in (0, 1)}
    assert _former(Settings(), found, asked("b", 4, 0)).release == "a"
    found = {p: History(served(p, "a", "b", "a"), 5) for p in (0, 1)}
    assert _former(Settings(), found, asked("a", 5, 0)).release == "b"


def test_a_promotion_under_way_is_taken_back() -> None:
    found = {0: History(served(0, "z", "a", "b"), 4), 1: History(served(1, "z", "a"), 3)}
    assert _former(Settings(), found, asked("b", 4, 9)).release == "a"


def test_a_promotion_that_nobody_has_followed_yet_is_taken_back() -> None:
    found = {p: History(served(p, "z", "a"), 3) for p in (0, 1)}
    assert _former(Settings(), found, asked("b", 4, 9)).release == "a"


def test_a_refused_promotion_was_never_served() -> None:
    found = {p: History(served(p, "z", "a"), 4) for p in (0, 1)}
    assert _former(Settings(), found, asked("b", 4, 9)).release == "z"


def test_what_was_given_at_start_since_then_counts() -> None:
    # The control's answer lies further back than the journal was read.
    found = {p: History(served(p, "b", "c", at_ms=50), -1) for p in (0, 1)}
    assert _former(Settings(), found, asked("b", 4, 9)).release == "b"


def test_without_a_release_before_there_is_nothing_to_go_back_to() -> None:
    found = {p: History(served(p, "a"), -1) for p in (0, 1)}
    with pytest.raises(UsageError, match=r"no release to go back to: a is the first that was served. Promote the one"):
        _former(Settings(), found, None)
    with pytest.raises(UsageError, match="nothing has been served yet"):
        _former(Settings(), {0: History([], -1)}, None)


def test_partitions_of_different_releases_are_told_apart() -> None:
    serving = {p: served(p, "a" if p < 3 else "b")[0] for p in range(5)}
    assert _told(serving) == "a by 0-2; b by 3-4"
    assert _told({}) == "nothing yet"


@pytest.mark.parametrize(
    "given", [[], ["--why", "it looks good"], ["--override-gate"], ["--override-gate", "--why", " "]]
)
def test_the_gate_is_overridden_only_with_a_reason(tmp_path: Path, given: list[str]) -> None:
    manifest = make(tmp_path / "made", Settings())
    arguments = parse(["release", "promote", "r-1", *given])
    with pytest.raises(CheckFailed, match=r"tells of no decision on it. Let the trainer make one, .* --override-gate"):
        _check_override(manifest, None, arguments)
    _check_override(manifest, None, parse(["release", "promote", "r-1", "--override-gate", "--why", "drill"]))


def test_a_refused_or_followed_control_is_awaited_no_more() -> None:
    found = {0: History(served(0, "a"), 4), 1: History(served(1, "a"), 3), 2: History([], -1)}
    assert awaited(found, 4, 9)
    assert not awaited({**found, 1: History(served(1, "a"), 4)}, 4, 9)
