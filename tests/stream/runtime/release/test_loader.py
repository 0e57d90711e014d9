"""Loading beside the scoring."""

from __future__ import annotations

import time
from threading import Event

import pytest

from schemas.control import ReleaseSwitch
from stream.runtime.release.loader import KEPT, BackgroundLoader, Loaded, Refused


def asking(name: str) -> ReleaseSwitch:
    return ReleaseSwitch(
        release=name, space_id="s", feature_schema="f", state_schema="1", manifest_sha256="0" * 64
    )  # fmt: skip


def loaded(name: str, *, verified: bool = True) -> Loaded:
    return Loaded(name, name, "s", "f", "1", "0" * 64, verified)


def answer(loader: BackgroundLoader, name: str) -> Loaded | Refused:
    until = time.monotonic() + 120
    while (found := loader.ask(asking(name))) is None:
        assert time.monotonic() < until
        time.sleep(0.001)
    return found


def test_asking_never_waits() -> None:
    go = Event()

    def load(switch: ReleaseSwitch) -> Loaded:
        go.wait(120)
        return loaded(switch.release)

    loader = BackgroundLoader(load)
    assert loader.ask(asking("a")) is None
    assert loader.ask(asking("a")) is None
    go.set()
    assert answer(loader, "a") == loaded("a")


def test_one_that_was_given_up_does_not_answer_for_its_successor() -> None:
    go = Event()

    def load(switch: ReleaseSwitch) -> Loaded:
        if switch.release == "slow":
            go.wait(120)
        return loaded(switch.release)

    loader = BackgroundLoader(load)
    assert loader.ask(asking("slow")) is None
    assert answer(loader, "b") == loaded("b")
    assert loader.ask(asking("c")) in (None, loaded("c"))
    go.set()
    assert answer(loader, "c") == loaded("c")


def test_the_last_ones_in_service_stay_in_memory_if_somebody_vouches_for_them() -> None:
    asked = []

    def load(switch: ReleaseSwitch) -> Loaded:
        asked.append(switch.release)
        return loaded(switch.release)

    loader = BackgroundLoader(load)
    loader.keep(loaded("unsigned", verified=False))
    for number in range(KEPT + 1):
        loader.keep(loaded(f"r{number}"))
    assert [loader.ask(asking(f"r{number}")) is not None for number in range(1, KEPT + 1)] == [True] * KEPT
    assert asked == []
    answer(loader, "r0")
    answer(loader, "unsigned")
    assert asked == ["r0", "unsigned"]


def test_a_directory_that_is_late_is_waited_for_and_one_that_never_comes_is_refused() -> None:
    attempts = []

    def load(switch: ReleaseSwitch) -> Loaded:
        attempts.append(switch.release)
        if switch.release == "never" or len(attempts) < 3:
            raise Refused("missing", "not there")
        return loaded(switch.release)

    assert answer(BackgroundLoader(load, 120.0), "late") == loaded("late")
    assert len(attempts) == 3
    found = answer(BackgroundLoader(load, 0.2), "never")
    assert isinstance(found, Refused)
    assert found.reason == "missing"


def test_other_refusals_are_final_and_a_bug_is_one(caplog: pytest.LogCaptureFixture) -> None:
    attempts = []

    def load(switch: ReleaseSwitch) -> Loaded:
        attempts.append(switch.release)
        if switch.release == "bug":
            raise KeyError("memory")
        raise Refused("damaged", "a hash differs")

    loader = BackgroundLoader(load, 60.0)
    found = answer(loader, "damaged")
    assert isinstance(found, Refused)
    assert (found.reason, str(found)) == ("damaged", "a hash differs")
    bug = answer(loader, "bug")
    assert isinstance(bug, Refused)
    assert (bug.reason, str(bug)) == ("failed", "loading failed with KeyError: 'memory'")
    assert "release bug could not be loaded" in caplog.text
    assert attempts == ["damaged", "bug"]
