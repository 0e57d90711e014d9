"""Remedies that messages name are there."""

import re
from pathlib import Path

import pytest

from stream.config import Settings, TopicsSettings
from stream.errors import EnvironmentFault
from stream.runtime.broker import Broker
from tidegate.commands import parse

ROOT = Path(__file__).parents[3]
RUNBOOK = (ROOT / "docs" / "runbook.md").read_text()
SOURCES = [path for folder in ("stream", "tidegate", "schemas") for path in (ROOT / folder).rglob("*.py")]


def test_every_action_that_a_message_names_is_one_of_its_command() -> None:
    named = {
        found for path in SOURCES for found in re.findall(r"tidegate (topics|state|config) ([a-z]+)", path.read_text())
    }
    assert {("topics", "create"), ("topics", "check")} <= named
    for command, action in named:
        assert parse([command, action, *(["--out", "o"] if action == "export" else [])]).action == action


@pytest.mark.parametrize("heading", ["### State and offsets differ", "## Permissions"])
def test_the_runbook_has_the_sections_that_messages_name(heading: str) -> None:
    assert f"\n{heading}\n" in RUNBOOK


@pytest.mark.parametrize("name", ["events", "scores", "findings", "state", "journal"])
def test_the_table_of_permissions_names_every_topic_that_services_use(name: str) -> None:
    table = RUNBOOK.partition("## Permissions")[2].partition("\n## ")[0]
    assert f"`{getattr(TopicsSettings(), name)}`" in table


def test_missing_outputs_are_to_be_created_under_their_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    topics = TopicsSettings(output_prefix="green.")
    monkeypatch.setattr("stream.runtime.broker.connect_admin", lambda settings, role: (None, {topics.events: 8}))
    broker = Broker(Settings(topics=topics), "score")
    with pytest.raises(EnvironmentFault, match=r"'tidegate topics create --output-prefix green\.', or"):
        broker.require([topics.events, topics.scores], 8)
