"""`tidegate topics acls`, and the runbook's table of permissions."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path
from typing import Any

import orjson
import pytest

from scripts.runbook_tables import written
from stream.config import Settings, TopicsSettings
from stream.errors import UsageError
from stream.runtime.acls import COMMANDS, GRANTS, GROUPS, permissions_table
from stream.runtime.topics import run
from tidegate.cli import MODULES
from tidegate.commands import parse

RUNBOOK = Path(__file__).parents[3] / "docs" / "runbook.md"


def printed(capsys: pytest.CaptureFixture[str], *flags: str, topics: TopicsSettings | None = None) -> str:
    settings = Settings(topics=topics or TopicsSettings())
    assert run(settings, parse(["topics", "acls", *flags])) == 0
    return capsys.readouterr().out


def told(capsys: pytest.CaptureFixture[str], *flags: str, topics: TopicsSettings | None = None) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = orjson.loads(printed(capsys, "--json", *flags, topics=topics))
    return found


def test_runbooks_table_is_the_declaration() -> None:
    """Where it is not: python -m scripts.runbook_tables."""
    assert written(RUNBOOK.read_text()) == RUNBOOK.read_text()


def test_table_names_command_resource_and_permission() -> None:
    rows = permissions_table().splitlines()
    assert "| `ingest` | topic `SOURCE` | Read |" in rows
    assert "| | topic `SOURCE.dlq` | Write, DescribeConfigs |" in rows
    assert "| | transactional id, prefix `tidegate.score.` (`--group-id` and a dot) | Write |" in rows
    assert "| | every topic | Create, for `topics create` |" in rows
    assert len(rows) == len(GRANTS) + 2


def test_every_command_that_asks_a_broker_has_its_grants() -> None:
    assert set(COMMANDS) == set(MODULES) - {"config", "evaluate"} | {"gateway"} | ({"explain"} - set(MODULES))


def test_scorer_may_write_its_outputs_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    found = told(capsys, "--only", "score", "--source-topic", "raw")
    writes = {acl["name"] for acl in found if acl["resource_type"] == "topic" and "Write" in acl["operations"]}
    topics = TopicsSettings()
    outputs = {topics.scores, topics.findings, topics.state, topics.journal}
    assert writes == {*outputs, f"{topics.events}.dlq"}
    reads = {acl["name"] for acl in found if acl["resource_type"] == "topic" and "Read" in acl["operations"]}
    assert reads == {topics.events, topics.state, topics.journal, topics.controls}
    assert not [acl for acl in found if acl["name"].startswith("raw")]


def test_only_transactional_ids_and_feedbacks_own_topics_are_granted_by_prefix(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = told(capsys, "--source-topic", "raw")
    prefixed = {(acl["resource_type"], acl["name"]) for acl in found if acl["pattern"] == "prefixed"}
    assert {name for kind, name in prefixed if kind != "transactional-id"} == {"tidegate.feedback-"}


def test_prefixes_groups_and_principals_are_filled_in(capsys: pytest.CaptureFixture[str]) -> None:
    topics = TopicsSettings(prefix="eu.", output_prefix="green.")
    flags = ("--group-id", "score=night", "--principal", "score=User:CN=scorer,O=x", "--principal", "User:all")
    found = told(capsys, "--source-topic", "a,b", *flags, topics=topics)
    score = [acl for acl in found if acl["command"] == "score"]
    assert {acl["principal"] for acl in score} == {"User:CN=scorer,O=x"}
    assert {acl["principal"] for acl in found if acl["command"] != "score"} == {"User:all"}
    names = {acl["resource_type"]: acl["name"] for acl in score}
    assert names["transactional-id"] == "night."
    assert {acl["name"] for acl in score if acl["resource_type"] == "group"} == {"night", "tidegate.range-reader"}
    assert {"green.genai.anomaly.state.v1", "eu.genai.gateway.events.v1"} <= {acl["name"] for acl in score}
    ingest = {acl["name"] for acl in found if acl["command"] == "ingest"}
    assert {"a", "b", "a.dlq", "b.dlq", "eu.genai.gateway.events.v1"} <= ingest
    every = {acl["name"] for acl in found if acl["command"] == "topics"}
    assert {"a", "a.dlq", "eu.genai.anomaly.controls.v1", "green.genai.anomaly.findings.v1"} <= every
    assert "eu.genai.anomaly.findings.v1" not in every


def test_each_command_has_a_principal_of_its_own_unless_it_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    found = told(capsys, "--source-topic", "raw")
    assert {acl["principal"] for acl in found} == {f"User:tidegate-{command}" for command in COMMANDS}


def test_commands_are_what_a_shell_takes(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ("--source-topic", "raw", "--only", "ingest", "--principal", "User:it's me; rm -rf /")
    lines = printed(capsys, *flags, "--command-config", "admin.properties").splitlines()
    assert lines[0] == "# ingest, as User:it's me; rm -rf /"
    words = [shlex.split(line) for line in lines if not line.startswith("#")]
    assert words[0] == [
        "kafka-acls.sh", "--bootstrap-server", "localhost:9092", "--command-config", "admin.properties", "--add",
        "--allow-principal", "User:it's me; rm -rf /", "--topic", "raw", "--operation", "Read",
    ]  # fmt: skip
    assert words[-1][-6:] == [
        "--transactional-id", "tidegate.ingest.", "--resource-pattern-type", "prefixed", "--operation", "Write",
    ]  # fmt: skip
    assert [line for line in lines if line.startswith("# where `topics create` has not made it: kafka-acls.sh ")]


def test_a_file_is_a_script_that_may_be_run_or_json_and_nothing_is_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script, listed = tmp_path / "acls.sh", tmp_path / "acls.json"
    assert printed(capsys, "--source-topic", "raw", "--out", str(script)) == ""
    text = script.read_text()
    assert text.startswith("#!/bin/sh\n")
    assert text.endswith(printed(capsys, "--source-topic", "raw"))
    assert script.stat().st_mode & 0o777 == 0o755
    assert subprocess.run(["sh", "-n", script], check=False).returncode == 0
    assert printed(capsys, "--source-topic", "raw", "--json", "--out", str(listed)) == ""
    assert orjson.loads(listed.read_bytes()) == told(capsys, "--source-topic", "raw")


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--out .*acls\.sh cannot be written: No such file or directory\. Name"):
        run(Settings(), parse(["topics", "acls", "--out", str(tmp_path / "no" / "acls.sh")]))


def test_without_a_source_the_rest_is_printed_and_it_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    said = printed(capsys)
    assert "SOURCE" not in said
    assert said.splitlines()[-1] == "# What gateway, ingest and canary need of the source: give --source-topic T[,T]."


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (
            ("--principal", "scorer"),
            "--principal must be TYPE:NAME, such as User:scorer, or COMMAND=TYPE:NAME; got 'sc",
        ),
        (("--principal", "User:a\nreboot"), "--principal must be TYPE:NAME, such as User:scorer"),
        (("--principal", "score=scorer"), "--principal must be TYPE:NAME, such as User:scorer"),
        (("--group-id", "state=g"), "--group-id must be one of ingest=GROUP, score=GROUP, .*; got 'state=g'"),
        (("--only", "score,scroe"), "--only must name some of gateway, ingest, .*; got scroe"),
        (("--source-topic", "genai.gateway.events.v1"), "which Tidegate writes"),
    ],
)
def test_wrong_flag_is_named_with_its_rule(flags: tuple[str, ...], said: str) -> None:
    with pytest.raises(UsageError, match=said) as error:
        run(Settings(), parse(["topics", "acls", *flags]))
    assert error.value.exit_code == 2


def test_group_ids_are_the_services_defaults() -> None:
    source = {"ingest": ["--source-topic", "t"], "score": ["--release", "r"]}
    assert {name: parse([name, *source.get(name, [])]).group_id for name in GROUPS} == GROUPS
