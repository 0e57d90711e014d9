"""`release.directory`: a directory for each release, by name, each whole from the moment it is there."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from urllib.parse import unquote, urlsplit

from schemas.manifest import Manifest
from stream.config import Settings
from stream.errors import StateError, UsageError
from stream.runtime.release_store import MANIFEST, load_release, read_manifest

_TAKEN = (errno.ENOTEMPTY, errno.EEXIST)


class Registry:
    """The releases that this machine has.

    Parameters
    ----------
    settings
        Of which `[release]` is read: the directory, and the keys that vouch for what is in it.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.directory = Path(settings.release.directory)

    def path_of(self, name_or_dir: str) -> Path:
        """Directory of a release: the one of that name in `release.directory`, else of that path or file:// URI.

        One that lies in `release.directory` under another name than its manifest's is found by both.

        Raises
        ------
        UsageError
            When there is none.
        """
        named = self.directory / name_or_dir
        if _is_plain(name_or_dir) and _is_release(named):
            return named
        given = path_of_uri(name_or_dir)
        if _is_release(given):
            return given
        if (path := self._called(name_or_dir)) is not None:
            return path
        tried = f"neither {named} nor {given} holds a" if _is_plain(name_or_dir) else f"{given} holds no"
        raise UsageError(
            f"release {name_or_dir!r} must be the name of a directory in release.directory ({self.directory}), or a "
            f"path to one: {tried} {MANIFEST}. 'tidegate release list' shows which there are; "
            "set TIDEGATE_RELEASE__DIRECTORY where they are elsewhere."
        )

    def find(self, name: str, uri: str | None) -> Path:
        """Directory of an announced release: the one of that name here, else where `uri` says.

        Whoever reads it compares its `manifest_sha256` with what was announced.

        Raises
        ------
        UsageError
            When it is in neither place.
        """
        here = _is_plain(name) and (_is_release(self.directory / name) or self._called(name) is not None)
        if uri is None or here:
            return self.path_of(name)
        try:
            return self.path_of(uri)
        except UsageError as error:
            raise UsageError(
                f"release {name!r} must be in release.directory ({self.directory}), or at {uri}, where it was "
                "announced; it is in neither place. Copy it here, or set TIDEGATE_RELEASE__DIRECTORY."
            ) from error

    def _called(self, name: str) -> Path | None:
        """The directory whose manifest has this name, whatever it is called itself."""
        return next((path for path, manifest in self.manifests() if manifest.name == name), None)

    def manifests(self) -> list[tuple[Path, Manifest]]:
        """Releases in the directory, the oldest first; those that cannot be read are left out.

        Signatures are not looked at: `load_release` does, before anything is believed.
        """
        return [(path, found) for path, found in self.entries() if isinstance(found, Manifest)]

    def entries(self) -> list[tuple[Path, Manifest | StateError]]:
        """As `manifests`, and behind them what is no release, with the reason."""
        unasked = without_trust(self._settings)
        good: list[tuple[Path, Manifest]] = []
        bad: list[tuple[Path, StateError]] = []
        # A name with a dot before it is of a directory that is being written.
        folders = (path for path in _listed(self.directory) if not path.name.startswith(".") and _is_release(path))
        for path in folders:
            try:
                good.append((path, read_manifest(path, unasked)))
            except StateError as error:
                bad.append((path, error))
        good.sort(key=lambda found: (found[1].created_ms, found[1].name))
        return [*good, *bad]

    def add(self, source: Path) -> Path:
        """Take the finished release at `source` in under its name; `source` may be gone afterwards.

        It appears whole or not at all. One that is there already, with the same manifest, stays.

        Raises
        ------
        StateError
            When `source` is no release that may be served, or there is another one of that name.
        UsageError
            When `release.directory` cannot be written.
        """
        name = load_release(source, self._settings).name
        target = self.directory / name
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            placed = not target.exists() and _place(source, target)
        except OSError as error:
            raise UsageError(
                f"release.directory {self.directory} must be a directory that can be written; "
                f"{error.strerror or error}. Set TIDEGATE_RELEASE__DIRECTORY."
            ) from error
        if not placed:
            self._check_same(source, target)
        return target

    def _check_same(self, source: Path, target: Path) -> None:
        remedy = f"Move {target} away, and add it again."
        if (theirs := manifest_sha256(target)) != (ours := manifest_sha256(source)):
            raise StateError(
                f"release {target} must have the manifest of {source}, sha256 {ours}; it has {theirs}: another "
                f"signature, or another revision of the code. {remedy}"
            )
        try:
            load_release(target, self._settings)
        except StateError as error:
            raise StateError(f"{error} {remedy}") from error


def without_trust(settings: Settings) -> Settings:
    """Settings that let an unsigned manifest be shown."""
    return replace(settings, release=replace(settings.release, trusted_keys=()))


def manifest_sha256(path: Path) -> str:
    """sha256 (hex) of the bytes of the manifest in directory `path`.

    Raises
    ------
    StateError
        When it cannot be read.
    """
    try:
        return sha256((path / MANIFEST).read_bytes()).hexdigest()
    except OSError as error:
        raise StateError(
            f"release {path}: {MANIFEST} cannot be read: {error.strerror or error}. "
            "Name another release; 'tidegate release list' shows which there are."
        ) from error


def path_of_uri(uri: str) -> Path:
    """The path that a file:// URI or a plain path means.

    >>> path_of_uri("file:///srv/releases/r-1%20b"), path_of_uri("releases/r-1")
    (PosixPath('/srv/releases/r-1 b'), PosixPath('releases/r-1'))

    Raises
    ------
    UsageError
        When it is a URI of another kind.
    """
    if "://" not in uri:
        return Path(uri)
    parts = urlsplit(uri)
    if parts.scheme != "file" or parts.netloc not in ("", "localhost"):
        raise UsageError(
            f"a release's URI must be a path or file://; got {uri!r}. Copy the release to this machine, and name "
            "its directory."
        )
    return Path(unquote(parts.path))


def uri_of(path: Path) -> str:
    """The file:// URI of a directory."""
    return Path(os.path.realpath(path)).as_uri()


def _is_plain(name: str) -> bool:
    """Whether it names a directory that is nowhere but here, and not one that is being written.

    >>> [_is_plain(name) for name in ("r-1", "a/r-1", "..", ".r-1.tmp", "file:///r-1", "")]
    [True, False, False, False, False, False]
    """
    return Path(name).name == name and not name.startswith(".") and name != ""


def _is_release(path: Path) -> bool:
    return (path / MANIFEST).is_file()


def _listed(directory: Path) -> list[Path]:
    try:
        return sorted(directory.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UsageError(
            f"release.directory {directory} must be a directory that can be read; {error.strerror or error}. "
            "Set TIDEGATE_RELEASE__DIRECTORY."
        ) from error


# -- writing -----------------------------------------------------------------------------------------------------------


def _place(source: Path, target: Path) -> bool:
    """Let `source` appear at `target` in one step; False where somebody else's has in the meantime."""
    try:
        try:
            source.rename(target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            _copy(source, target)
    except OSError as error:
        if error.errno in _TAKEN:
            return False
        raise
    _sync(target.parent)
    return True


def _copy(source: Path, target: Path) -> None:
    made = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        made.chmod(0o755)
        for file in source.iterdir():
            # What a release needs are plain files; a link would lead out of the directory.
            if file.is_file() and not file.is_symlink():
                shutil.copyfile(file, made / file.name)
                _sync(made / file.name)
        _sync(made)
        made.rename(target)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
