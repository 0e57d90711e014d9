"""`tidegate verdict`; where it needs a broker: tests/kafka/test_feedback.py."""

from __future__ import annotations

import pytest

from stream.config import Settings
from stream.errors import UsageError
from stream.runtime.verdict_command import run
from tidegate.commands import parse

UID = "0" * 32


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nonsense", "--verdict-id", "2"], "FINDING_UID is finding_info.uid, 32 hex digits"),
        ([UID, "--verdict-id", "11"], "1 False Positive, 2 True Positive"),
        ([UID, "--verdict-id", "2", "--adopt"], "--adopt needs a verdict that says harmless"),
        ([UID, "--verdict-id", "4", "--except-days", "2"], "--except-days needs a verdict that says harmless"),
        ([UID, "--verdict-id", "5", "--except-days", "400"], "exception_days"),
    ],
)
def test_what_is_no_verdict_is_refused_before_anything_is_asked(arguments: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        run(Settings(), parse(["verdict", *arguments, "--analyst", "ada"]))
