"""`tidegate release promote` and `rollback`: another release for every partition, waited for."""

from __future__ import annotations

import argparse
import logging
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import msgspec

from schemas.control import Control, ReleaseSwitch
from schemas.manifest import Manifest
from schemas.release import Release
from schemas.safe_text import safe_text
from schemas.undecodable import UNDECODABLE
from stream.config import Settings
from stream.errors import CheckFailed, StateError, TidegateError, UsageError
from stream.runtime.release.announce import announce, announced, passed, require_signed
from stream.runtime.release.history import History, Served, awaited, before, histories, in_service, last_served
from stream.runtime.release.promote import await_switch, journal_ends, promote
from stream.runtime.release.registry import Registry, manifest_sha256, without_trust
from stream.runtime.release.words import counted, ranges
from stream.runtime.release_store import load_release, read_manifest
from stream.runtime.topic_reader import TopicReader

_LOG = logging.getLogger(__name__)
_CONTROL = msgspec.json.Decoder(Control)
_FIRST_TAIL = 1_000
_FURTHER = 16
_DECISION_CHARS = 400


@dataclass(frozen=True, slots=True)
class _Asked:
    """The last control that asks for a release."""

    switch: ReleaseSwitch
    offset: int
    time_ms: int


def run_promote(settings: Settings, arguments: argparse.Namespace) -> int:
    """Let every scorer serve a release that the gate let pass, and announce it if that has not been done.

    Raises
    ------
    TidegateError
        With the exit code that says what is wrong.
    """
    began = time.monotonic()
    path = Registry(settings).path_of(arguments.release)
    manifest = require_signed(path, settings)
    load_release(path, settings)
    with closing(TopicReader(settings, "release")) as reader:
        serving = in_service(histories(reader, settings.topics.journal))
        _check_ids(manifest, serving)
        announcements, _ = announced(reader, settings)
        last = announcements[-1] if announcements and _announces(announcements[-1], manifest, path) else None
        overrides = not passed(announcements, manifest.name, manifest_sha256(path))
        if overrides:
            _check_override(manifest, last, arguments)
            why, how = f"past the gate: {arguments.why}", "Promoted past the gate"
        else:
            why, how = arguments.why or "promoted by hand", "Promoted"
        if last is None or not last.promoted or overrides:
            gate = f"{last.decision} " if last is not None and last.decision else ""
            decision = f"{gate}{how} by {arguments.who}: {arguments.why or why}."
            announce(settings, manifest, path, decision=decision, promoted=True, reader=reader)
        starts = journal_ends(reader, settings)
        offset = promote(settings, manifest, path, who=arguments.who, why=why, topics=reader)
    print(f"{manifest.name} is asked for by control {offset}; in service until then: {_told(serving)}.", flush=True)
    if not arguments.no_wait:
        _await(settings, manifest.name, offset, arguments.timeout, starts, began)
    _crown(settings, manifest.name)
    return 0


def run_rollback(settings: Settings, arguments: argparse.Namespace) -> int:
    """Let every scorer serve the release that was served before, or the one that is named.

    Raises
    ------
    TidegateError
        With the exit code that says what is wrong.
    """
    began = time.monotonic()
    with closing(TopicReader(settings, "release")) as reader:
        found = histories(reader, settings.topics.journal)
        serving = in_service(found)
        path, former = _back_to(settings, arguments.release, found, reader)
        # A scorer takes no release from a control but a signed one; better told here than by its refusal.
        manifest = require_signed(path, settings)
        _check_same(former, manifest, path)
        load_release(path, settings)
        _check_ids(manifest, serving)
        why = arguments.why or "rolled back by hand"
        starts = journal_ends(reader, settings)
        offset = promote(settings, manifest, path, who=arguments.who, why=why, topics=reader)
        until_then = f"in service until then: {_told(serving)}"
        print(f"back to {manifest.name}, asked for by control {offset}; {until_then}.", flush=True)
        if not arguments.no_wait:
            _await(settings, manifest.name, offset, arguments.timeout, starts, began)
        try:
            # After the switch: whoever looks for the release to be served finds this one, and no scorer waits for it.
            decision = f"Rolled back to by {arguments.who}: {why}."
            announce(settings, manifest, path, decision=decision, promoted=True, reader=reader)
        except TidegateError as error:
            _LOG.warning("%s is asked for, but the releases topic does not say so: %s", manifest.name, error)
    _crown(settings, manifest.name)
    return 0


def _crown(settings: Settings, name: str) -> None:
    """Tell MLflow, last of all: it takes seconds, and nothing waits for it."""
    from stream.runtime.trainer.tracking import TrackingFailed, crown

    try:
        crown(settings, name)
    except TrackingFailed as error:
        _LOG.warning("MLflow's alias champion stays where it is, until the trainer's next start: %s", error)


# -- what is served, and what was --------------------------------------------------------------------------------------


def _back_to(
    settings: Settings, named: str | None, found: Mapping[int, History], reader: TopicReader
) -> tuple[Path, Served]:
    """Where the release to go back to is, and when it was served: the one before, or the one that somebody names."""
    if named is not None:
        path = Registry(settings).path_of(named)
        name = read_manifest(path, without_trust(settings)).name
        served = last_served(reader, settings.topics.journal, name, found)
        if served is None:
            raise CheckFailed(
                f"release {name}: to go back to it, it must have been served; {settings.topics.journal} tells of no "
                "partition that did. Promote it: 'tidegate release promote'."
            )
        return path, served
    former = _former(settings, found, _last_asked(reader, settings))
    return Registry(settings).find(former.release, former.uri), former


