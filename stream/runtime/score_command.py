"""`tidegate score`."""

from __future__ import annotations

import argparse

from stream.config import Settings
from stream.errors import UsageError
from stream.runtime.acls import GROUPS
from stream.runtime.clients import Membership
from stream.runtime.scorer import InService
from stream.runtime.services import score_service


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Serve until told to stop, or until the end.

    Raises
    ------
    TidegateError
        With the exit code that says what is wrong.
    """
    if arguments.shadow:
        _check_shadow(settings, arguments.group_id)

    def load() -> InService:
        # Imported while the group is being joined and the producer fences its predecessor.
        from stream.core import Core
        from stream.runtime.embedders import load_embedder
        from stream.runtime.release.stored import StoredReleases

        embedder = load_embedder(settings.embedder)
        releases = StoredReleases(settings, embedder.space_id, embedder.vocabulary)
        given = releases.given(arguments.release)
        return InService(Core(settings, given.release, embedder), given, releases)

    member = Membership(arguments.group_id, arguments.instance_id)
    exactly_once = arguments.delivery == "exactly-once"
    score_service(
        settings,
        load,
        member,
        until_end=arguments.until_end,
        exactly_once=exactly_once,
        shadow=arguments.shadow,
    ).run()
    return 0


def _check_shadow(settings: Settings, group_id: str) -> None:
    """What a shadow writes must not be what the scorer in service reads."""
    if group_id == GROUPS["score"]:
        raise UsageError(
            f"--shadow needs a group of its own, or it takes partitions from the scorer in service; got {group_id!r}. "
            "Set --group-id, such as tidegate.shadow."
        )
    topics = settings.topics
    if topics.output_prefix in ("", topics.prefix):
        raise UsageError(
            "--shadow needs topics of its own for scores, state and journal. Set --output-prefix, such as shadow., "
            "and create them with 'tidegate topics create --output-prefix shadow.'."
        )
