"""What an announcement names of those before it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from schemas.release import EARLIER_MAX, Release
from stream.config import ReleaseSettings, Settings
from stream.errors import StateError
from stream.runtime.release.announce import followed, passed, require_signed
from tests.stream.runtime.release.made import key_file, make, signing


def said(name: str, former: list[Release]) -> Release:
    now = Release(
        release=name,
        parent=None,
        space_id="s",
        feature_schema="f",
        state_schema="1",
        manifest_sha256="a" * 64,
        uri=f"file:///releases/{name}",
        created_time_ms=0,
    )
    return msgspec.structs.replace(now, earlier=followed(former, now)[:EARLIER_MAX])


def test_those_before_are_named_the_latest_first_and_so_many_at_most() -> None:
    on_topic: list[Release] = []
    for number in range(EARLIER_MAX + 3):
        # Compaction leaves the last record alone.
        on_topic = [said(f"r-{number}", on_topic)]
    last = EARLIER_MAX + 2
    assert [each.release for each in on_topic[0].earlier] == [f"r-{last - back}" for back in range(1, EARLIER_MAX + 1)]


def test_one_that_is_announced_again_is_not_named_as_earlier() -> None:
    first = said("r-1", [])
    second = said("r-2", [first])
    again = said("r-1", [first, second])
    assert [each.release for each in again.earlier] == ["r-2"]
    assert again.earlier[0].uri == "file:///releases/r-2"


def test_only_what_a_trusted_key_vouches_for_counts_as_signed(tmp_path: Path) -> None:
    (ours, public), (theirs, _) = key_file(tmp_path), key_file(tmp_path, "theirs.pem")
    make(tmp_path / "ours", signing(Settings(), ours))
    make(tmp_path / "theirs", signing(Settings(), theirs))
    make(tmp_path / "unsigned", Settings())
    settings = Settings()
    assert require_signed(tmp_path / "ours", settings).signature is not None
    with pytest.raises(
        StateError, match=r"must be signed to be announced; it is unsigned\. Set release\.signing_key_file"
    ):
        require_signed(tmp_path / "unsigned", settings)
    settings = Settings(release=ReleaseSettings(trusted_keys=(public,)))
    assert require_signed(tmp_path / "ours", settings).signature is not None
    with pytest.raises(StateError, match=r"not among release\.trusted_keys"):
        require_signed(tmp_path / "theirs", settings)


def test_that_one_passed_the_gate_stays_known_when_others_were_announced() -> None:
    first = msgspec.structs.replace(said("r-1", []), passed_gate=True)
    refused = said("r-2", [first])
    assert passed([refused], "r-1", "a" * 64)
    assert not passed([refused], "r-2", "a" * 64)
    # Of that name, and not that one.
    assert not passed([refused], "r-1", "b" * 64)
