"""What is known of every release: by its directory, by the releases topic, and by the journal of who serves it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from schemas.manifest import Manifest
from schemas.release import Announced, Release
from stream.config import Settings
from stream.errors import EnvironmentFault, StateError, UsageError
from stream.runtime.release.announce import announced, followed, require_signed
from stream.runtime.release.history import Served, histories, in_service
from stream.runtime.release.registry import Registry, manifest_sha256, without_trust
from stream.runtime.release_store import read_manifest
from stream.runtime.topic_reader import TopicReader

Trust = Literal["trusted", "signed", "untrusted", "unsigned", "unknown"]
"""`trusted`: by one of release.trusted_keys; `signed`: by a key of which nothing is said, since none is configured;
`untrusted`: by another key, or not of this manifest; `unknown`: its manifest is not here to be looked at."""


@dataclass(frozen=True, slots=True)
class Told:
    """What the broker told, as far as it did."""

    unasked: str = ""
    """Why it told nothing, in a sentence; empty: it answered."""
    announcements: list[Release] = field(default_factory=list)
    """As they lie on the releases topic, the latest last."""
    served: dict[int, Served] = field(default_factory=dict)
    """Partition -> what it serves."""


@dataclass(frozen=True, slots=True)
class Known:
    """One release, and what is known of it."""

    name: str
    path: Path | None
    """Where its directory is; None: nowhere that can be seen from here."""
    manifest: Manifest | None
    fault: str
    """Why its manifest cannot be had; empty where it can."""
    trust: Trust
    said: Release | None
    """Its own announcement, where that is still on the topic."""
    announced: Announced | None
    partitions: list[int]
    """Those that serve it."""
    alias: Literal["champion", "challenger", ""]


def ask_broker(settings: Settings) -> Told:
    """What is announced and what is served; a broker that does not answer tells nothing."""
    try:
        reader = TopicReader(settings, "release")
    except EnvironmentFault as fault:
        return Told(unasked=str(fault))
    with closing(reader):
        topics = settings.topics
        said = announced(reader, settings)[0] if topics.releases in reader else []
        served = in_service(histories(reader, topics.journal)) if topics.journal in reader else {}
        return Told("", said, served)


def catalog(settings: Settings, told: Told) -> list[Known]:
    """Every release of the directory, the oldest first, and then those that only the broker told of."""
    registry = Registry(settings)
    entries = registry.entries()
    champion, challenger = aliases(told)
    known = [_known(settings, told, _name(path, found), path, found, champion, challenger) for path, found in entries]
    names = {each.name for each in known}
    elsewhere = [each.release for each in followed(told.announcements)]
    elsewhere += [each.release for each in told.served.values()]
    for name in dict.fromkeys(elsewhere):
        if name not in names:
            path, manifest = look(settings, told, name)
            known.append(_known(settings, told, name, path, manifest, champion, challenger))
    return known


def aliases(told: Told) -> tuple[str | None, str | None]:
    """Champion: what most partitions serve. Challenger: what was announced last, if it awaits its promotion.

    >>> aliases(Told())
    (None, None)
    """
    serving = Counter(each.release for each in told.served.values())
    champion = max(sorted(serving), key=lambda name: serving[name], default=None)
    last = told.announcements[-1] if told.announcements else None
    waits = last is not None and not last.promoted and last.release != champion
    return champion, last.release if last is not None and waits else None


def look(settings: Settings, told: Told, name: str) -> tuple[Path | None, Manifest | StateError | UsageError]:
    """Directory and manifest of a release by its name: in `release.directory`, or where it was announced.

    A directory that holds something else than was announced is not taken for it.
    """
    said = announced_as(told.announcements, name)
    uri = (
        said.uri
        if said is not None
        else next((each.uri for each in told.served.values() if each.release == name), None)
    )
    try:
        path = Registry(settings).find(name, uri)
    except UsageError as error:
        return None, error
    try:
        manifest = read_manifest(path, without_trust(settings))
        if manifest.name != name:
            raise StateError(f"release {path}: it must be {name}; it is {manifest.name}. Bring the directory back.")
        if said is not None and (sha := manifest_sha256(path)) != said.manifest_sha256:
            raise StateError(
                f"release {path}: its manifest must have sha256 {said.manifest_sha256}, as was announced; it has "
                f"{sha}. Bring back what was announced, or announce this one by 'tidegate release promote'."
            )
    except StateError as error:
        return path, error
    return path, manifest


def announced_as(announcements: Iterable[Release], name: str) -> Announced | None:
    """What was last announced under a name."""
    return next((each for each in followed(list(announcements)) if each.release == name), None)


def trust_in(path: Path, manifest: Manifest, settings: Settings) -> Trust:
    """Who vouches for the manifest at `path`."""
    if manifest.signature is None:
        return "unsigned"
    try:
        require_signed(path, settings)
    except StateError:
        return "untrusted"
    return "trusted" if settings.release.trusted_keys else "signed"


def _known(
    settings: Settings,
    told: Told,
    name: str,
    path: Path | None,
    found: Manifest | StateError | UsageError,
    champion: str | None,
    challenger: str | None,
) -> Known:
    manifest = found if isinstance(found, Manifest) else None
    said = next((each for each in reversed(told.announcements) if each.release == name), None)
    return Known(
        name=name,
        path=path,
        manifest=manifest,
        fault="" if isinstance(found, Manifest) else str(found),
        trust=trust_in(path, manifest, settings) if manifest is not None and path is not None else "unknown",
        said=said,
        announced=announced_as(told.announcements, name),
        partitions=_partitions(told.served, name),
        alias="champion" if name == champion else "challenger" if name == challenger else "",
    )


def _name(path: Path, found: Manifest | StateError) -> str:
    return found.name if isinstance(found, Manifest) else path.name


def _partitions(served: Mapping[int, Served], name: str) -> list[int]:
    return sorted(partition for partition, each in served.items() if each.release == name)
