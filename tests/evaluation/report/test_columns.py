"""`sessions.jsonl` as columns."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from evaluation.report import columns
from evaluation.report.columns import Rows
from evaluation.row import Row
from tests.evaluation.report.made import row

MANY = [
    row(session="b", slices={"language": "de"}, first_finding_turn=2, flagged=True),
    row(session="a", tenant="t-0", obeyed=True),
    row(session="b", label="attack", family="x+goal", obeyed=False, slices={"length": "long", "language": "en"}),
    row(session="c", seed=3, score=-7.5, p=0.25, events=9),
]


def told(rows: Rows, at: int) -> dict[str, object]:
    """A row out of its columns."""
    named = {
        name: getattr(rows, name) for name in ("protocol", "system", "tenant", "session", "family", "task", "label")
    }
    turn, obeyed = int(rows.first_finding_turn[at]), int(rows.obeyed[at])
    return {
        **{name: column.names[column.codes[at]] for name, column in named.items()},
        "seed": int(rows.seed[at]), "score": float(rows.score[at]), "p": float(rows.p[at]),
        "flagged": bool(rows.flagged[at]), "events": int(rows.events[at]),
        "signal": rows.signal.names[rows.signal.codes[at]], "first_finding_turn": None if turn < 0 else turn,
        "obeyed": None if obeyed < 0 else bool(obeyed),
        "slices": {name: c.names[c.codes[at]] for name, c in rows.slices.items() if c.codes[at] >= 0},
    }  # fmt: skip


def rows_told(rows: Rows) -> list[Row]:
    return [msgspec.convert(told(rows, at), Row) for at in range(len(rows))]


@pytest.mark.parametrize("at_once", [1, 3, 100])
def test_columns_say_what_the_lines_say(at_once: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "_AT_ONCE", at_once)
    path = tmp_path / "sessions.jsonl"
    path.write_bytes(msgspec.json.Encoder().encode_lines(MANY))
    assert rows_told(Rows.read(path)) == MANY


def test_names_are_numbered_by_the_alphabet_and_not_by_who_came_first() -> None:
    rows = Rows.of(MANY)
    assert rows.session.names == ["a", "b", "c"]
    assert rows.session.codes.tolist() == [1, 0, 1, 2]
    assert list(rows.slices) == ["language", "length"]


def test_rows_can_be_taken_by_number_and_by_truth() -> None:
    rows = Rows.of(MANY)
    assert rows_told(rows.take(np.array([3, 0]))) == [MANY[3], MANY[0]]
    assert rows_told(rows.take(rows.label.is_one("attack"))) == [MANY[2]]
    assert len(rows.take(rows.label.is_one("nothing"))) == 0


def test_no_rows_are_empty_columns(tmp_path: Path) -> None:
    (tmp_path / "sessions.jsonl").write_bytes(b"")
    assert len(Rows.read(tmp_path / "sessions.jsonl")) == 0


def test_a_line_that_is_no_row_is_told_with_its_number(tmp_path: Path) -> None:
    path = tmp_path / "sessions.jsonl"
    path.write_bytes(msgspec.json.encode(MANY[0]) + b'\n{"protocol": "paired"}\n')
    with pytest.raises(
        ValueError, match=r"sessions\.jsonl:2 must be a row of an evaluation; .* Run the evaluation again"
    ):
        Rows.read(path)
