"""Announce and promote, each once: what is on the topics is read before anything is written again."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from schemas.manifest import Manifest
from stream.config import Settings
from stream.runtime.release.announce import announce, announced, followed
from stream.runtime.release.promote import promote
from stream.runtime.release.registry import manifest_sha256
from stream.runtime.topic_reader import TopicReader
from stream.runtime.trainer.plan import Plan, last_switch, switches

ISSUER = "tidegate trainer"


def announce_once(settings: Settings, manifest: Manifest, path: Path, *, decision: str, promoted: bool) -> bool:
    """Announce a release unless it is announced already; whether it was done now.

    Raises
    ------
    StateError
        When it may not be announced.
    EnvironmentFault
        When the topic is missing, or no broker answers.
    """
    with closing(TopicReader(settings, "trainer")) as reader:
        said, _ = announced(reader, settings)
    known = {(each.release, each.manifest_sha256) for each in followed(said)}
    if (manifest.name, manifest_sha256(path)) in known:
        return False
    announce(settings, manifest, path, decision=decision, promoted=promoted)
    return True


def promote_once(settings: Settings, manifest: Manifest, path: Path, plan: Plan, *, why: str) -> str | None:
    """Ask the scorers to serve a release unless this job has done so; why it was not asked for, None where it was.

    Where another release than the one it was compared with is in service by now, nobody has compared the two.

    Raises
    ------
    StateError
        When it may not be served.
    EnvironmentFault
        When the topic is missing, or no broker answers.
    """
    with closing(TopicReader(settings, "trainer")) as reader:
        end = reader.bounds(settings.topics.controls)[0].end
        for _, control, switch in switches(reader, settings, plan.controls_end, end):
            if control.issuer == ISSUER and switch.release == manifest.name:
                return None
        now = last_switch(reader, settings, end, plan.controls_end)
    if now is not None and (plan.champion is None or now.release != plan.champion.release):
        other = plan.champion.release if plan.champion is not None else "nothing"
        return (
            f"{now.release} was put in service while it was made, and it was compared with {other}: promote it with "
            f"'tidegate release promote {manifest.name}', or ask for a training anew"
        )
    promote(settings, manifest, path, who=ISSUER, why=why)
    return None
