"""A card says what made a release and how far to trust it, the same of the same input."""

from __future__ import annotations

from typing import Any

from schemas.manifest import InputFile, InputRange, LabelsUsed, Teacher, TrainingInput
from stream.training.card import Card

RANGE = InputRange(topic="events", partition=3, from_offset=10, to_offset=20)
LABELS = LabelsUsed(
    ranges=[RANGE],
    labels_sha256="c" * 64,
    attacks=4,
    benign=2,
    left_out=1,
    findings=["f" * 32],
    analysts=["ada", "b|b\nc"],
)
TEACHER = Teacher(base="minilm-l6-v2", sha256="d" * 64, examples=100, metrics={"teacher_loss": 0.25})


def card(**changed: Any) -> str:
    data = TrainingInput(
        files=[InputFile(name="a.jsonl.gz", sha256="a" * 64, bytes=12)],
        ranges=[RANGE],
        events=1234,
        sessions=56,
        tenants=7,
        left_out=2,
        dead_letters=1,
        first_event_ms=1_795_000_000_000,
        last_event_ms=1_795_100_000_000,
        events_sha256="b" * 64,
        labels=changed.pop("labels", LABELS),
        teacher=changed.pop("teacher", TEACHER),
    )
    given = {"parent": "r-before", "reasons": ["enough labels"], "decision": "Promoted: better.", **changed}
    return Card(
        data=data,
        metrics={"held_out_flagged_at_0.01": 0.012},
        space_id="space",
        feature_schema="f-1",
        state_schema="s-1",
        seed=7,
        slices=[{"slice": "tenant a|b", "attacks": 3, "found now": 2}],
        counts={"held_out": 11},
        **given,
    ).text()


def test_it_names_data_labels_teacher_gate_and_limits() -> None:
    said = card()
    for part in (
        "It follows `r-before`.",
        "- enough labels",
        "1,234 events of 56 sessions and 7 tenants, from 2026-11-18 to 2026-11-19",
        "- file `a.jsonl.gz`, 12 bytes",
        "- `events[3]` 10 to 20",
        "| held out | 11 |",
        "4 of attacks and 2 of benign findings",
        "distilled from `minilm-l6-v2`, fine-tuned on 100 segments",
        "Promoted: better.",
        "## Limits",
    ):
        assert part in said


def test_names_that_others_chose_do_not_break_out_of_their_cell() -> None:
    said = card()
    assert "by ada, b\\|b c;" in said
    assert "| tenant a\\|b | 3 | 2 |" in said


def test_the_same_input_gives_the_same_card() -> None:
    assert card() == card()


def test_a_release_that_nobody_labelled_says_so() -> None:
    said = card(labels=None, teacher=None, parent=None, reasons=(), decision="")
    assert "None: no analyst's verdict taught it anything." in said
    assert "It follows no other release." in said
    assert "## Gate" not in said
