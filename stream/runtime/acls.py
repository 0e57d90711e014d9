"""`tidegate topics acls`: what each command's principal needs of a cluster with an authorizer, and no more.

`GRANTS` is the one declaration; the runbook's table of permissions is made of it by `scripts/runbook_tables.py`.
"""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import orjson

from stream.config import Settings, TopicsSettings
from stream.errors import UsageError
from stream.runtime.own_topics import check_sources, own_topics

Kind = Literal["topic", "group", "transactional-id", "cluster"]
Pattern = Literal["literal", "prefixed"]

GROUPS = {
    "ingest": "tidegate.ingest",
    "score": "tidegate.score",
    "feedback": "tidegate.feedback",
    "trainer": "tidegate.trainer",
}
"""Services that are members of a group, with the group's default id."""
READER_GROUP = "tidegate.range-reader"
"""A consumer cannot be made without a group; nothing is ever committed to this one."""
SOURCE, EVERY = "{source}", "{every}"
_SHELL = (
    "#!/bin/sh\n# Grants what Tidegate needs, by kafka-acls.sh on the PATH. To run it again changes nothing.\nset -eu\n"
)
_PRINCIPAL = re.compile(r"[A-Za-z][A-Za-z0-9]*:\S.*")


@dataclass(frozen=True, slots=True)
class Grant:
    """One permission of one command."""

    command: str
    kind: Kind
    name: str
    """With `{source}`, `{every}` topic, `{group}` or one of the settings' topics in braces to be filled in."""
    operations: tuple[str, ...]
    """As Kafka names them; Read and Write include Describe."""
    when: str = ""
    """The case in which it is needed, in words that follow the operations; empty for always."""
    pattern: Pattern = "literal"


def _service(command: str) -> tuple[Grant, ...]:
    """What a member of a group that writes in transactions needs beside its topics."""
    return (
        Grant(command, "group", "{group}", ("Read",)),
        Grant(command, "transactional-id", "{group}.", ("Write",), pattern="prefixed"),
    )


def _reader(command: str) -> Grant:
    return Grant(command, "group", READER_GROUP, ("Describe",))


_OLD_BROKERS = "with `--delivery at-least-once` on brokers before 2.8"
_DEAD_LETTERS_NOT_MADE = "where `topics create` has not made its dead letters' topic"
_NOT_MADE = "where `topics create` has not made it"
GRANTS: tuple[Grant, ...] = (
    Grant("gateway", "topic", SOURCE, ("Write",)),
    Grant("ingest", "topic", SOURCE, ("Read",)),
    Grant("ingest", "topic", SOURCE, ("DescribeConfigs",), _DEAD_LETTERS_NOT_MADE),
    Grant("ingest", "topic", "{events}", ("Write",)),
    Grant("ingest", "topic", f"{SOURCE}.dlq", ("Write", "DescribeConfigs")),
    Grant("ingest", "topic", f"{SOURCE}.dlq", ("Create",), _NOT_MADE),
    *_service("ingest"),
    Grant("score", "topic", "{events}", ("Read",)),
    Grant("score", "topic", "{events}", ("DescribeConfigs",), _DEAD_LETTERS_NOT_MADE),
    Grant("score", "topic", "{controls}", ("Read",)),
    Grant("score", "topic", "{state}", ("Read", "Write")),
    Grant("score", "topic", "{journal}", ("Read", "Write")),
    Grant("score", "topic", "{scores}", ("Write",)),
    Grant("score", "topic", "{findings}", ("Write",)),
    Grant("score", "topic", "{events}.dlq", ("Write", "DescribeConfigs")),
    Grant("score", "topic", "{events}.dlq", ("Create",), _NOT_MADE),
    *_service("score"),
    _reader("score"),
    Grant("score", "cluster", "kafka-cluster", ("IdempotentWrite",), _OLD_BROKERS),
    Grant("canary", "topic", SOURCE, ("Write",)),
    Grant("canary", "topic", "{findings}", ("Read",)),
    _reader("canary"),
    Grant("replay", "topic", "{events}", ("Read",)),
    Grant("replay", "topic", "{journal}", ("Read",)),
    _reader("replay"),
    Grant("train", "topic", "{events}", ("Read",)),
    _reader("train"),
    Grant("trainer", "topic", "{retrain}", ("Read",)),
    Grant("trainer", "group", "{group}", ("Read",)),
    Grant("trainer", "topic", "{events}", ("Read",)),
    Grant("trainer", "topic", "{scores}", ("Read",)),
    Grant("trainer", "topic", "{labels}", ("Read",)),
    Grant("trainer", "topic", "{journal}", ("Read",)),
    Grant("trainer", "topic", "{releases}", ("Read", "Write")),
    Grant("trainer", "topic", "{controls}", ("Read", "Write")),
    _reader("trainer"),
    Grant("explain", "topic", "{events}", ("Read",)),
    Grant("explain", "topic", "{scores}", ("Read",)),
    Grant("explain", "topic", "{findings}", ("Read",)),
    Grant("explain", "topic", "{journal}", ("Read",)),
    _reader("explain"),
    Grant("state", "topic", "{state}", ("Read",)),
    _reader("state"),
    Grant("verdict", "topic", "{findings}", ("Read",)),
    Grant("verdict", "topic", "{verdicts}", ("Write",)),
    _reader("verdict"),
    Grant("feedback", "topic", "{findings}", ("Read", "DescribeConfigs")),
    Grant("feedback", "topic", "{scores}", ("Read", "DescribeConfigs")),
    Grant("feedback", "topic", "{verdicts}", ("Read", "DescribeConfigs")),
    Grant("feedback", "topic", "{verdicts}.dlq", ("Write", "DescribeConfigs")),
    Grant("feedback", "topic", "{verdicts}.dlq", ("Create",), _NOT_MADE),
    Grant("feedback", "topic", "{labels}", ("Write", "DescribeConfigs")),
    Grant("feedback", "topic", "{controls}", ("Write",)),
    Grant("feedback", "topic", "{retrain}", ("Write",)),
    # Its own: what is keyed by finding, what is counted, and the changelogs of its tables.
    Grant("feedback", "topic", "{prefix}{group}-", ("Create", "DescribeConfigs", "Read", "Write"), pattern="prefixed"),
    Grant("feedback", "group", "{group}", ("Read",)),
    Grant("exceptions", "topic", "{controls}", ("Read", "Write")),
    _reader("exceptions"),
    Grant("release", "topic", "{controls}", ("Read", "Write")),
    Grant("release", "topic", "{releases}", ("Read", "Write")),
    Grant("release", "topic", "{journal}", ("Read",)),
    Grant("release", "topic", "{findings}", ("Read",), "for `release lineage`"),
    Grant("release", "topic", "{verdicts}", ("Read",), "for `release lineage`"),
    Grant("release", "topic", "{labels}", ("Read",), "for `release lineage`"),
    _reader("release"),
    Grant("topics", "topic", EVERY, ("Describe", "DescribeConfigs")),
    Grant("topics", "topic", EVERY, ("Create",), "for `topics create`"),
)
"""Everything that Tidegate's commands, and the gateway before them, need; `gateway` is whoever writes the source."""

