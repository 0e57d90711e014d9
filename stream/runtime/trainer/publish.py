"""Announce and promote, each once: what is on the topics is read before anything is written again."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from schemas.manifest import Manifest
from stream.config import Settings
from stream.runtime.release.announce import announce, announced, followed
from stream.runtime.release.history import History, awaited, mostly_served
from stream.runtime.release.promote import promote
from stream.runtime.release.registry import manifest_sha256
from stream.runtime.topic_reader import TopicReader
from stream.runtime.trainer.plan import Asked, Plan, last_switch, served_as_told, switches

ISSUER = "tidegate trainer"


def announce_once(settings: Settings, manifest: Manifest, path: Path, *, decision: str, passed: bool) -> bool:
    """Announce a release, and whether the gate let it pass, unless that was done already; whether it was done now.

    Raises
    ------
    StateError
        When it may not be announced.
    EnvironmentFault
        When the topic is missing, or no broker answers.
    """
    with closing(TopicReader(settings, "trainer")) as reader:
        said, _ = announced(reader, settings)
    # Somebody may have promoted it past the gate before the gate's word was announced.
    known = {(each.release, each.manifest_sha256) for each in followed(said) if each.passed_gate or not passed}
    if (manifest.name, manifest_sha256(path)) in known:
        return False
    announce(settings, manifest, path, decision=decision, promoted=passed, passed_gate=passed)
    return True


def promote_once(settings: Settings, manifest: Manifest, path: Path, plan: Plan, *, why: str) -> str | None:
    """Ask the scorers to serve a release unless this job has done so; why it was not asked for, None where it was.

    Where another release than the one it was compared with is in service by now, or asked for and not refused yet,
    nobody has compared the two.

    Raises
    ------
    StateError
        When it may not be served.
    EnvironmentFault
        When the topic is missing, or no broker answers.
    """
    with closing(TopicReader(settings, "trainer")) as reader:
        end = reader.bounds(settings.topics.controls)[0].end
        for asked in switches(reader, settings, plan.controls_end, end):
            if asked.control.issuer == ISSUER and asked.switch.release == manifest.name:
                return None
        asked_last = last_switch(reader, settings, end)
        now = _in_service(served_as_told(reader, settings), asked_last)
    champion = plan.champion.release if plan.champion is not None else None
    if now is not None and now != champion:
        other = champion or "nothing"
        return (
            f"{now} was put in service while it was made, and it was compared with {other}: promote it with "
            f"'tidegate release promote {manifest.name}', or ask for a training anew"
        )
    promote(settings, manifest, path, who=ISSUER, why=why)
    return None


def _in_service(found: Mapping[int, History], asked: Asked | None) -> str | None:
    """The release that is served, or will be by the last control, unless every scorer has refused that."""
    served = mostly_served(found)
    if asked is not None and (served is None or awaited(found, asked.offset, asked.time_ms)):
        return asked.switch.release
    return served.release if served is not None else None
