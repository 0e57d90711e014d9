"""`tidegate ingest`."""

from __future__ import annotations

import argparse

from stream.config import Settings
from stream.runtime.clients import Membership
from stream.runtime.ingest import Normaliser
from stream.runtime.services import ingest_service


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Serve until told to stop, or until the end.

    Raises
    ------
    TidegateError
        With the exit code that says what is wrong.
    """

    def load() -> Normaliser:
        # Imported while the group is being joined: the redactor compiles its rules then.
        from stream.steps.ingest import IngestStep
        from stream.steps.route import Router

        ingest = settings.ingest
        return IngestStep(
            Router(settings.topics.partitions, settings.routing.shards),
            format=arguments.format,
            policy=settings.redaction.policy,
            depth_max=ingest.depth_max,
            bytes_max=ingest.bytes_max,
            tenant_field=ingest.tenant_field,
            tenant_default=ingest.tenant_default,
        )

    sources = [name for name in (part.strip() for part in arguments.source_topic.split(",")) if name]
    member = Membership(arguments.group_id, arguments.instance_id)
    ingest_service(settings, sources, load, member, until_end=arguments.until_end).run()
    return 0
