"""Releases on disk, as a scorer takes them: by path at start, by a control while it runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from schemas.control import ReleaseSwitch
from stream.config import Settings
from stream.errors import StateError, UsageError
from stream.release import Release
from stream.runtime.embedders import as_configured
from stream.runtime.release.loader import Loaded, Refused
from stream.runtime.release.registry import Registry, manifest_sha256, uri_of
from stream.runtime.release_store import load_release, read_manifest

_IDS = ("space_id", "feature_schema", "state_schema")


class StoredReleases:
    """Directories of releases that this process can score with.

    Parameters
    ----------
    space_id, vocabulary
        Of the embedder in use.
    """

    def __init__(self, settings: Settings, space_id: str, vocabulary: Sequence[str]) -> None:
        self._settings = settings
        self._space_id = space_id
        self._vocabulary = vocabulary
        self._registry = Registry(settings)

    def given(self, name_or_dir: str) -> Loaded:
        """What `--release` names.

        Raises
        ------
        UsageError
            When there is none.
        StateError
            When it may not be served.
        """
        return self._read(self._registry.path_of(name_or_dir))

    def named(self, name: str, switch: ReleaseSwitch | None) -> Loaded:
        """As `Releases.named`."""
        remedy = (
            f"It is in service by the state of this group. Bring its directory back to release.directory "
            f"({self._registry.directory}), or start with another --release than last time, which then takes over."
        )
        try:
            if switch is not None:
                return self.announced(switch)
            loaded = self._read(self._registry.path_of(name))
        except (Refused, StateError, UsageError) as error:
            raise StateError(f"release {name}: {error} {remedy}") from error
        if loaded.name != name:
            raise StateError(f"release {name}: the directory of that name holds {loaded.name}. {remedy}")
        return loaded

    def announced(self, switch: ReleaseSwitch) -> Loaded:
        """As `Releases.announced`."""
        if not self._settings.release.trusted_keys:
            raise Refused(
                "unsigned",
                "an announced release must be signed, and release.trusted_keys names nobody whose signature counts. "
                "Set TIDEGATE_RELEASE__TRUSTED_KEYS to the public key of whoever signs, and start again.",
            )
        try:
            path = self._registry.find(switch.release, switch.uri)
        except UsageError as error:
            raise Refused("missing", str(error)) from error
        try:
            found = manifest_sha256(path)
        except StateError as error:
            raise Refused("missing", str(error)) from error
        if found != switch.manifest_sha256:
            raise Refused(
                "mismatch",
                f"{path}: the manifest must have sha256 {switch.manifest_sha256}, as was announced; it has {found}. "
                "Bring the announced one here, or announce this one.",
            )
        self._check_manifest(path, switch)
        try:
            release = load_release(path, self._settings, self._space_id)
        except StateError as error:
            raise Refused("damaged", str(error)) from error
        try:
            return self._loaded(release, found, path)
        except StateError as error:
            raise Refused("incompatible", str(error)) from error

    def _check_manifest(self, path: Path, switch: ReleaseSwitch) -> None:
        """What can be told before the files are read."""
        try:
            manifest = read_manifest(path, self._settings)
        except StateError as error:
            raise Refused("unsigned", str(error)) from error
        if manifest.name != switch.release:
            raise Refused("mismatch", f"{path} must hold {switch.release}, as was announced; it is {manifest.name}.")
        for name in _IDS:
            if (theirs := getattr(manifest, name)) != (said := getattr(switch, name)):
                raise Refused("mismatch", f"{path}: {name} must be {said!r}, as was announced; it is {theirs!r}.")

    def _read(self, path: Path) -> Loaded:
        return self._loaded(load_release(path, self._settings, self._space_id), manifest_sha256(path), path)

    def _loaded(self, stored: Release, sha256: str, path: Path) -> Loaded:
        release = as_configured(stored, self._settings, self._vocabulary)
        verified = bool(self._settings.release.trusted_keys)
        return Loaded(release, release.name, *release.ids, sha256, verified, uri_of(path))
