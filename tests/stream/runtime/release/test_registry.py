"""The directory of releases holds whole ones only, and finds them by name, path and URI."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from schemas.manifest import Manifest
from stream.config import ReleaseSettings, Settings
from stream.errors import StateError, UsageError
from stream.runtime.release.registry import Registry, manifest_sha256, path_of_uri, uri_of
from stream.runtime.release_store import MANIFEST
from tests.stream.releases import write


def settings(tmp_path: Path, **given: Any) -> Settings:
    return Settings(release=ReleaseSettings(directory=str(tmp_path / "releases"), **given))


def made(tmp_path: Path, name: str = "made", seed: int = 5) -> Path:
    write(tmp_path / name, "words-32", seed=seed)
    return tmp_path / name


def test_an_added_release_is_found_by_name_path_and_uri(tmp_path: Path) -> None:
    registry = Registry(settings(tmp_path))
    source = made(tmp_path)
    sha = manifest_sha256(source)
    path = registry.add(source)
    assert path.parent == registry.directory
    for given in (path.name, str(path), uri_of(path), f"{registry.directory}/../releases/{path.name}"):
        assert registry.path_of(given).samefile(path)
    assert registry.find(path.name, "file:///nowhere").samefile(path)
    assert registry.find("r-other", uri_of(path)).samefile(path)
    assert manifest_sha256(path) == sha
    assert not source.exists()


def test_adding_the_same_release_again_changes_nothing(tmp_path: Path) -> None:
    registry = Registry(settings(tmp_path))
    path = registry.add(made(tmp_path))
    before = path.stat().st_ino
    assert registry.add(made(tmp_path, "again")) == path
    assert registry.add(path) == path
    assert path.stat().st_ino == before


def test_another_release_of_the_same_name_is_refused(tmp_path: Path) -> None:
    registry = Registry(settings(tmp_path))
    path = registry.add(made(tmp_path))
    # The name comes from the content; what it leaves out is the revision of the code, and the signature.
    manifest = path / MANIFEST
    manifest.write_bytes(manifest.read_bytes().replace(b'"git_revision": null', b'"git_revision": "other"'))
    with pytest.raises(StateError, match=r"must have the manifest of .*; it has [0-9a-f]{64}.* Move .* away"):
        registry.add(made(tmp_path, "again"))


def test_a_damaged_one_of_the_same_name_is_not_taken_for_equal(tmp_path: Path) -> None:
    registry = Registry(settings(tmp_path))
    path = registry.add(made(tmp_path))
    (path / "bank.safetensors").write_bytes(b"damaged")
    with pytest.raises(StateError, match=r"bank.safetensors must be a file of .* Move .* away"):
        registry.add(made(tmp_path, "again"))


def test_a_damaged_release_is_not_taken_in(tmp_path: Path) -> None:
    registry, source = Registry(settings(tmp_path)), made(tmp_path)
    (source / "texts.safetensors").unlink()
    with pytest.raises(StateError, match=r"texts\.safetensors cannot be read"):
        registry.add(source)
    assert registry.manifests() == []
    assert source.exists()


def test_an_unsigned_release_is_not_taken_in_where_keys_are_trusted(tmp_path: Path) -> None:
    registry = Registry(settings(tmp_path, trusted_keys=("A" * 43 + "=",)))
    with pytest.raises(StateError, match="it is unsigned"):
        registry.add(made(tmp_path))


def test_what_lies_on_another_file_system_is_copied_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry, source = Registry(settings(tmp_path)), made(tmp_path)
    rename = Path.rename

    def far(self: Path, target: Path) -> Path:
        if self == source:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", far)
    path = registry.add(source)
    assert [each.name for each in registry.directory.iterdir()] == [path.name]
    assert registry.add(source) == path
    assert {each.name: each.read_bytes() for each in path.iterdir()} == {
        each.name: each.read_bytes() for each in source.iterdir()
    }


def test_what_is_being_written_is_not_listed(tmp_path: Path) -> None:
    registry = Registry(settings(tmp_path))
    path = registry.add(made(tmp_path))
    write(registry.directory / f".{path.name}.x1", "words-32")
    (registry.directory / "notes").mkdir()
    assert [found for found, _ in registry.manifests()] == [path]
    with pytest.raises(UsageError, match=r"\.x1' must be the name"):
        registry.path_of(f".{path.name}.x1")


def test_a_damaged_manifest_does_not_hide_the_others(tmp_path: Path) -> None:
    registry = Registry(settings(tmp_path))
    good, bad = registry.add(made(tmp_path)), registry.add(made(tmp_path, "second", seed=6))
    (bad / MANIFEST).write_bytes(b"{}")
    (path, manifest), (other, error) = registry.entries()
    assert (path, other) == (good, bad)
    assert isinstance(manifest, Manifest)
    assert isinstance(error, StateError)
    assert [found for found, _ in registry.manifests()] == [good]


def test_releases_are_listed_by_age(tmp_path: Path) -> None:
    registry = Registry(settings(tmp_path))
    for seed in (5, 6, 7):
        registry.add(made(tmp_path, f"m{seed}", seed))
    found = [(manifest.created_ms, manifest.name) for _, manifest in registry.manifests()]
    assert found == sorted(found)
    assert len(found) == 3


def test_a_directory_of_another_name_is_found_by_its_manifests(tmp_path: Path) -> None:
    registry = Registry(settings(tmp_path))
    path = registry.add(made(tmp_path))
    dated = path.rename(registry.directory / "2026-11-01")
    for given in (path.name, "2026-11-01"):
        assert registry.path_of(given) == dated
    assert registry.find(path.name, "file:///nowhere") == dated


def test_no_directory_is_no_release(tmp_path: Path) -> None:
    assert Registry(settings(tmp_path)).manifests() == []


def test_an_unknown_release_says_where_it_was_looked_for(tmp_path: Path) -> None:
    registry = Registry(settings(tmp_path))
    with pytest.raises(UsageError, match=r"'r-none' must be the name .*: neither .*/releases/r-none nor r-none holds"):
        registry.path_of("r-none")
    with pytest.raises(UsageError, match=r"in neither place. Copy it here"):
        registry.find("r-none", "file:///nowhere/r-none")
    with pytest.raises(StateError, match=r"manifest.json cannot be read"):
        manifest_sha256(tmp_path)


def test_a_file_in_the_directorys_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "releases").write_text("")
    registry = Registry(settings(tmp_path))
    with pytest.raises(UsageError, match=r"release.directory .* must be a directory that can be read"):
        registry.manifests()
    with pytest.raises(UsageError, match=r"release.directory .* must be a directory that can be written"):
        registry.add(made(tmp_path))


@pytest.mark.parametrize("uri", ["s3://bucket/r-1", "https://host/r-1", "file://host/r-1"])
def test_only_files_are_read(uri: str) -> None:
    with pytest.raises(UsageError, match="must be a path or file://"):
        path_of_uri(uri)
