"""The services, put together: checks first, then what takes long side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Event

from schemas.dead_letter import PayloadMode
from stream.config import Settings
from stream.errors import UsageError
from stream.runtime.broker import Broker
from stream.runtime.changelog import Changelog, JournalTopic
from stream.runtime.clients import Membership, now_ms, service
from stream.runtime.controls import ControlLog, ControlQueue
from stream.runtime.ingest import IngestPipeline, Normaliser
from stream.runtime.kafka_client import client_config
from stream.runtime.metrics import Metrics
from stream.runtime.own_topics import check_sources
from stream.runtime.permissions import check_permissions
from stream.runtime.release.loader import Reason
from stream.runtime.restore import Restorer
from stream.runtime.scorer import InService, ScorePipeline, ScoreTopics, ScoringCore
from stream.runtime.service import Service
from stream.sinks.kafka import DeadLetterTopic, OutputTopic
from stream.sources.kafka import RangeReader


def score_service(
    settings: Settings,
    load: Callable[[], InService],
    member: Membership,
    *,
    until_end: bool = False,
    exactly_once: bool = True,
    shadow: bool = False,
    stopping: Event | None = None,
) -> Service:
    """`tidegate score`, ready to run.

    Parameters
    ----------
    load
        Reads release and embedder and makes the core; called while the group is being joined.
    shadow
        Score beside the one in service: no findings, no dead letters, and always with the release that `load` reads.
    stopping
        Ends the service as SIGTERM does.

    Raises
    ------
    EnvironmentFault
        When the broker or a topic is not as it must be.
    """
    broker = Broker(settings, "score")
    topics, common = settings.topics, client_config(settings, "score")
    unused = (topics.findings, f"{topics.events}.dlq") if shadow else ()
    check_permissions(broker.admin, settings, "score", member.group_id, but=unused)
    written = [topics.scores, topics.state, topics.journal, *(() if shadow else (topics.findings,))]
    broker.require([topics.events, *written], topics.partitions, single=[topics.controls])
    dead_letters = None
    if not shadow:
        dead_letters = _dead_letters(settings, broker, topics.events, "tidegate.score", "stream.core.Core")

    def outputs(release: str) -> ScoreTopics:
        return ScoreTopics(
            OutputTopic(topics.scores, "scores.v1", release),
            None if shadow else OutputTopic(topics.findings, "findings.v1", release),
            dead_letters,
            Changelog(topics.state),
            JournalTopic(topics.journal, release, topics.events),
        )

    def pipeline(metrics: Metrics) -> ScorePipeline:
        reader = RangeReader(common)

        def restorer(core: ScoringCore) -> Restorer:
            return Restorer(
                core, reader, broker.ends, inputs=topics.events, state=topics.state, exact=exactly_once, metrics=metrics
            )

        def controls(refused: Callable[[Reason, str], None]) -> ControlQueue:
            log = ControlLog(common, topics.controls, reader)
            return ControlQueue(log, broker.ends, follows=not shadow, refused=refused)

        return ScorePipeline(settings, load, outputs, restorer, controls, reader, broker.ends, metrics, now_ms)

    return service(
        settings,
        common,
        broker.ends,
        member,
        {topics.events: topics.partitions},
        pipeline,
        exactly_once=exactly_once,
        until_end=until_end,
        stopping=stopping,
    )


def ingest_service(
    settings: Settings,
    sources: Sequence[str],
    load: Callable[[], Normaliser],
    member: Membership,
    *,
    until_end: bool = False,
    stopping: Event | None = None,
) -> Service:
    """`tidegate ingest`, ready to run; creates missing dead letter topics.

    Parameters
    ----------
    sources
        Topics that gateways write to.
    load
        Makes the normaliser; called while the group is being joined.

    Raises
    ------
    UsageError
        When there is no source, or it is one of Tidegate's own topics.
    EnvironmentFault
        When the broker or a topic is not as it must be.
    """
    if not sources:
        raise UsageError("--source-topic must name at least one topic. Set --source-topic TOPIC[,TOPIC].")
    check_sources(settings.topics, sources)
    broker = Broker(settings, "ingest")
    check_permissions(broker.admin, settings, "ingest", member.group_id, sources=sources)
    topics, common = settings.topics, client_config(settings, "ingest")
    inputs = {source: broker.partitions(source) for source in sources}
    broker.require([topics.events], topics.partitions)
    step = "stream.steps.ingest.IngestStep"
    dead_letters = {source: _dead_letters(settings, broker, source, "tidegate.ingest", step) for source in sources}

    def pipeline(metrics: Metrics) -> IngestPipeline:
        events = OutputTopic(topics.events, "events.v1")
        return IngestPipeline(load, events, dead_letters, RangeReader(common), metrics, now_ms)

    return service(settings, common, broker.ends, member, inputs, pipeline, until_end=until_end, stopping=stopping)


def _dead_letters(settings: Settings, broker: Broker, source: str, connector: str, step: str) -> DeadLetterTopic:
    name = f"{source}.dlq"
    broker.ensure_dead_letters(name, source)
    mode: PayloadMode = "reference" if settings.dlq.payload == "reference" else "raw"
    return DeadLetterTopic(
        name, broker.partitions(name), broker.message_bytes_max(name), mode, connector=connector, step=step
    )
