"""`tidegate score`."""

from __future__ import annotations

import argparse

from stream.config import Settings
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

    def load() -> InService:
        # Imported while the group is being joined and the producer fences its predecessor.
        from stream.core import Core
        from stream.runtime.embedders import as_configured, load_embedder
        from stream.runtime.release_store import load_release

        embedder = load_embedder(settings.embedder)
        stored = load_release(arguments.release, settings, embedder.space_id)
        release = as_configured(stored, settings, embedder.vocabulary)
        core = Core(settings, release, embedder)
        return InService(core, release.name, release.space_id, release.feature_schema, release.state_schema)

    member = Membership(arguments.group_id, arguments.instance_id)
    exactly_once = arguments.delivery == "exactly-once"
    score_service(settings, load, member, until_end=arguments.until_end, exactly_once=exactly_once).run()
    return 0
