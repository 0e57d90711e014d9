"""`make stack`, run as a user runs it against a cluster of their own; and the traffic that it sends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient

from deploy.litellm.proxy import PROGRAM
from deploy.prometheus.local import tool
from tests.deploy.promtool import needed
from tidegate.stack.feed import as_of_now, captured
from tidegate.stack.gateway import Seen
from tidegate.stack.panels import queries

START_MS = 1_795_000_000_000


def test_the_capture_happens_now_with_the_distances_of_its_calls_kept() -> None:
    traffic = captured()[:400]
    sent = list(as_of_now(traffic, START_MS, 40.0, "r"))
    assert [due for due, _ in sent] == pytest.approx([0.1 * (i + 1) for i in range(400)])
    records = [json.loads(value) for _, value in sent]
    by_session = defaultdict(list)
    for (session, time_ms, _), (due, _), record in zip(traffic, sent, records, strict=True):
        moved_ms = record["startTime"] * 1000
        assert moved_ms <= START_MS + due * 1000 + 1, "nothing is dated ahead of the clock"
        by_session[session].append((time_ms, moved_ms, START_MS + due * 1000))
    for calls in by_session.values():
        assert len({round(moved - time_ms) for time_ms, moved, _ in calls}) == 1
        assert calls[-1][1] == pytest.approx(calls[-1][2], abs=2), "the last call starts when it is sent"


def test_a_second_round_is_no_duplicate_of_the_first() -> None:
    traffic = captured()[:50]
    first, second = ([json.loads(value) for _, value in as_of_now(traffic, START_MS, 5.0, run)] for run in ("a", "b"))
    assert not {r["litellm_call_id"] for r in first} & {r["litellm_call_id"] for r in second}
    names = [{r["session_id"] or r["trace_id"] for r in records} for records in (first, second)]
    assert not names[0] & names[1]
    assert len(names[0]) == len({session for session, _, _ in traffic})


def test_only_findings_about_a_tools_answer_to_the_callers_own_tenant_count() -> None:
    def record(tenant: str, session: str, role: str) -> dict[str, Any]:
        evidence = [{"data": {"role": role}}]
        return {"metadata": {"tenant_uid": tenant}, "unmapped": {"entity": session}, "evidences": evidence}

    seen = Seen("acme")
    for tenant, session, role in (("other", "a", "tool"), ("acme", "b", "user"), ("acme", "c", "tool")):
        seen.finding(record(tenant, session, role))
    assert [seen.wait(session, 0.01) is not None for session in "abc"] == [False, False, True]


@pytest.mark.kafka
@pytest.mark.timeout(1800)
def test_a_call_through_the_gateway_is_a_finding_and_every_panel_of_the_dashboard_has_data(
    kafka: str, sample_release: Path, tmp_path: Path
) -> None:
    with needed():
        tool("prometheus")
    if not PROGRAM.is_file():
        pytest.skip("the LiteLLM proxy is not here; run 'make setup'")
    before = set(AdminClient({"bootstrap.servers": kafka}).list_topics(timeout=120).topics)
    ended = subprocess.run(
        [
            sys.executable,
            "-m",
            "tidegate.stack",
            "--seconds",
            "10",
            "--out",
            str(tmp_path),
            "--release",
            str(sample_release),
        ],
        env={**os.environ, "KAFKA_BOOTSTRAP_SERVERS": kafka},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    summary = json.loads((tmp_path / "summary.json").read_bytes())
    assert 0 < summary["seconds_to_finding"] < 5
    assert summary["prometheus_targets_up"] == summary["prometheus_targets"] == 6
    assert summary["dashboard_queries_with_data"] == summary["dashboard_queries"] == len(queries())
    assert summary["canary_found"] > 0
    assert summary["captured_calls"] == len(captured())
    pictures = sorted(tmp_path.glob("*.png"))
    assert len(pictures) == summary["plots"] == len({query.row for query in queries()})
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in pictures)
    assert set(AdminClient({"bootstrap.servers": kafka}).list_topics(timeout=120).topics) - before <= {
        "__consumer_offsets",
        "__transaction_state",
    }
