"""The dashboard, as far as it can be judged at rest; `test_stack.py` puts every query to a real Prometheus."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import yaml

from deploy.prometheus.local import CONFIG, LocalPrometheus
from scripts.readme_tables import ROOT, declared
from tests.deploy.promtool import needed, promtool
from tidegate.gateway_log import RESULTS
from tidegate.stack.panels import DASHBOARD, Query, queries, spelled_out, without_data

GIVEN = json.loads(DASHBOARD.read_text())
PANELS = [panel for panel in GIVEN["panels"] if panel["type"] != "row"]
DECLARED = {metric.name: metric for metric in declared()}


def test_it_shows_what_an_operator_asks_for() -> None:
    shown = " ".join(query.expression for query in queries())
    for metric in (
        "records_total", "lag_records", "latency_seconds", "decisions_total", "budget_used_ratio", "rare_events_total",
        "canary_age_seconds", "embedding_cache_total", "transactions_total", "transaction_seconds", "restore_seconds",
        "state_bytes", "dead_letters_total", "findings_total", "release_info", "ready",
    ):  # fmt: skip
        assert f"tidegate_{metric}" in shown, metric


def test_every_metric_is_exported_and_every_label_one_of_its_own() -> None:
    scraped = {"job", "instance", "le"}
    for query in queries():
        for name in re.findall(r"tidegate_\w+", query.expression):
            base = re.sub(r"_(bucket|sum|count)$", "", name)
            if base == "tidegate_litellm_records_total":  # of LiteLLM's proxy: tidegate/gateway_log.py
                continue
            assert base in DECLARED, query
        labels = {label for found in re.findall(r"by \(([\w, ]+)\)", query.expression) for label in found.split(", ")}
        known = {label for metric in DECLARED.values() for label in metric.labels} | scraped | {"result"}
        assert labels <= known, query
        assert "tenant" not in query.expression


def test_the_gateways_metric_has_the_name_that_the_logger_gives_it() -> None:
    source = (ROOT / "tidegate" / "gateway_log.py").read_text()
    assert '"tidegate_litellm_records_total"' in source
    assert "delivered" in RESULTS


def test_every_legend_names_labels_that_the_query_keeps() -> None:
    for query in queries():
        for label in re.findall(r"\{\{(\w+)\}\}", query.legend):
            kept = re.findall(r"by \(([\w, ]+)\)", query.expression)
            assert not kept or any(label in by.split(", ") for by in kept), query


def test_promtool_reads_every_query(tmp_path: Path) -> None:
    rules = [
        {"record": f"panel:{number}", "expr": spelled_out(query.expression, "1m")}
        for number, query in enumerate(queries())
    ]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    code, said = promtool("check", "rules", str(tmp_path / "rules.yml"))
    assert code == 0, said
    assert f"{len(rules)} rules found" in said


def test_panels_have_ids_of_their_own_and_do_not_overlap() -> None:
    assert max(Counter(panel["id"] for panel in GIVEN["panels"]).values()) == 1
    taken: set[tuple[int, int]] = set()
    for panel in GIVEN["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not taken & cells, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells


def test_panels_ask_the_datasource_that_is_provisioned_as_often_as_it_scrapes() -> None:
    provisioned = yaml.safe_load((ROOT / "deploy/grafana/provisioning/datasources/prometheus.yml").read_text())
    [source] = provisioned["datasources"]
    for panel in PANELS:
        assert panel["datasource"] == {"type": source["type"], "uid": source["uid"]}
        assert panel["description"]
    assert source["jsonData"]["timeInterval"] == yaml.safe_load(CONFIG.read_text())["global"]["scrape_interval"]


def test_a_query_without_data_is_told_with_its_reason(tmp_path: Path) -> None:
    asked = [Query("row", name, expression, "", "") for name, expression in (
        ("fine", "vector(1)"), ("empty", "tidegate_ready"), ("nan", "vector(0) / 0"), ("wrong", "sum("),
    )]  # fmt: skip
    with needed(), LocalPrometheus({}, tmp_path) as prometheus:
        empty, nan, wrong = without_data(prometheus, asked, "5s")
    assert empty == "empty: tidegate_ready returns nothing"
    assert nan == "nan: vector(0) / 0 returns no number"
    assert wrong.startswith("wrong: sum(: ")
    assert "parse error" in wrong
