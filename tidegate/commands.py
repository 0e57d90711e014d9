"""Every command and flag of `tidegate`."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

_GATEWAY_FORMATS = ("auto", "litellm", "otel", "kong", "native")
_FORMATS = (*_GATEWAY_FORMATS, "corpus")
_Add = Callable[..., argparse.ArgumentParser]


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line, checked; argparse itself ends the process, with 2 for a wrong one.

    >>> parse(["replay", "--input", "a.jsonl", "--release", "r", "--out", "o"]).input
    [PosixPath('a.jsonl')]
    """
    top = parser()
    given = top.parse_args(arguments)
    if given.command == "replay" and given.action is None:
        _check_needed(
            given,
            ("--input or --topic", given.input or given.topic),
            ("--release", given.release),
            ("--out", given.out),
        )
        if given.input and (given.journal == "topic" or _has_range(given)):
            given.fail("--journal topic and ranges are of a --topic; a file is replayed whole")
    if given.command == "explain":
        _check_explained(given)
    if given.command == "train":
        _check_needed(given, ("--input or --topic", given.input or given.topic))
        if given.input and _has_range(given):
            given.fail("ranges are of a --topic; a file is read whole")
    return given


def version() -> str:
    """The installed distribution's version."""
    try:
        return metadata.version("tidegate")
    except metadata.PackageNotFoundError:
        return "(not installed)"


def parser() -> argparse.ArgumentParser:
    """Every command and flag."""
    top = _Parser(
        prog="tidegate",
        description="Always-on anomaly detection for LLM-gateway traffic on Kafka.",
        epilog="example:\n  tidegate topics create && tidegate score --release releases/2026-11-01",
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)
    for declare in (
        _ingest, _score, _replay, _explain, _train, _evaluate, _feedback, _verdict, _exceptions, _trainer, _release,
        _topics, _state, _canary, _config,
    ):  # fmt: skip
        declare(commands.add_parser)
    _command(commands.add_parser, "version", "print the version", "tidegate version")
    return top


