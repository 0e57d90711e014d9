"""What analysts agree on counts, once, whatever came first."""

from __future__ import annotations

import pytest

from schemas.label import label_key
from stream.record import Record
from stream.training.capture import Captured
from stream.training.labels import latest_labels
from tests.stream.training.labelled import captured, conversation, divided, label, names


@pytest.fixture(scope="module")
def traffic() -> Captured:
    return captured([conversation(i, f"team-{i % 2}") for i in range(40)])


def test_a_session_with_two_findings_of_which_one_is_an_attack_is_an_attack(traffic: Captured) -> None:
    name = names(traffic)["s4"]
    labels = [label(traffic, name, "benign"), label(traffic, name, "attack", finding_uid="f" * 32)]
    data = divided(traffic, labels)
    assert data.sessions[name].judged == "attack"
    assert data.mistaken == []


def test_disputed_labels_teach_nothing_and_are_counted(traffic: Captured) -> None:
    name = names(traffic)["s4"]
    labels = [label(traffic, name, "benign"), label(traffic, name, "attack", analyst="bob")]
    data = divided(traffic, labels)
    assert data.counts["labels_disputed"] == 2
    assert (data.labels.attacks, data.labels.benign, data.labels.left_out) == (0, 0, 2)
    # Somebody found it, nobody is sure: it is not learned.
    assert data.sessions[name].judged is None
    assert data.counts["calibrate_only"] == 1


def test_of_two_who_disagree_the_one_whom_the_audit_believes_counts(traffic: Captured) -> None:
    name = names(traffic)["s4"]
    hostile = label(traffic, name, "benign", analyst="mallory", disputed=True)
    honest = label(traffic, name, "attack", disputed=True)
    data = divided(traffic, [hostile, honest], refused={label_key(hostile.finding_uid, "mallory")})
    assert data.sessions[name].judged == "attack"
    assert data.counts["labels_refused"] == 1
    assert data.labels.analysts == ["ada"]


def test_verdicts_that_teach_nothing_and_findings_about_a_tenant_are_left_out(traffic: Captured) -> None:
    unsure = label(traffic, names(traffic)["s4"], None)
    drift = label(traffic, names(traffic)["s5"], "benign", entity_type="tenant", entity="team-1", session=None)
    data = divided(traffic, [unsure, drift])
    assert data.labels.left_out == 2
    assert data.counts["judged_benign"] == 0


def test_a_label_that_no_utf_8_is_is_passed_over() -> None:
    assert latest_labels([Record("labels", 0, 0, 0, b"k", b'{"adopt": false, "analyst": "\xff"}')]) == ([], 1)


def test_a_label_that_was_taken_back_is_gone() -> None:
    key = label_key("0" * 32, "ada")
    assert latest_labels([Record("labels", 0, 0, 0, key, None)]) == ([], 0)
