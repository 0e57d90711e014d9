"""The gate's decision as a page that anybody can read and nobody can abuse."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from stream.config import GateSettings
from stream.runtime.trainer.gate_report.page import write_gate_report, write_undecided
from stream.training.audit import Analyst, Audit
from stream.training.gate import GateReport, decide
from tests.stream.training.test_gate import judged

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture
def report() -> GateReport:
    analyst = Analyst(
        analyst=HOSTILE,
        verified=False,
        labels=30,
        contradicted=28,
        benign_for_attack=28,
        others=0.02,
        shared=0,
        disagreed=0,
        p_value=1e-9,
        set_aside=f"{HOSTILE} is set aside: 28 of 30 labels contradict what all others say",
    )
    audit = Audit(
        kept=frozenset(),
        set_aside={HOSTILE: analyst.set_aside or ""},
        noise=0.02,
        refused=None,
        doubted=[b"a"],
        analysts=[analyst],
        figures={"judged": 50, "labels": 80},
    )
    return decide(judged(release=HOSTILE), judged(found=40, release="r-new"), GateSettings(), audit=audit)


def test_the_page_says_what_was_decided_and_why(report: GateReport, tmp_path: Path) -> None:
    assert write_gate_report(report, tmp_path / "gate") == ["gate.html", "gate.json"]
    page = (tmp_path / "gate" / "gate.html").read_text()
    assert "<title>Tidegate: r-new refused</title>" in page
    assert "Refused: 40 of 60 labelled attack sessions are found, 50 by the champion" in page
    # Both releases, attacks and benign sessions by slice, analysts.
    assert page.count("<svg") == 4
    assert "28 of 30 labels contradict" in page


def test_the_page_loads_and_runs_nothing(report: GateReport, tmp_path: Path) -> None:
    write_gate_report(report, tmp_path)
    page = (tmp_path / "gate.html").read_text()
    assert "<script" not in page
    assert "default-src 'none'" in page
    assert 'src="http' not in page and 'href="http' not in page.replace('xlink:href="#', "")


def test_the_data_is_beside_it_and_both_are_the_same_each_time(report: GateReport, tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_gate_report(report, tmp_path / name)
    for name in ("gate.html", "gate.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    data = orjson.loads((tmp_path / "a" / "gate.json").read_bytes())
    assert data["promote"] is False
    assert [check["name"] for check in data["checks"]] == [
        "labels", "evidence", "recall", "recall_held_out", "false_positives", "slices",
    ]  # fmt: skip
    assert data["attacks_held_out"] == 5
    assert data["labels"]["analysts"][0]["analyst"] == HOSTILE


def test_the_page_shows_attacks_held_out_from_training(report: GateReport, tmp_path: Path) -> None:
    write_gate_report(report, tmp_path)
    page = (tmp_path / "gate.html").read_text()
    assert "So are those held out from training" in page
    assert "5 of 5 labelled attack sessions held out from training are found, 5 by the champion" in page


def test_a_release_that_nothing_is_compared_with_has_its_reason_on_a_page(tmp_path: Path) -> None:
    assert write_undecided(HOSTILE, "Nothing is in service.", tmp_path / "gate") == ["gate.html", "gate.json"]
    page = (tmp_path / "gate" / "gate.html").read_text()
    assert page.count("not compared") == 2
    assert "Nothing is in service." in page
    assert "<script" not in page
    data = orjson.loads((tmp_path / "gate" / "gate.json").read_bytes())
    assert data == {"promote": False, "reason": "Nothing is in service.", "checks": [], "slices": []}


def test_a_decision_about_nothing_has_a_page_too(tmp_path: Path) -> None:
    empty = judged(attacks=0, found=0, benign=0, flagged=0)
    write_gate_report(decide(empty, empty, GateSettings()), tmp_path)
    assert "there are only 0 labelled attack sessions" in (tmp_path / "gate.html").read_text()