def _former(settings: Settings, found: Mapping[int, History], asked: _Asked | None) -> Served:
    """What was served before the release that is served, or that partitions are still asked to serve."""
    serving = in_service(found)
    if asked is not None and serving and awaited(found, asked.offset, asked.time_ms):
        names = Counter(each.release for each in serving.values() if each.release != asked.switch.release)
        if len(names) > 0 and all(each.release != asked.switch.release for each in serving.values()):
            name = max(sorted(names), key=lambda each: names[each])
            return next(each for each in serving.values() if each.release == name)
    pair = before(found)
    if pair is None:
        served = f"{_told(serving)} is the first that was served" if serving else "nothing has been served yet"
        raise UsageError(
            f"{settings.topics.journal}: there is no release to go back to: {served}. Promote the one that is to "
            "be served; 'tidegate release list' shows which there are."
        )
    return pair[1]


def _last_asked(reader: TopicReader, settings: Settings) -> _Asked | None:
    """The last control for a release; it is looked for from the end of the topic, which is kept for ever."""
    topic = settings.topics.controls
    bounds = reader.bounds(topic)[0]
    tail, found = _FIRST_TAIL, None
    while True:
        start = max(bounds.start, bounds.end - tail)
        for records in reader.read(topic, 0, start, bounds.end):
            for record in records:
                switch = _switch(record.value or b"")
                if switch is not None:
                    found = _Asked(switch, record.offset, record.timestamp_ms)
        if found is not None or start == bounds.start:
            return found
        tail *= _FURTHER


def _switch(value: bytes) -> ReleaseSwitch | None:
    if b'"release"' not in value:
        return None
    try:
        control = _CONTROL.decode(value)
        return msgspec.convert(control.value, ReleaseSwitch) if control.kind == "release" else None
    except UNDECODABLE:
        # The scorer refuses it by itself, and says so.
        return None


# -- checks ------------------------------------------------------------------------------------------------------------


def _check_override(manifest: Manifest, said: Release | None, arguments: argparse.Namespace) -> None:
    """Nobody serves what the gate did not let pass but by saying so, and why."""
    if arguments.override_gate and arguments.why.strip():
        return
    if said is None:
        gate = "the releases topic tells of no decision on it."
    else:
        gate = f"of it was said: {safe_text(said.decision, _DECISION_CHARS) or 'nothing'}"
    raise CheckFailed(
        f"release {manifest.name}: the gate must have let it pass to be promoted; {gate} Let the trainer make one, go "
        "back to one that was served with 'tidegate release rollback', or promote this one all the same with "
        "--override-gate and --why, which are kept."
    )


def _check_ids(manifest: Manifest, serving: Mapping[int, Served]) -> None:
    ours = (manifest.space_id, manifest.feature_schema, manifest.state_schema)
    names = ("space_id", "feature_schema", "state_schema")
    for partition, served in serving.items():
        if served.ids is None or served.ids == ours:
            continue
        differing = ", ".join(
            f"{name} {theirs!r} against {own!r}"
            for name, theirs, own in zip(names, served.ids, ours, strict=True)
            if theirs != own
        )
        raise StateError(
            f"release {manifest.name}: its ids must be those of {served.release}, which partition {partition} serves, "
            f"for scorers to go on from the same state; they differ: {differing}. Start a second scorer with its own "
            f"--group-id and --output-prefix and --release {manifest.name}, and let it take over once it has caught up."
        )


def _check_same(former: Served, manifest: Manifest, path: Path) -> None:
    if manifest.name != former.release:
        raise StateError(
            f"release {path}: it must be {former.release}, which was served; it is {manifest.name}. "
            "Bring the directory back, or name another release."
        )
    if former.manifest_sha256 is not None and (sha := manifest_sha256(path)) != former.manifest_sha256:
        raise StateError(
            f"release {path}: its manifest must have sha256 {former.manifest_sha256}, as when it was served; it has "
            f"{sha}. Bring the directory back, or serve what is there now with 'tidegate release promote'."
        )


def _announces(said: Release, manifest: Manifest, path: Path) -> bool:
    return (said.release, said.manifest_sha256) == (manifest.name, manifest_sha256(path))


# -- waiting -----------------------------------------------------------------------------------------------------------


def _await(settings: Settings, name: str, offset: int, timeout: float, starts: Mapping[int, int], began: float) -> None:
    waiting = time.monotonic() - began
    switched = await_switch(settings, name, offset, timeout, starts=starts)
    for partition, when in switched.items():
        print(f"  partition {partition}: from offset {when.before_offset} on, after {waiting + when.seconds:.2f} s")
    seconds = max((when.seconds for when in switched.values()), default=0.0)
    served = counted(len(switched), "partition")
    print(f"{name} is served by all of {served}, {waiting + seconds:.2f} s after this command began.", flush=True)


def _told(serving: Mapping[int, Served]) -> str:
    names = sorted({each.release for each in serving.values()})
    if len(names) < 2:
        return names[0] if names else "nothing yet"
    return "; ".join(
        f"{name} by {ranges(sorted(p for p, each in serving.items() if each.release == name))}" for name in names
    )