class _Parser(argparse.ArgumentParser):
    """Keeps the lines of examples, and takes no flag for another that starts alike."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **options)


def _ingest(add: _Add) -> None:
    command = _command(
        add,
        "ingest",
        "gateway records -> normalised, redacted events, by tenant",
        "tidegate ingest --source-topic litellm.logs --format litellm --instance-id ingest-0",
    )
    command.add_argument(
        "--source-topic", required=True, metavar="T[,T]", help="what gateways write to; no prefix added"
    )
    command.add_argument("--format", choices=_GATEWAY_FORMATS, default="auto", help="of their records (default: auto)")
    _service(command, "tidegate.ingest")


def _score(add: _Add) -> None:
    command = _command(
        add,
        "score",
        "events -> scores and findings, exactly once",
        "tidegate score --release releases/2026-11-01 --instance-id score-0",
    )
    command.add_argument(
        "--release", required=True, metavar="DIR|NAME", help="for partitions that have none in service"
    )
    command.add_argument("--output-prefix", metavar="P", help="of scores, findings, state and journal")
    command.add_argument(
        "--shadow", action="store_true", help="score beside the one in service: no finding is written; needs its own "
        "--group-id and --output-prefix",
    )  # fmt: skip
    delivery = ("exactly-once", "at-least-once")
    command.add_argument("--delivery", choices=delivery, default=delivery[0], help=f"(default: {delivery[0]})")
    _service(command, "tidegate.score")


def _replay(add: _Add) -> None:
    command = _command(
        add,
        "replay",
        "captured traffic through the core that scores live",
        "tidegate replay --input captured.jsonl.gz --release releases/2026-11-01 --out out/replay",
        "tidegate replay --topic genai.gateway.events.v1 --release releases/2026-11-01 --out out/replay",
        "tidegate replay compare out/replay out/other",
    )
    line = "tidegate replay (--input FILE… | --topic T) --release R --out DIR [option…]"
    command.usage = f"{line}\n       tidegate replay compare A B"
    _input(command, _FORMATS)
    command.add_argument("--journal", metavar="FILE|topic|none", help="(default: topic for a topic, none for files)")
    command.add_argument("--from-state", type=Path, metavar="DIR", help="start from what 'state export' wrote")
    command.add_argument("--release", metavar="R", help="directory of the release to score with")
    command.add_argument("--pace", type=_pace, default="full", metavar="full|original|xN", help="(default: full)")
    command.add_argument(
        "--out", type=Path, metavar="DIR", help="for findings, scores, dead letters, summary; may exist"
    )
    command.add_argument(
        "--report", action="store_true", help="print what was found, and draw it: report.html and pictures"
    )
    command.add_argument("--output-prefix", metavar="P", help="of the journal's topic")
    _common(command)
    prog = command.prog  # argparse would put the whole usage before the action's name
    actions = command.add_subparsers(dest="action", metavar="compare A B", parser_class=_Parser, prog=prog)
    compare = _command(
        actions.add_parser,
        "compare",
        "what differs between two replays; exit code 4 when anything does",
        "tidegate replay compare out/replay out/other",
    )
    compare.add_argument("a", type=Path, metavar="A", help="a replay's --out")
    compare.add_argument("b", type=Path, metavar="B", help="another's")


def _explain(add: _Add) -> None:
    command = _command(
        add,
        "explain",
        "why an event was scored as it was: signals, segments, and what would have been normal",
        "tidegate explain EVENT_ID --topic genai.gateway.events.v1 --release releases/2026-11-01",
        "tidegate explain EVENT_ID --input captured.jsonl.gz --release releases/2026-11-01",
        "tidegate explain EVENT_ID --replayed out/replay",
    )
    command.add_argument("event_id", metavar="EVENT_ID", help="of a score, or of a finding's related events")
    _input(command, _FORMATS)
    command.add_argument("--replayed", type=Path, metavar="DIR", help="a replay's --out, to be read first")
    command.add_argument("--release", metavar="R", help="directory of the release to replay with")
    command.add_argument("--replay", action="store_true", help="even where a finding tells of the event")
    command.add_argument("--journal", metavar="FILE|topic|none", help="(default: topic for a topic, none for files)")
    command.add_argument("--from-state", type=Path, metavar="DIR", help="start from what 'state export' wrote")
    command.add_argument("--output-prefix", metavar="P", help="of scores, findings and the journal")
    command.add_argument("--json", action="store_true", help="as JSON instead of text")
    _common(command)


def _train(add: _Add) -> None:
    command = _command(
        add,
        "train",
        "captured traffic -> a release that score and replay take",
        "tidegate train --input captured.jsonl.gz --seed 7 --out releases/2026-11-01",
    )
    _input(command, _FORMATS)
    command.add_argument("--base", metavar="RELEASE", help="release to start from")
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help="the release; replaced as a whole")
    command.add_argument(
        "--seed", type=_natural, default=0, metavar="N", help="same input and seed: same bytes (default: 0)"
    )
    command.add_argument(
        "--task",
        choices=("population", "adapters", "attack-classifier"),
        help="population: no tenant's adapter is fitted; adapters: on the backbone of --base; attack-classifier: all, "
        "and known attacks are also those labelled in --input; default: all, and known attacks are the written ones",
    )
    command.add_argument("--nproc", type=_natural, default=1, metavar="N", help="processes (default: 1)")
    _common(command)


def _evaluate(add: _Add) -> None:
    command = _command(
        add,
        "evaluate",
        "a labelled corpus -> how well this version detects, beside baselines, as a report",
        "tidegate evaluate --corpus corpus/ --arrivals arrivals/ --out out/evaluation",
        "tidegate evaluate --corpus corpus/ --only paired,session --seeds 1 --out out/evaluation",
    )
    command.add_argument(
        "--corpus", type=Path, required=True, metavar="DIR", help="labelled conversations, *.jsonl(.gz)"
    )
    command.add_argument("--arrivals", type=Path, metavar="DIR", help="when real clients call; for the protocol stream")
    command.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="the report; what is finished in it is gone on with"
    )
    command.add_argument(
        "--only",
        metavar="P[,P]",
        help="of paired, splice, session, hard_negatives, slices and stream; default: all",
    )
    command.add_argument(
        "--systems",
        metavar="S[,S]",
        help="beside tidegate, of its ablations and baselines, by name or pattern ('tidegate-*,ecod'); default: all",
    )
    command.add_argument("--seeds", type=_natural, default=3, metavar="N", help="splits of the corpus (default: 3)")
    command.add_argument(
        "--first-seed", type=_natural, default=0, metavar="N", help="the first of the splits (default: 0)"
    )
    command.add_argument("--embedder", metavar="NAME", help="in place of embedder.name")
    command.add_argument(
        "--stream-events", type=_natural, default=40_000, metavar="N", help="of the protocol stream (default: 40000)"
    )
    command.add_argument("--release", metavar="RELEASE", help="judge with it instead of training one for each seed")
    _common(command)


def _feedback(add: _Add) -> None:
    command = _command(
        add,
        "feedback",
        "verdicts, findings and evidence -> labels, effects at once, and requests to retrain",
        "tidegate feedback --http-listen 127.0.0.1:8086",
    )
    _service(command, "tidegate.feedback", until_end=False)


def _verdict(add: _Add) -> None:
    command = _command(
        add,
        "verdict",
        "an analyst's word on a finding",
        "tidegate verdict FINDING_UID --verdict-id 2 --analyst ada@soc --note quoted-mail",
        "tidegate verdict FINDING_UID --verdict-id 5 --analyst ada@soc --scope entity --except-days 14",
        "tidegate verdict FINDING_UID --verdict-id 5 --analyst ada@soc --scope tenant --adopt",
    )
    command.add_argument("finding_uid", metavar="FINDING_UID", help="finding_info.uid of any of its records")
    command.add_argument(
        "--verdict-id", type=_natural, required=True, metavar="N",
        help="OCSF: 1 False Positive, 2 True Positive, 3 Disregard, 4 Suspicious, 5 Benign, 6 Test, 7 Insufficient "
        "Data, 8 Security Risk, 9 Managed Externally, 10 Duplicate",
    )  # fmt: skip
    command.add_argument("--analyst", required=True, metavar="A", help="who says so")
    command.add_argument("--note", action="append", default=[], metavar="TEXT", help="may be repeated")
    scopes = ("event", "session", "entity", "tenant")
    command.add_argument("--scope", choices=scopes, default="session", help="what its effects reach (default: session)")
    command.add_argument("--adopt", action="store_true", help="the tenant's new prompt or model is its normal now")
    command.add_argument(
        "--except-days",
        type=_seconds,
        metavar="D",
        help="of 1 and 5: nothing of this kind is found in its scope for D days",
    )
    _common(command)


def _exceptions(add: _Add) -> None:
    command = _command(
        add,
        "exceptions",
        "exceptions, suppressions and snoozes: who, why, until when",
        "tidegate exceptions list",
        "tidegate exceptions add --action suppression --tenant team-42 --days 2 --who ada@soc --why load-test",
        "tidegate exceptions remove RULE_ID --who ada@soc",
    )
    actions = command.add_subparsers(dest="action", required=True, metavar="list|add|remove", parser_class=_Parser)
    listed = _command(
        actions.add_parser, "list", "those in force, and with --all those that were", "tidegate exceptions list --all"
    )
    listed.add_argument("--all", action="store_true", help="ended and removed ones too")
    listed.add_argument("--json", action="store_true", help="as JSON instead of a table")
    add_rule = _command(
        actions.add_parser,
        "add",
        "begin one",
        "tidegate exceptions add --action snooze --tenant team-42 --session s-17 --days 1 --who ada@soc --why known",
    )
    kinds = ("exception", "suppression", "snooze")
    add_rule.add_argument(
        "--action", dest="rule_action", choices=kinds, required=True,
        help="exception: harmless, learned; suppression: not shown, held back; snooze: a known finding, silent for now",
    )  # fmt: skip
    add_rule.add_argument("--tenant", required=True, metavar="T")
    add_rule.add_argument("--session", metavar="S", help="of it alone (a snooze needs --session or --key)")
    add_rule.add_argument("--key", metavar="HASH", help="of this API key's hash alone")
    add_rule.add_argument("--signal", metavar="NAME", help="only where this signal is the rarest")
    add_rule.add_argument("--days", type=_seconds, required=True, metavar="D", help="until it ends")
    add_rule.add_argument("--who", required=True, metavar="A")
    add_rule.add_argument("--why", required=True, metavar="TEXT")
    remove = _command(
        actions.add_parser, "remove", "end one before its time", "tidegate exceptions remove RULE_ID --who ada@soc"
    )
    remove.add_argument("rule_id", metavar="RULE_ID", help="as 'exceptions list' prints it")
    remove.add_argument("--who", required=True, metavar="A")
    for action in (listed, add_rule, remove):
        _common(action)


def _trainer(add: _Add) -> None:
    command = _command(
        add,
        "trainer",
        "retrain requests -> releases, gated, signed, announced and promoted",
        "tidegate trainer --instance-id trainer-0",
    )
    _service(command, "tidegate.trainer")


def _release(add: _Add) -> None:
    command = _command(
        add,
        "release",
        "what exists to be served, what is, and where it came from",
        "tidegate release list",
        "tidegate release promote r-0123456789ab",
        "tidegate release rollback",
        "tidegate release lineage FINDING_UID",
    )
    metavar = "list|show|diff|promote|rollback|lineage|verify"
    actions = command.add_subparsers(dest="action", required=True, metavar=metavar, parser_class=_Parser)
    listed = _command(actions.add_parser, "list", "every release, and which is in service", "tidegate release list")
    listed.add_argument("--json", action="store_true", help="as JSON instead of a table")
    listed.add_argument("--output-prefix", metavar="P", help="of the scorer whose journal tells what is in service")
    show = _command(
        actions.add_parser, "show", "a release's manifest, in words", "tidegate release show r-0123456789ab"
    )
    show.add_argument("release", metavar="DIR|NAME")
    show.add_argument("--json", action="store_true", help="the manifest itself")
    diff = _command(
        actions.add_parser,
        "diff",
        "what differs between two releases",
        "tidegate release diff r-0123456789ab r-ba9876543210",
    )
    diff.add_argument("a", metavar="DIR|NAME")
    diff.add_argument("b", metavar="DIR|NAME")
    diff.add_argument("--json", action="store_true", help="as JSON instead of text")
    promote = _command(
        actions.add_parser,
        "promote",
        "let every scorer serve a release, and wait until all partitions do",
        "tidegate release promote r-0123456789ab --who ada@soc --why tried-in-shadow",
        "tidegate release promote r-0123456789ab --override-gate --who ada@soc --why the-first-one",
    )
    promote.add_argument("release", metavar="DIR|NAME")
    promote.add_argument(
        "--override-gate", action="store_true", help="though the gate did not let it pass; needs --why, which is kept"
    )
    rollback = _command(
        actions.add_parser,
        "rollback",
        "let every scorer serve the release before, or the one named, and wait until all partitions do",
        "tidegate release rollback",
    )
    rollback.add_argument("release", nargs="?", metavar="DIR|NAME", help="(default: the one served before)")
    promote.add_argument("--output-prefix", metavar="P", help="of the scorer that is to serve it, as score has it")
    rollback.add_argument("--output-prefix", metavar="P", help="of the scorer, as score has it")
    for action in (promote, rollback):
        action.add_argument("--who", default="operator", metavar="A", help="(default: operator)")
        action.add_argument("--why", default="", metavar="TEXT")
        action.add_argument("--timeout", type=_seconds, default=60.0, metavar="S", help="to wait for (default: 60)")
        action.add_argument("--no-wait", action="store_true", help="do not wait for the scorers")
    lineage = _command(
        actions.add_parser,
        "lineage",
        "from a finding or a release: its release, parents, data, labels and verdicts",
        "tidegate release lineage FINDING_UID",
        "tidegate release lineage r-0123456789ab",
    )
    lineage.add_argument("of", metavar="FINDING_UID|DIR|NAME")
    lineage.add_argument("--json", action="store_true", help="as JSON instead of text")
    lineage.add_argument("--output-prefix", metavar="P", help="of the findings' topic")
    verify = _command(
        actions.add_parser,
        "verify",
        "hashes, signature and ids of a release; exit code 5 when it may not be served",
        "tidegate release verify releases/r-0123456789ab",
    )
    verify.add_argument("release", metavar="DIR|NAME")
    for action in (listed, show, diff, promote, rollback, lineage, verify):
        _common(action)


def _topics(add: _Add) -> None:
    command = _command(
        add,
        "topics",
        "create the topics, check them, or print the permissions that they need",
        "tidegate topics create --source-topic litellm.logs",
        "tidegate topics check",
        "tidegate topics acls --source-topic litellm.logs --principal score=User:scorer",
    )
    actions = command.add_subparsers(dest="action", required=True, metavar="create|check|acls", parser_class=_Parser)
    for name, what in (
        ("create", "create every topic that is missing; a missing source topic gets one partition"),
        ("check", "exit code 3 when a topic is missing, or has other partitions or settings than it needs"),
    ):
        action = _command(actions.add_parser, name, what, f"tidegate topics {name} --source-topic litellm.logs")
        action.add_argument("--source-topic", metavar="T[,T]", help="what gateways write to; adds their dead letters")
        action.add_argument("--output-prefix", metavar="P", help="of scores, findings, state and journal")
        _common(action)
    acls = _command(
        actions.add_parser,
        "acls",
        "the least that each command's principal needs, as calls of kafka-acls.sh",
        "tidegate topics acls --source-topic litellm.logs --principal User:tidegate --principal score=User:scorer",
        "tidegate topics acls --source-topic litellm.logs --only ingest,score --json",
        "tidegate topics acls --source-topic litellm.logs --command-config admin.properties --out acls.sh",
    )
    acls.add_argument("--source-topic", metavar="T[,T]", help="what gateways write to")
    acls.add_argument(
        "--principal", action="append", default=[], metavar="[COMMAND=]TYPE:NAME",
        help="of all commands, or of one; may be repeated (default: User:tidegate-COMMAND)",
    )  # fmt: skip
    acls.add_argument(
        "--group-id", action="append", default=[], metavar="COMMAND=GROUP", help="as ingest or score is given it"
    )
    acls.add_argument("--only", metavar="COMMAND[,…]", help="for these commands only")
    acls.add_argument("--command-config", type=Path, metavar="FILE", help="of kafka-acls.sh: an administrator's")
    acls.add_argument("--json", action="store_true", help="as JSON instead of commands")
    acls.add_argument("--out", type=Path, metavar="FILE", help="write them there: an sh script, or JSON, to be applied")
    acls.add_argument("--output-prefix", metavar="P", help="of scores, findings, state and journal")
    _common(acls)


def _state(add: _Add) -> None:
    command = _command(
        add,
        "state",
        "the scorer's state, as its topic holds it",
        "tidegate state export --out out/state",
        "tidegate state inspect",
    )
    actions = command.add_subparsers(dest="action", required=True, metavar="export|inspect", parser_class=_Parser)
    export = _command(
        actions.add_parser,
        "export",
        "write the state to a directory that replay --from-state reads",
        "tidegate state export --out out/state",
    )
    export.add_argument("--out", type=Path, required=True, metavar="DIR", help="where to; must be new or empty")
    inspect = _command(
        actions.add_parser,
        "inspect",
        "what the state holds: rows and bytes by kind, and where each partition stands",
        "tidegate state inspect",
    )
    inspect.add_argument("--json", action="store_true", help="as JSON instead of a table")
    for action in (export, inspect):
        action.add_argument("--output-prefix", metavar="P", help="of the state's topic")
        _common(action)


def _canary(add: _Add) -> None:
    command = _command(
        add,
        "canary",
        "a made-up attack through the stream, its finding awaited, its age exported",
        "tidegate canary --source-topic litellm.logs --interval 60",
        "tidegate canary --source-topic litellm.logs --once",
    )
    command.add_argument("--source-topic", required=True, metavar="T", help="what an ingest of LiteLLM's records reads")
    command.add_argument("--once", action="store_true", help="one attack; exit code 4 when it is not found in time")
    command.add_argument("--interval", type=_seconds, default=60.0, metavar="S", help="between attacks (default: 60)")
    command.add_argument("--timeout", type=_seconds, default=30.0, metavar="S", help="for its finding (default: 30)")
    command.add_argument("--http-listen", metavar="HOST:PORT", help="health and metrics (default: 127.0.0.1:0)")
    _common(command)


def _config(add: _Add) -> None:
    command = _command(add, "config", "the configuration", "tidegate config show")
    actions = command.add_subparsers(dest="action", required=True, metavar="show", parser_class=_Parser)
    show = _command(
        actions.add_parser,
        "show",
        "every key with its value and where that came from, secrets masked",
        "TIDEGATE_BATCH__RECORDS_MAX=500 tidegate config show",
    )
    show.add_argument("--json", action="store_true", help="as JSON instead of TOML")
    show.add_argument("--http-listen", metavar="HOST:PORT", help="as the services take it")
    show.add_argument("--output-prefix", metavar="P", help="as score takes it")
    _common(show)


def _command(add: _Add, name: str, what: str, *examples: str) -> argparse.ArgumentParser:
    lines = "\n  ".join(examples)
    command = add(
        name,
        help=what,
        description=f"{what[0].upper()}{what[1:]}.",
        epilog=f"example{'s' if len(examples) > 1 else ''}:\n  {lines}",
    )
    # A rule over several flags fails as argparse's own do: with the command's usage, and exit code 2.
    command.set_defaults(fail=command.error)
    return command


def _common(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--config", type=Path, metavar="FILE", help="settings (default: tidegate.toml where it is there)"
    )
    command.add_argument("--bootstrap-servers", metavar="HOST:PORT[,…]", help="brokers to ask first")
    command.add_argument("--topic-prefix", metavar="P", help="of Tidegate's topics")
    command.add_argument("--log-format", choices=("json", "text"), default="text", help="of stderr (default: text)")


def _service(command: argparse.ArgumentParser, group: str, *, until_end: bool = True) -> None:
    command.add_argument("--instance-id", metavar="ID", help="keeps its partitions over a restart")
    command.add_argument("--group-id", default=group, metavar="GROUP", help=f"consumer group (default: {group})")
    command.add_argument("--http-listen", metavar="HOST:PORT", help="health and metrics (default: 127.0.0.1:0)")
    if until_end:
        command.add_argument("--until-end", action="store_true", help="end when the input as it is now has been done")
    _common(command)


def _input(command: argparse.ArgumentParser, formats: Sequence[str]) -> None:
    source = command.add_mutually_exclusive_group()
    source.add_argument("--input", nargs="+", action="extend", type=Path, metavar="FILE", help=".jsonl or .jsonl.gz")
    source.add_argument("--topic", metavar="T", help="an events topic; no prefix added")
    command.add_argument("--format", choices=formats, default="auto", help="of the files (default: auto)")
    command.add_argument("--from-offset", type=_natural, metavar="N", help="first offset, in each partition")
    command.add_argument("--to-offset", type=_natural, metavar="N", help="offset to stop before, in each partition")
    command.add_argument("--from-time", type=_time_ms, metavar="TIME", help="ISO 8601, or ms since 1970")
    command.add_argument("--to-time", type=_time_ms, metavar="TIME", help="time to stop before")


def _has_range(given: argparse.Namespace) -> bool:
    return any(value is not None for value in (given.from_offset, given.to_offset, given.from_time, given.to_time))


def _check_needed(given: argparse.Namespace, *needed: tuple[str, object]) -> None:
    if missing := [flag for flag, value in needed if value is None]:
        given.fail(f"the following arguments are required: {', '.join(missing)}")


def _check_explained(given: argparse.Namespace) -> None:
    if given.input and (given.journal == "topic" or _has_range(given)):
        given.fail("--journal topic and ranges are of a --topic; a file is replayed whole")
    if not (given.input or given.topic or given.replayed):
        given.fail("the following arguments are required: --input, --topic or --replayed")
    if given.input and given.release is None and given.replayed is None:
        given.fail("--input needs --release, to replay up to the event")
    if given.replay and (given.release is None or not (given.input or given.topic)):
        given.fail("--replay needs --release, and --input or --topic")


def _natural(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 0; got {text!r}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number of seconds above 0; got {text!r}")
    return seconds


def _time_ms(text: str) -> int:
    """Milliseconds since 1970; a time without a zone is UTC.

    >>> _time_ms("2026-11-01T00:00:00Z"), _time_ms("1793491200000")
    (1793491200000, 1793491200000)
    """
    if text.isdecimal():
        return int(text)
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"must be ISO 8601, such as 2026-11-01T08:00:00Z, or ms since 1970; got {text!r}"
        ) from error
    return round((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp() * 1000)


def _pace(text: str) -> str:
    factor = re.fullmatch(r"x(\d+(?:\.\d+)?)", text)
    if text not in ("full", "original") and (factor is None or float(factor[1]) == 0):
        raise argparse.ArgumentTypeError(f"must be full, original or xN, such as x10; got {text!r}")
    return text
