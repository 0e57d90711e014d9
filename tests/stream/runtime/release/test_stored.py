"""A release on disk is served only as it was announced, by somebody who is trusted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from schemas.control import ReleaseSwitch
from stream.config import ReleaseSettings, Settings
from stream.errors import StateError
from stream.runtime.release.loader import Refused
from stream.runtime.release.registry import Registry, manifest_sha256, uri_of
from stream.runtime.release.stored import StoredReleases
from stream.runtime.release_store import BANK, MANIFEST, read_manifest
from tests.stream.runtime.test_release_store import signing, written

SPACE = "words-32"


def trusting(tmp_path: Path, *, signed: bool = True) -> tuple[StoredReleases, Path, ReleaseSwitch]:
    """Releases of a directory that holds one, and what announces it."""
    signs, trusts = signing(tmp_path)
    directory = ReleaseSettings(directory=str(tmp_path / "releases"), trusted_keys=trusts.release.trusted_keys)
    settings = Settings(release=directory)
    written(tmp_path / "made", signs if signed else Settings())
    path = Registry(replace(settings, release=replace(directory, trusted_keys=()))).add(tmp_path / "made")
    return StoredReleases(settings, SPACE, ()), path, announcing(path)


def announcing(path: Path, **differing: str) -> ReleaseSwitch:
    manifest = read_manifest(path, Settings())
    said = {
        "release": manifest.name,
        "space_id": manifest.space_id,
        "feature_schema": manifest.feature_schema,
        "state_schema": manifest.state_schema,
        "manifest_sha256": manifest_sha256(path),
        "uri": uri_of(path),
    }
    return ReleaseSwitch(**{**said, **differing})


def refusal(releases: StoredReleases, switch: ReleaseSwitch) -> tuple[str, str]:
    with pytest.raises(Refused) as caught:
        releases.announced(switch)
    return caught.value.reason, str(caught.value)


def test_what_was_announced_is_loaded_and_verified(tmp_path: Path) -> None:
    releases, path, switch = trusting(tmp_path)
    loaded = releases.announced(switch)
    assert (loaded.name, loaded.manifest_sha256, loaded.verified) == (path.name, switch.manifest_sha256, True)
    assert loaded.ids == (switch.space_id, switch.feature_schema, switch.state_schema)
    assert loaded.release.name == path.name
    assert releases.given(path.name).key == loaded.key
    assert releases.named(path.name, switch).key == releases.named(path.name, None).key == loaded.key


def test_without_trusted_keys_nothing_that_is_announced_is_served(tmp_path: Path) -> None:
    _, path, switch = trusting(tmp_path)
    settings = Settings(release=ReleaseSettings(directory=str(path.parent)))
    releases = StoredReleases(settings, SPACE, ())
    reason, message = refusal(releases, switch)
    assert reason == "unsigned"
    assert "Set TIDEGATE_RELEASE__TRUSTED_KEYS" in message
    assert releases.given(path.name).verified is False


def test_an_unsigned_release_is_refused(tmp_path: Path) -> None:
    releases, _, switch = trusting(tmp_path, signed=False)
    reason, message = refusal(releases, switch)
    assert reason == "unsigned"
    assert "it is unsigned, and release.trusted_keys asks for a signature" in message


def test_another_manifest_than_was_announced_is_refused(tmp_path: Path) -> None:
    releases, path, switch = trusting(tmp_path)
    reason, message = refusal(releases, announcing(path, manifest_sha256="0" * 64))
    assert (reason, "as was announced; it has" in message) == ("mismatch", True)
    reason, message = refusal(releases, announcing(path, space_id="words-33"))
    assert (reason, "space_id must be 'words-33', as was announced" in message) == ("mismatch", True)
    reason, message = refusal(releases, announcing(path, release="r-other"))
    assert (reason, f"must hold r-other, as was announced; it is {path.name}" in message) == ("mismatch", True)
    assert releases.announced(switch).name == path.name


def test_a_tampered_release_is_refused(tmp_path: Path) -> None:
    releases, path, switch = trusting(tmp_path)
    bank = path / BANK
    body = bytearray(bank.read_bytes())
    body[-1] ^= 1
    bank.write_bytes(body)
    reason, message = refusal(releases, switch)
    assert (reason, "so it is damaged or was changed" in message) == ("damaged", True)
    with pytest.raises(StateError, match=r"It is in service by the state of this group. Bring its directory back"):
        releases.named(path.name, switch)


def test_a_release_that_is_nowhere_is_missing(tmp_path: Path) -> None:
    releases, path, switch = trusting(tmp_path)
    (path / MANIFEST).unlink()
    reason, message = refusal(releases, switch)
    assert (reason, "it is in neither place" in message) == ("missing", True)
    reason, message = refusal(releases, replaced(switch, "s3://bucket/r"))
    assert reason == "missing"
    with pytest.raises(StateError, match="or start with another --release than last time"):
        releases.named(path.name, None)


def replaced(switch: ReleaseSwitch, uri: str) -> ReleaseSwitch:
    return ReleaseSwitch(**{**{name: getattr(switch, name) for name in switch.__struct_fields__}, "uri": uri})
