"""Comparing two replays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from stream.errors import UsageError
from stream.runtime.replay_compare import Difference, compare
from stream.sinks.file import DEAD_LETTERS, FINDINGS, SCORES


def score(offset: int, **values: Any) -> dict[str, Any]:
    return {"partition": 1, "offset": offset, "p_combined": 0.5, "signals": {"novelty": 0.1}, **values}


def finding(uid: str, revision: int, **values: Any) -> dict[str, Any]:
    return {"finding_info": {"uid": uid}, "metadata": {"sequence": revision}, "evidences": ["a", "b"], **values}


def folder(path: Path, scores: list[Any], findings: list[Any], dead: list[Any] | None = None) -> Path:
    path.mkdir()
    for name, lines in ((SCORES, scores), (FINDINGS, findings), (DEAD_LETTERS, dead or [])):
        (path / name).write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
    return path


def compared(tmp_path: Path, a: list[Any], b: list[Any], name: str = SCORES) -> Difference:
    of = {SCORES: 0, FINDINGS: 1, DEAD_LETTERS: 2}[name]
    contents: list[list[list[Any]]] = [[[], [], []], [[], [], []]]
    contents[0][of], contents[1][of] = a, b
    folders = [folder(tmp_path / side, *lines) for side, lines in zip("ab", contents, strict=True)]
    return next(each for each in compare(*folders) if each.file == name)


def test_equal_replays_do_not_differ(tmp_path: Path) -> None:
    told = compared(tmp_path, [score(1), score(2)], [score(1), score(2)])
    assert not told.differs
    assert (told.lines_a, told.lines_b) == (2, 2)


def test_changed_line_is_told_field_by_field(tmp_path: Path) -> None:
    changed = score(2, p_combined=0.25, signals={"novelty": 0.2})
    told = compared(tmp_path, [score(1), score(2), score(3)], [score(1), changed, score(3)])
    assert (told.changed, told.only_a, told.only_b) == (1, 0, 0)
    assert list(told.told()) == [
        "scores.jsonl differs: 3 lines in A, 3 in B; 1 changed, 0 only in A, 0 only in B.",
        "  first at line 2, A | B:",
        "    p_combined: 0.5 | 0.25",
        "    signals.novelty: 0.1 | 0.2",
        "  fields that differ (in lines): p_combined (1), signals.novelty (1)",
    ]


def test_missing_line_does_not_make_all_that_follow_differ(tmp_path: Path) -> None:
    told = compared(tmp_path, [score(n) for n in range(9)], [score(n) for n in range(9) if n != 4])
    assert (told.changed, told.only_a, told.only_b) == (0, 1, 0)
    assert "first at line 5" in told.first[0]


def test_line_that_only_one_has_at_the_end_is_told(tmp_path: Path) -> None:
    told = compared(tmp_path, [score(1)], [score(1), score(2)])
    assert (told.changed, told.only_a, told.only_b) == (0, 0, 1)
    assert told.first[0].startswith("first at line 2, which only B has: {")


def test_line_that_is_there_twice_is_one_too_many(tmp_path: Path) -> None:
    told = compared(tmp_path, [score(1), score(2)], [score(1), score(1), score(2)])
    assert (told.changed, told.only_a, told.only_b) == (0, 0, 1)


def test_same_findings_in_another_order_differ_in_their_order_only(tmp_path: Path) -> None:
    a, b = finding("a", 1), finding("b", 1)
    told = compared(tmp_path, [a, b], [b, a], FINDINGS)
    assert (told.changed, told.only_a, told.only_b) == (0, 0, 0)
    assert told.differs


def test_finding_is_known_again_by_its_uid_and_revision(tmp_path: Path) -> None:
    ours = [finding("a", 1), finding("a", 2), finding("b", 1)]
    theirs = [finding("b", 1), finding("a", 2, evidences=["a", "c"]), finding("c", 1)]
    told = compared(tmp_path, ours, theirs, FINDINGS)
    assert (told.changed, told.only_a, told.only_b) == (1, 1, 1)
    assert told.fields == {"evidences[1]": 1}


def test_absent_and_null_are_told_apart(tmp_path: Path) -> None:
    told = compared(tmp_path, [score(1, finding_uid=None)], [score(1)])
    assert "  finding_uid: null | (absent)" in told.first


def test_values_that_are_only_written_differently_differ(tmp_path: Path) -> None:
    a, b = folder(tmp_path / "a", [score(1)], []), folder(tmp_path / "b", [score(1)], [])
    (b / SCORES).write_bytes((b / SCORES).read_bytes().replace(b":", b": "))
    (told,) = [each for each in compare(a, b) if each.differs]
    assert told.first == ["first at line 1, A | B:", "  the same values, written differently"]


def test_number_that_is_no_longer_whole_differs(tmp_path: Path) -> None:
    told = compared(tmp_path, [score(1, ordinal=1)], [score(1, ordinal=1.0)])
    assert told.fields == {"ordinal": 1}


def test_dead_letters_are_compared_too(tmp_path: Path) -> None:
    told = compared(tmp_path, [score(1, reason="schema")], [score(1, reason="oversized")], DEAD_LETTERS)
    assert told.fields == {"reason": 1}


def test_file_that_only_one_has_differs(tmp_path: Path) -> None:
    a, b = folder(tmp_path / "a", [score(1)], []), folder(tmp_path / "b", [score(1)], [])
    (b / SCORES).unlink()
    (told,) = [each for each in compare(a, b) if each.differs]
    assert (told.file, told.only_a) == (SCORES, 1)


def test_what_would_steer_a_terminal_is_not_shown(tmp_path: Path) -> None:
    told = compared(tmp_path, [score(1, user="\x1b[2J\u202e")], [score(1, user="x")])
    assert all(c.isprintable() for line in told.told() for c in line)


def test_folder_without_a_replay_is_refused(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    full = folder(tmp_path / "full", [], [])
    for pair in ((empty, full), (full, empty), (full, tmp_path / "nowhere")):
        with pytest.raises(UsageError, match=r"must be a folder that 'tidegate replay --out' wrote"):
            compare(*pair)


@pytest.mark.parametrize(
    ("line", "match"), [(b"{", r"line 1 must be JSON"), (b"{}", r"must be a line of a replay's scores\.jsonl")]
)
def test_line_that_is_none_is_refused_with_its_place(tmp_path: Path, line: bytes, match: str) -> None:
    a, b = folder(tmp_path / "a", [score(1)], []), folder(tmp_path / "b", [], [])
    (b / SCORES).write_bytes(line + b"\n")
    with pytest.raises(UsageError, match=match):
        compare(a, b)