COMMANDS = tuple(dict.fromkeys(grant.command for grant in GRANTS))


@dataclass(frozen=True, slots=True)
class Acl:
    """A grant to a principal, every name filled in."""

    command: str
    principal: str
    resource_type: Kind
    name: str
    pattern: Pattern
    operations: tuple[str, ...]
    when: str


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Print the permissions as calls of kafka-acls.sh, or as JSON; with `--out` write them to a file.

    Raises
    ------
    UsageError
        When a source is one of Tidegate's own topics, a principal, a group or a command is none, or the file cannot be
        written.
    """
    sources = [name for name in (part.strip() for part in (arguments.source_topic or "").split(",")) if name]
    check_sources(settings.topics, sources)
    only = _commands(arguments.only)
    principals, groups = _principals(arguments.principal), _groups(arguments.group_id)
    found = [acl for acl in acls(settings.topics, sources, principals, groups) if acl.command in only]
    if arguments.json:
        _tell(orjson.dumps([asdict(acl) for acl in found], option=orjson.OPT_INDENT_2).decode(), arguments.out)
        return 0
    administrator = ["--bootstrap-server", settings.kafka.bootstrap_servers]
    if arguments.command_config is not None:
        administrator += ["--command-config", str(arguments.command_config)]
    lines = "\n".join(script(found, administrator, sourceless=not sources))
    _tell(lines if arguments.out is None else f"{_SHELL}{lines}", arguments.out, mode=0o755)
    return 0


def _tell(text: str, out: Path | None, mode: int = 0o644) -> None:
    if out is None:
        print(text)
        return
    try:
        out.write_text(f"{text}\n", encoding="utf-8")
        out.chmod(mode)
    except OSError as error:
        raise UsageError(f"--out {out} cannot be written: {error.strerror}. Name another file.") from error


def acls(
    topics: TopicsSettings, sources: Sequence[str], principals: Mapping[str, str], groups: Mapping[str, str]
) -> list[Acl]:
    """Every permission, in the order of `GRANTS`.

    Parameters
    ----------
    sources
        What gateways write to; without any, what concerns sources is left out.
    principals
        Of each command.
    groups
        Of each command that is a member of one.
    """
    return [
        Acl(grant.command, principals[grant.command], grant.kind, name, grant.pattern, grant.operations, grant.when)
        for grant in GRANTS
        for name in _names(grant, topics, sources, groups)
    ]


def script(found: Sequence[Acl], administrator: Sequence[str], *, sourceless: bool = False) -> Iterator[str]:
    """Lines for a shell; what is needed in some cases only stands in comments.

    Parameters
    ----------
    administrator
        Flags of kafka-acls.sh that say where the cluster is, and as whom to ask.
    """
    command = ""
    for acl in found:
        if acl.command != command:
            command = acl.command
            yield f"# {command}, as {acl.principal}"
        line = shlex.join(["kafka-acls.sh", *administrator, "--add", *_flags(acl)])
        yield f"# {acl.when}: {line}" if acl.when else line
    if sourceless:
        yield "# What gateway, ingest and canary need of the source: give --source-topic T[,T]."


def _flags(acl: Acl) -> list[str]:
    where = ["--cluster"] if acl.resource_type == "cluster" else [f"--{acl.resource_type}", acl.name]
    pattern = ["--resource-pattern-type", acl.pattern] if acl.pattern != "literal" else []
    operations = [flag for operation in acl.operations for flag in ("--operation", operation)]
    return ["--allow-principal", acl.principal, *where, *pattern, *operations]


def _names(grant: Grant, topics: TopicsSettings, sources: Sequence[str], groups: Mapping[str, str]) -> Iterator[str]:
    """What the grant is on: one for each topic that its name stands for."""
    if grant.name == EVERY:
        dead_letters = [f"{source}.dlq" for source in sources]
        ours = _written(topics)
        yield from sorted({*ours, *sources, *dead_letters})
        return
    for source in sources if SOURCE in grant.name else [""]:
        name = grant.name.replace(SOURCE, source)
        yield re.sub(r"\{(\w+)\}", lambda found: _filled(found[1], grant, topics, groups), name)


def _written(topics: TopicsSettings) -> set[str]:
    """Tidegate's topics under the prefixes that are set, and no others'."""
    named = {
        topics.events,
        topics.controls,
        topics.releases,
        topics.scores,
        topics.findings,
        topics.state,
        topics.journal,
        topics.verdicts,
        topics.labels,
        topics.retrain,
    }
    return own_topics(topics) & {*named, f"{topics.events}.dlq", f"{topics.verdicts}.dlq"}


def _filled(name: str, grant: Grant, topics: TopicsSettings, groups: Mapping[str, str]) -> str:
    return groups[grant.command] if name == "group" else str(getattr(topics, name))


# -- flags -------------------------------------------------------------------------------------------------------------


def _commands(given: str | None) -> tuple[str, ...]:
    if given is None:
        return COMMANDS
    named = tuple(name.strip() for name in given.split(","))
    if unknown := sorted(set(named) - set(COMMANDS)):
        raise UsageError(f"--only must name some of {', '.join(COMMANDS)}; got {', '.join(unknown)}.")
    return named


def _principals(given: Sequence[str]) -> dict[str, str]:
    """Principal of each command; one that is not named has its own, and `PRINCIPAL` alone stands for all."""
    principals = {command: f"User:tidegate-{command}" for command in COMMANDS}
    # What names a command wins over what stands for all.
    for text in sorted(given, key=lambda each: _split(each)[0] != ""):
        command, principal = _split(text)
        if not _PRINCIPAL.fullmatch(principal):
            raise UsageError(
                f"--principal must be TYPE:NAME, such as User:scorer, or COMMAND=TYPE:NAME; got {text!r}. "
                f"Commands are {', '.join(COMMANDS)}."
            )
        principals |= {command: principal} if command else dict.fromkeys(COMMANDS, principal)
    return principals


def _groups(given: Sequence[str]) -> dict[str, str]:
    groups = dict(GROUPS)
    for text in given:
        command, _, group = text.partition("=")
        if command not in GROUPS or not group:
            known = ", ".join(f"{name}=GROUP" for name in GROUPS)
            raise UsageError(f"--group-id must be one of {known}; got {text!r}.")
        groups[command] = group
    return groups


def _split(text: str) -> tuple[str, str]:
    """Command and principal; a principal of a certificate holds `=` too.

    >>> _split("score=User:a"), _split("User:CN=scorer,O=x")
    (('score', 'User:a'), ('', 'User:CN=scorer,O=x'))
    """
    command, _, principal = text.partition("=")
    return (command, principal) if command in COMMANDS else ("", text)


# -- the runbook's table -----------------------------------------------------------------------------------------------


def permissions_table() -> str:
    """Markdown: of each command what it needs on what, names without a prefix."""
    rows = ["| command | on | permission |", "|---|---|---|"]
    topics, said = TopicsSettings(), ""
    for grant in GRANTS:
        what = {"transactional-id": "transactional id"}.get(grant.kind, grant.kind)
        if grant.kind == "cluster":
            name = ""
        elif grant.name == EVERY:
            what, name = "every topic", ""
        else:
            (filled,) = _names(grant, topics, ["SOURCE"], GROUPS)
            name = f" `{filled}`"
        if grant.pattern == "prefixed":
            what += ", prefix"
        flag = {"group": " (`--group-id`)", "transactional-id": " (`--group-id` and a dot)"}.get(grant.kind, "")
        needed = ", ".join(grant.operations) + (f", {grant.when}" if grant.when else "")
        command = f"`{grant.command}`" if grant.command != said else ""
        said = grant.command
        rows.append(
            f"| {command} | {what}{name}{flag if '{group}' in grant.name else ''} | {needed} |".replace("|  |", "| |")
        )
    return "\n".join(rows)
