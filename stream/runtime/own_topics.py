"""Tidegate's own topics by name: which no gateway may write to, and the command that creates them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from stream.config import TopicsSettings
from stream.errors import UsageError


def own_topics(topics: TopicsSettings) -> set[str]:
    """Every topic that Tidegate writes, under either prefix, and the events' dead letters.

    >>> sorted(own_topics(TopicsSettings(output_prefix="green.")))[-3:]
    ['green.genai.anomaly.journal.v1', 'green.genai.anomaly.scores.v1', 'green.genai.anomaly.state.v1']
    """
    names = {topics.events, f"{topics.events}.dlq", topics.controls, topics.releases}
    names |= {topics.verdicts, f"{topics.verdicts}.dlq", topics.labels, topics.retrain}
    for each in (topics, replace(topics, output_prefix="")):
        names |= {each.scores, each.findings, each.state, each.journal}
    return names


def check_sources(topics: TopicsSettings, sources: Sequence[str]) -> None:
    """Refuse sources that Tidegate itself writes: they would be read for ever, or created with one partition.

    Raises
    ------
    UsageError
        When one is Tidegate's own.
    """
    if own := sorted(own_topics(topics).intersection(sources)):
        raise UsageError(
            f"--source-topic must name topics that gateways write to; got {', '.join(own)}, which Tidegate writes. "
            "Leave it out."
        )


def create_command(topics: TopicsSettings, missing: Iterable[str]) -> str:
    """What creates topics that are missing, dead letters of sources included.

    >>> create_command(TopicsSettings(), ["genai.anomaly.scores.v1", "genai.gateway.events.v1.dlq", "litellm.logs.dlq"])
    'tidegate topics create --source-topic litellm.logs'
    >>> create_command(TopicsSettings(output_prefix="green."), ["green.genai.anomaly.scores.v1"])
    'tidegate topics create --output-prefix green.'
    """
    names = set(missing)
    command = "tidegate topics create"
    if sources := sorted(name.removesuffix(".dlq") for name in names - own_topics(topics) if name.endswith(".dlq")):
        command += f" --source-topic {','.join(sources)}"
    if topics.output_prefix and names & {topics.scores, topics.findings, topics.state, topics.journal}:
        command += f" --output-prefix {topics.output_prefix}"
    return command
