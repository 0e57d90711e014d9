"""The releases topic: one compacted record, which announces a release and names those that it announced before."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import msgspec
import orjson

from schemas.manifest import Manifest
from schemas.release import EARLIER_MAX, Announced, Release
from schemas.retrain import POPULATION
from schemas.undecodable import UNDECODABLE
from stream.config import Settings
from stream.errors import EnvironmentFault, StateError
from stream.runtime.release.registry import manifest_sha256, uri_of, without_trust
from stream.runtime.release_store import read_manifest
from stream.runtime.single_record import deliver
from stream.runtime.topic_reader import TopicReader

_LOG = logging.getLogger(__name__)
KEY = POPULATION.encode()
_SCHEMA = "releases.v1"
_ATTEMPTS = 20
_DECODER = msgspec.json.Decoder(Release)


def announce(
    settings: Settings,
    manifest: Manifest,
    path: Path,
    *,
    decision: str,
    promoted: bool,
    passed_gate: bool = False,
    reader: TopicReader | None = None,
) -> Release:
    """Say on the releases topic that `path` holds a release; what was announced before stays named.

    Parameters
    ----------
    decision
        What the gate said of it, in a sentence.
    promoted
        Whether it is to be served.
    passed_gate
        Whether the gate has let it pass; where it was announced so before, it stays so.
    reader
        One that has reached the broker; None: a new one.

    Raises
    ------
    StateError
        When it is unsigned, none of `release.trusted_keys` vouches for it, or it is not what `manifest` says.
    EnvironmentFault
        When the broker does not take it.
    """
    signed = require_signed(path, settings)
    if signed != manifest:
        raise StateError(
            f"release {path}: it must be {manifest.name}, as it was read before; it is {signed.name}, or was written "
            "anew in the meantime. Name it again."
        )
    said = Release(
        release=manifest.name,
        parent=manifest.parent,
        space_id=manifest.space_id,
        feature_schema=manifest.feature_schema,
        state_schema=manifest.state_schema,
        manifest_sha256=manifest_sha256(path),
        uri=uri_of(path),
        created_time_ms=manifest.created_ms,
        git_revision=manifest.git_revision,
        metrics=manifest.metrics,
        decision=decision,
        promoted=promoted,
        passed_gate=passed_gate,
    )
    if reader is not None:
        return _announce(reader, settings, said)
    with closing(TopicReader(settings, "release")) as own:
        return _announce(own, settings, said)


def _announce(reader: TopicReader, settings: Settings, said: Release) -> Release:
    topic = settings.topics.releases
    found, end = announced(reader, settings)
    for _ in range(_ATTEMPTS):
        record = msgspec.structs.replace(
            said,
            passed_gate=said.passed_gate or passed(found, said.release, said.manifest_sha256),
            earlier=followed(found, said)[:EARLIER_MAX],
        )
        value = orjson.dumps(msgspec.to_builtins(record))
        offset = deliver(settings, "release", topic, value, key=KEY, schema=_SCHEMA, topics=reader)
        # Somebody may have announced between reading and writing, and is not named by what was written. What only
        # names others again, as those who find this out write too, asks for nothing: or nobody would ever end.
        between, _ = announced(reader, settings, end, offset)
        if _keys([*found, *between, said]) == _keys([*found, said]):
            return record
        found, end = [*found, *between], offset + 1
    raise EnvironmentFault(
        f"{topic}: others announced {_ATTEMPTS} times while {said.release} was being announced. "
        "Let one trainer write there, and try again."
    )


def followed(found: Sequence[Release], now: Release | None = None) -> list[Announced]:
    """All that the announcements `found` announce and name, the latest first, each once, and `now` not.

    Parameters
    ----------
    found
        In the order in which they lie on the topic.
    """
    named: dict[tuple[str, str], Announced] = {}
    for said in reversed(found):
        own = Announced(
            release=said.release, manifest_sha256=said.manifest_sha256, uri=said.uri, passed_gate=said.passed_gate
        )
        for each in (own, *said.earlier):
            named.setdefault((each.release, each.manifest_sha256), each)
    if now is not None:
        named.pop((now.release, now.manifest_sha256), None)
    return list(named.values())


def passed(found: Sequence[Release], release: str, manifest_sha256: str) -> bool:
    """Whether any of the announcements `found` says that the gate let this release pass."""
    named: list[Release | Announced] = [*found, *(each for said in found for each in said.earlier)]
    asked = (release, manifest_sha256)
    return any(each.passed_gate and (each.release, each.manifest_sha256) == asked for each in named)


def _keys(found: Sequence[Release]) -> set[tuple[str, str]]:
    return {(each.release, each.manifest_sha256) for each in followed(found)}


def announced(
    reader: TopicReader, settings: Settings, start: int | None = None, end: int | None = None
) -> tuple[list[Release], int]:
    """Announcements on the topic, the latest last, and the offset up to which it was read.

    Parameters
    ----------
    start, end
        Offsets to read from, and to stop before; None: the whole topic, of which compaction leaves one.

    Raises
    ------
    EnvironmentFault
        When there is no such topic.
    """
    topic = settings.topics.releases
    if start is None or end is None:
        bounds = reader.bounds(topic)[0]
        start, end = bounds.start if start is None else start, bounds.end if end is None else end
    found = []
    for offset, value in _values(reader, topic, start, end):
        try:
            found.append(_DECODER.decode(value))
        except UNDECODABLE as error:
            # Whoever wrote that: it must not keep others from announcing.
            _LOG.warning("%s[0]@%d is no release, and is passed over: %s", topic, offset, error)
    return found, end


def _values(reader: TopicReader, topic: str, start: int, end: int) -> Iterator[tuple[int, bytes]]:
    for records in reader.read(topic, 0, start, end):
        for record in records:
            if record.key == KEY and record.value is not None:
                yield record.offset, record.value


def require_signed(path: Path, settings: Settings) -> Manifest:
    """The manifest in directory `path`, which has to be signed: by a trusted key, where any is configured.

    Raises
    ------
    StateError
        When it is not.
    """
    manifest = read_manifest(path, without_trust(settings))
    if manifest.signature is None:
        raise StateError(
            f"release {path}: it must be signed to be announced; it is unsigned. Set release.signing_key_file, and "
            "make it anew with 'tidegate train'."
        )
    trusted = settings.release.trusted_keys or (manifest.signature.key,)
    return read_manifest(path, replace(settings, release=replace(settings.release, trusted_keys=trusted)))
