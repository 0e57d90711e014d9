"""A corpus folder is read whole, and whatever is missing in it is missing, not wrong."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from evaluation.corpus import read_corpus
from evaluation.injection import injections
from evaluation.split import base_of
from stream.errors import UsageError
from tests.evaluation.folder import write_corpus
from tests.evaluation.office import corpus, look_alike, sessions
from tests.stream.training.captures import session, write_lines


def test_every_file_of_lines_is_read_packed_or_not_by_name(tmp_path: Path) -> None:
    write_lines(tmp_path / "b.jsonl", [session(1)])
    write_lines(tmp_path / "a.jsonl.gz", [session(0), session(2, label="attack") | {"tenant": None}])
    (tmp_path / "MANIFEST.json").write_text("{}")
    read = read_corpus(tmp_path)
    assert [(s.session, file) for s, file in zip(read.sessions, read.files, strict=True)] == [
        ("s0", "a"),
        ("s2", "a"),
        ("s1", "b"),
    ]
    assert [s.session for s in read.foreign] == ["s2"]
    assert list(read.benign) == ["team-0"]


def test_what_cannot_be_judged_is_counted_and_left_out(tmp_path: Path) -> None:
    lines = [session(0), session(1, label=None), session(2, turns=[])]
    write_lines(tmp_path / "a.jsonl", lines)
    (tmp_path / "b.jsonl").write_text("no json\n")
    read = read_corpus(tmp_path)
    assert [s.session for s in read.sessions] == ["s0"]
    assert read.left_out == {"no_label": 1, "no_call": 1, "undecodable": 1}


def test_sessions_that_share_a_name_get_one_each(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.jsonl", [session(0), session(0), session(0, tenant="team-1")])
    names = [(s.tenant, s.session) for s in read_corpus(tmp_path).sessions]
    assert len(set(names)) == 3
    assert names[0] == ("team-0", "s0")
    assert names[2] == ("team-1", "s0")


def test_a_folder_without_conversations_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="must hold labelled conversations"):
        read_corpus(tmp_path)
    with pytest.raises(UsageError, match="must be a folder"):
        read_corpus(tmp_path / "none")


def test_look_alikes_are_known_by_their_shape_where_no_name_tells_them() -> None:
    made = corpus()
    assert {s.tenant for s in made.look_alikes} == {"questions"}
    assert "questions" not in made.benign


def test_a_name_tells_look_alikes_and_then_no_shape_does() -> None:
    named = [
        msgspec.structs.replace(s, session=f"n{s.session}", source="Hard-Negatives v2", tenant="n")
        for s in map(look_alike, range(3))
    ]
    made = corpus([*sessions(), *named])
    assert {s.tenant for s in made.look_alikes} == {"n"}
    assert "questions" in made.benign


def test_tenants_that_all_only_ask_are_tenants() -> None:
    made = corpus([look_alike(number) for number in range(4)])
    assert made.look_alikes == []
    assert list(made.benign) == ["questions"]


def test_without_tasks_a_tenant_s_injected_sessions_and_their_clean_twins_are_known_by_opening_alike(
    tmp_path: Path,
) -> None:
    named = read_corpus(write_corpus(tmp_path / "named", sessions()))
    nameless = [msgspec.structs.replace(one, task=None) for one in sessions()]
    # A tenant without attacks that holds one of the conversations, and an attack that opens like none of them.
    told = next(one for one in nameless if one.tenant == "north" and one.label == "benign")
    calm = msgspec.structs.replace(told, tenant="calm")
    own = msgspec.structs.replace(named.foreign[0], tenant="north", session="own")
    made = read_corpus(write_corpus(tmp_path / "nameless", [*nameless, calm, own]))
    found = [sum(bool(each.spans) for each in injections(corpus)) for corpus in (made, named)]
    assert found[0] == found[1] > 0
    assert {one.tenant for one in made.sessions if one.task is not None} == set(named.placed)
    by_tenant = {one.tenant: one for one in made.benign["calm"] + made.benign["north"] if one.turns == calm.turns}
    assert base_of(by_tenant["calm"]) == base_of(by_tenant["north"])
    assert [one.task for one in made.placed["north"] if one.turns == own.turns] == [None]


def test_a_corpus_of_which_nothing_can_be_judged_is_refused_with_the_reasons(tmp_path: Path) -> None:
    folder = write_corpus(tmp_path / "corpus", [msgspec.structs.replace(sessions()[0], label="odd")])
    (folder / "sub.jsonl").mkdir()
    (folder / "torn.jsonl").write_bytes(b'{"turns": [\n')
    with pytest.raises(UsageError, match="of its lines 1 have no label benign or attack, 1 hold no session"):
        read_corpus(folder)


def test_an_attack_of_a_tenant_of_whom_nothing_else_is_known_is_foreign() -> None:
    alone = msgspec.structs.replace(sessions()[-30], tenant="nobody", label="attack")
    made = corpus([*sessions(), alone])
    assert alone in made.foreign
    assert "nobody" not in made.placed
