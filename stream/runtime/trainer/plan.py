"""What a job is made of, pinned before it begins: a job that was killed goes on with the very same."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from schemas.control import Control, ReleaseSwitch
from schemas.manifest import InputRange
from schemas.retrain import RetrainRequest
from schemas.undecodable import UNDECODABLE
from stream.config import Settings
from stream.errors import StateError, UsageError
from stream.runtime.release.history import History, histories, mostly_served
from stream.runtime.release.registry import Registry, manifest_sha256
from stream.runtime.topic_reader import Bounds, TopicReader, Window

_LOG = logging.getLogger(__name__)
_DAY_MS = 86_400_000
_TAIL = 2_000
_SECTIONS = ("trainer", "gate", "embedder", "transformer", "decision", "learning", "core", "budget", "routing")
"""Of the settings, what a release depends on."""
_OF_THIS_MACHINE = {
    "trainer": ("directory", "corpus"),
    "embedder": ("path", "device"),
    "transformer": ("path", "device"),
}
"""And of those what it does not: a job may go on elsewhere, or faster."""


class Champion(msgspec.Struct, frozen=True, kw_only=True):
    """The release in service when the job was planned."""

    release: str
    manifest_sha256: str
    uri: str | None = None


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a job reads, and what it is compared with."""

    v: int = 1
    request: RetrainRequest
    champion: Champion | None
    """None: nothing is in service, as far as anybody knows."""
    events: list[InputRange]
    scores: list[InputRange]
    labels: list[InputRange]
    controls_end: int
    """End of the controls topic: the job's own lies behind it."""
    seed: int
    settings: dict[str, dict[str, Any]]
    git_revision: str | None


def make_plan(
    request: RetrainRequest, reader: TopicReader, settings: Settings, *, now_ms: int, git_revision: str | None
) -> Plan:
    """Pin ranges, champion, seed and settings.

    Raises
    ------
    UsageError, StateError
        When the champion is not to be had.
    EnvironmentFault
        When a topic is missing, or no broker answers.
    """
    topics, since = settings.topics, Window(from_time_ms=now_ms - round(settings.trainer.lookback_days * _DAY_MS))
    controls = reader.bounds(topics.controls)[0]
    events = reader.bounds(topics.events, since)
    return Plan(
        request=request,
        champion=_champion(request, reader, settings, controls.end),
        events=_ranges(topics.events, _bounded(events, settings.trainer.events_max)),
        scores=_ranges(topics.scores, reader.bounds(topics.scores, since)),
        labels=_ranges(topics.labels, reader.bounds(topics.labels)),
        controls_end=controls.end,
        seed=int(request.request_id[:7], 16),
        settings=_pinned(settings),
        git_revision=git_revision,
    )


def planned(settings: Settings, plan: Plan) -> Settings:
    """These settings, with those that were pinned.

    Raises
    ------
    StateError
        When this version has no such settings.
    """
    sections: dict[str, Any] = {}
    for name, values in plan.settings.items():
        section = getattr(settings, name)
        try:
            sections[name] = replace(section, **values)
        except (TypeError, UsageError) as error:
            raise StateError(
                f"job {plan.request.request_id}: its plan's section {name} must be one that this version reads; "
                f"{error}. Remove the job's directory and ask again."
            ) from error
    return replace(settings, **sections)


@dataclass(frozen=True, slots=True)
class Asked:
    """A control of kind `release`, as it lies on its topic."""

    offset: int
    time_ms: int
    """Of the record."""
    control: Control
    switch: ReleaseSwitch


def served_as_told(reader: TopicReader, settings: Settings) -> dict[int, History]:
    """Partition -> what its journal tells of releases; nothing where there is no journal yet."""
    topic = settings.topics.journal
    return histories(reader, topic) if topic in reader else {}


def last_switch(reader: TopicReader, settings: Settings, end: int, start: int = 0) -> Asked | None:
    """The latest control between two offsets that says which release to serve."""
    first = reader.bounds(settings.topics.controls)[0].first
    low, high = max(end - _TAIL, start, first), end
    while low < high:
        found = None
        for asked in switches(reader, settings, low, high):
            found = asked
        if found is not None or low <= max(start, first):
            return found
        low, high = max(low - 8 * _TAIL, start, first), low
    return None


def switches(reader: TopicReader, settings: Settings, start: int, end: int) -> Iterator[Asked]:
    """Each control of kind `release` between two offsets."""
    for records in reader.read(settings.topics.controls, 0, start, end):
        for record in records:
            try:
                control = msgspec.json.decode(record.value or b"", type=Control)
                if control.kind == "release":
                    switch = msgspec.convert(control.value, ReleaseSwitch)
                    yield Asked(record.offset, record.timestamp_ms, control, switch)
            except UNDECODABLE as error:
                _LOG.warning("%s is no control, and is passed over: %s", record.position, error)


def find_champion(champion: Champion, settings: Settings) -> Path:
    """Where the champion is.

    Raises
    ------
    UsageError, StateError
        When it is not to be had, or is another one than was planned with.
    """
    path = Registry(settings).find(champion.release, champion.uri)
    if (found := manifest_sha256(path)) != champion.manifest_sha256:
        raise StateError(
            f"release {path}: its manifest must have sha256 {champion.manifest_sha256}, as the one in service; it has "
            f"{found}. Put the release that is in service there."
        )
    return path


def _champion(request: RetrainRequest, reader: TopicReader, settings: Settings, controls_end: int) -> Champion | None:
    """What the journals tell is served, else what a control asks for, else what the request saw in service.

    A control alone says little: scorers refuse what they cannot load.
    """
    registry = Registry(settings)
    served = mostly_served(served_as_told(reader, settings))
    if served is not None:
        sha256 = served.manifest_sha256
        if sha256 is None:
            sha256 = manifest_sha256(registry.find(served.release, served.uri))
        return Champion(release=served.release, manifest_sha256=sha256, uri=served.uri)
    if (asked := last_switch(reader, settings, controls_end)) is not None:
        switch = asked.switch
        return Champion(release=switch.release, manifest_sha256=switch.manifest_sha256, uri=switch.uri)
    if request.release is None:
        return None
    return Champion(release=request.release, manifest_sha256=manifest_sha256(registry.path_of(request.release)))


def _ranges(topic: str, bounds: Mapping[int, Bounds]) -> list[InputRange]:
    return [
        InputRange(topic=topic, partition=partition, from_offset=bound.start, to_offset=bound.end)
        for partition, bound in sorted(bounds.items())
        if bound.start < bound.end
    ]


def _bounded(bounds: Mapping[int, Bounds], most: int) -> dict[int, Bounds]:
    """The latest `most` offsets, of every partition the same share."""
    total = sum(bound.end - bound.start for bound in bounds.values())
    if total <= most:
        return dict(bounds)
    _LOG.warning("%d events of %d are trained on, the latest: trainer.events_max", most, total)
    return {
        partition: replace(bound, start=bound.end - (bound.end - bound.start) * most // total)
        for partition, bound in bounds.items()
    }


def _pinned(settings: Settings) -> dict[str, dict[str, Any]]:
    sections: dict[str, dict[str, Any]] = {}
    for name in _SECTIONS:
        values = asdict(getattr(settings, name))
        sections[name] = {key: value for key, value in values.items() if key not in _OF_THIS_MACHINE.get(name, ())}
    return sections
