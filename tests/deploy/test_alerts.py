"""The alert rules: Prometheus takes them, each fires and does not fire, each has a section in the runbook."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.prometheus.local import ALERTS, CONFIG
from scripts.readme_tables import declared
from tests.deploy.promtool import promtool

ROOT = Path(__file__).parents[2]
TESTS = ALERTS.with_suffix(".test.yml")
RULES: list[dict[str, Any]] = yaml.safe_load(ALERTS.read_text())["groups"][0]["rules"]
NAMES = [rule["alert"] for rule in RULES]


def test_prometheus_takes_its_configuration_with_the_rules_beside_it(tmp_path: Path) -> None:
    shutil.copy(CONFIG, tmp_path)
    shutil.copy(ALERTS, tmp_path)
    code, said = promtool("check", "config", CONFIG.name, cwd=tmp_path)
    assert code == 0, said
    assert f"{len(RULES)} rules found" in said


def test_every_alert_fires_and_does_not_fire_as_its_cases_say() -> None:
    code, said = promtool("test", "rules", str(TESTS))
    assert code == 0, said


def test_a_rule_that_never_fires_is_found_out(tmp_path: Path) -> None:
    """The case against these cases: a threshold out of reach."""
    (tmp_path / ALERTS.name).write_text(ALERTS.read_text().replace("tidegate_ready == 0", "tidegate_ready == -1"))
    shutil.copy(TESTS, tmp_path)
    code, said = promtool("test", "rules", TESTS.name, cwd=tmp_path)
    assert code == 1
    assert "TidegateNotReady" in said


@pytest.mark.parametrize("name", NAMES)
def test_every_alert_has_a_case_of_either_kind(name: str) -> None:
    cases = [
        rule["exp_alerts"]
        for test in yaml.safe_load(TESTS.read_text())["tests"]
        for rule in test["alert_rule_test"]
        if rule["alertname"] == name
    ]
    assert any(cases)
    assert not all(cases)


@pytest.mark.parametrize("rule", RULES, ids=NAMES)
def test_every_alert_leads_to_its_section_of_the_runbook(rule: dict[str, Any]) -> None:
    page, anchor = rule["annotations"]["runbook_url"].split("#")
    sections = re.findall(r"^### (\w+)$", (ROOT / page).read_text(), re.MULTILINE)
    assert rule["alert"] in sections
    assert anchor == rule["alert"].lower()
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    assert rule["annotations"]["summary"].endswith(".")


def test_the_runbook_has_no_section_of_an_alert_that_is_gone() -> None:
    sections = re.findall(r"^### (Tidegate\w+)$", (ROOT / "docs/runbook.md").read_text(), re.MULTILINE)
    assert sections == NAMES


def test_alerts_ask_for_declared_metrics_and_labels_only() -> None:
    known = {metric.name: metric for metric in declared()}
    for rule in RULES:
        for asked in re.findall(r"tidegate_\w+", rule["expr"]):
            base = re.sub(r"_(bucket|count|sum)$", "", asked)
            # LiteLLM's proxy has its own: tidegate/gateway_log.py.
            assert base in known or base == "tidegate_litellm_records_total", rule["alert"]
