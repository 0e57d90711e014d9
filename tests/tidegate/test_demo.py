"""`make demo`, run as a user runs it against a cluster of their own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient

from tests.ocsf import assert_valid_finding

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(1800)]


def test_the_demo_runs_on_a_broker_with_tls_scram_and_acls_each_service_as_itself(
    sample_release: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "tidegate.demo", "--secure", "--seconds", "3", "--out", str(out)]
    environment = {name: value for name, value in os.environ.items() if name != "KAFKA_BOOTSTRAP_SERVERS"}
    ended = subprocess.run(
        [*command, "--release", str(sample_release)], env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "TLS, SCRAM and ACLs on" in ended.stdout
    summary = json.loads((out / "summary.json").read_bytes())
    assert summary["events"] == summary["events_sent"] == 2_539
    assert summary["findings"] > 0 < summary["attack_sessions_found"]
    granted = {acl["principal"] for acl in json.loads((out / "acls.json").read_bytes())}
    assert {"User:tidegate-ingest", "User:tidegate-score"} <= granted


def test_the_demo_does_not_secure_somebody_elses_broker(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tidegate.demo", "--secure", "--out", str(tmp_path), "--release", str(tmp_path)]
    ended = subprocess.run(
        command, env={**os.environ, "KAFKA_BOOTSTRAP_SERVERS": "b:1"}, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1
    assert "unset KAFKA_BOOTSTRAP_SERVERS" in " ".join(ended.stdout.split())


def test_the_demo_scores_everything_explains_what_it_finds_and_leaves_the_cluster_as_it_was(
    kafka: str, sample_release: Path, tmp_path: Path
) -> None:
    before = set(AdminClient({"bootstrap.servers": kafka}).list_topics(timeout=120).topics)
    command = [sys.executable, "-m", "tidegate.demo", "--seconds", "5", "--out", str(tmp_path)]
    ended = subprocess.run(
        [*command, "--release", str(sample_release)],
        env={**os.environ, "KAFKA_BOOTSTRAP_SERVERS": kafka},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    summary = json.loads((tmp_path / "summary.json").read_bytes())
    # The sample's own counts: 368 benign and 69 attack sessions, 2,539 calls (sample/README.md).
    assert summary["events"] == summary["events_sent"] == 2_539
    assert (summary["benign_sessions"], summary["attack_sessions"]) == (368, 69)
    findings = [json.loads(line) for line in (tmp_path / "findings.jsonl").read_bytes().splitlines()]
    assert sum(finding["activity_id"] == 1 for finding in findings) == summary["findings"] > 0
    for finding in findings:
        assert_valid_finding(finding)
        if finding["unmapped"]["entity_type"] == "session":
            assert finding["evidences"], "a finding shows the segment"
            assert finding["finding_info"]["attacks"], "and names a technique"
    assert "AML.T" in ended.stdout
    assert set(AdminClient({"bootstrap.servers": kafka}).list_topics(timeout=120).topics) - before <= {
        "__consumer_offsets",
        "__transaction_state",
    }
