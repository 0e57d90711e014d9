"""Rows of the state topic: those of older versions are read on, damaged ones are refused."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.novelty import Novelty
from stream.core import Core
from stream.errors import StateError
from stream.record import StateChange
from stream.state import pending, quarantine
from stream.state.open_findings import OpenFinding
from stream.state.partition import Cursor
from stream.state.rows import ROWS, RowError, opened, sealed
from stream.state.rules import StandingRule
from stream.state.schema import STATE_SCHEMA, session_table, tenant_table
from stream.state.store import State
from stream.state.table import Table
from stream.state.verdicts import StandingEffect
from tests.stream.state.keep import AT, KEPT, RECORDS, core, live_rows, to_the_middle, told
from tests.stream.streams import SETTINGS, cut, run

FILES = sorted(KEPT.glob("*.jsonl"))
ROWS_NOW = live_rows(to_the_middle()[1])
NOVELTY = Novelty(dim=32)


def kept(path: Path) -> tuple[dict[str, object], list[tuple[bytes, bytes]]]:
    head, *rows = map(orjson.loads, path.read_bytes().splitlines())
    return head, [(row["key"].encode(), row["value"].encode()) for row in rows]


def restored(rows: list[tuple[bytes, bytes]]) -> Core:
    live = core()
    live.restore(0, rows)
    return live


# -- older versions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_state_of_an_older_version_is_read_and_scored_on_with(path: Path) -> None:
    head, rows = kept(path)
    live = restored(rows)
    assert told(live) == {name: head[name] for name in told(live)}
    assert head["state_schema"] == STATE_SCHEMA, "raise the first number only with a way to rebuild: move the file then"
    assert {orjson.loads(key)[0] for key, _ in rows} == set(ROWS)
    said = run(live, cut(RECORDS[AT:], 7))
    assert sum(map(len, said.scores.values())) + len(said.dead_letters) == len(RECORDS) - AT


def test_state_from_before_checksums_goes_on_with_the_same_bytes() -> None:
    # The same state, as the version before checksums and the first that had them wrote it.
    old, first = (
        run(restored(kept(KEPT / f"{name}.jsonl")[1]), cut(RECORDS[AT:], 7)) for name in ("unchecked", "checked")
    )
    assert old.results() == first.results()


def test_rows_are_of_their_kind_s_version() -> None:
    for key, value in ROWS_NOW.items():
        assert orjson.loads(value)["v"] == ROWS[orjson.loads(key)[0]].version


def test_layout_of_a_row_changes_with_its_version() -> None:
    """A digest that differs wants a higher version in `ROWS`, a reader of the version before, and its digest here."""
    laid_out: dict[str, str] = {}
    tables: tuple[Table, ...] = (tenant_table(NOVELTY), session_table())  # type: ignore[type-arg]
    for table in tables:
        for kind, family in table._families.items():
            laid_out[kind] = repr(family)
    for kind, type_ in (
        ("cursor", Cursor), ("finding", OpenFinding), ("rule", StandingRule), ("verdict", StandingEffect),
    ):  # fmt: skip
        laid_out[kind] = repr(type_.__annotations__)
    laid_out["pending"] = repr(pending._SEGMENT)
    laid_out["quarantine"] = repr(quarantine._SEGMENT)
    digests = {(kind, ROWS[kind].version): sha256(text.encode()).hexdigest()[:8] for kind, text in laid_out.items()}
    assert digests == LAYOUTS


LAYOUTS = {
    ("tenant", 2): "2214abf1",
    ("volume", 2): "1e20ff26",
    ("drift", 2): "d4ff8450",
    ("learned", 5): "a4e87312",
    ("session", 5): "376a6d97",
    ("cursor", 4): "6ce8a53d",
    ("finding", 4): "e698134b",
    ("rule", 2): "c04b9612",
    ("verdict", 2): "ed85715a",
    ("pending", 4): "0f242013",
    ("quarantine", 3): "5b78ddac",
}


# -- damaged rows ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "said"),
    [(99, "a newer Tidegate wrote it"), (1, r"must have version 4 or 5; got 1")],
)
def test_row_of_a_version_that_is_not_read_is_refused(version: int, said: str) -> None:
    key = b'["learned","team-1"]'
    row = sealed(StateChange(0, key, b'{"row":"","v":%d}' % version)).value
    with pytest.raises(StateError, match=said):
        restored(list({**ROWS_NOW, key: row or b""}.items()))


def test_row_of_another_partition_is_refused_with_its_name() -> None:
    live = core()
    with pytest.raises(StateError, match=r"in partition 3 is a row of partition 0: the topic was written by hand"):
        live.restore(3, ROWS_NOW.items())
    assert live.cursor(3) is None and live.state_bytes() == 0


def test_key_written_in_another_way_is_no_second_row() -> None:
    with pytest.raises(RowError, match="must be JSON without spaces") as refused:
        restored([*ROWS_NOW.items(), (b'["tenant", "team-1"]', ROWS_NOW[b'["tenant","team-1"]'])])
    assert refused.value.key == b'["tenant", "team-1"]'


@given(data=st.data())
@settings(max_examples=200, deadline=None)
def test_mutated_row_is_refused_with_its_key(data: st.DataObject) -> None:
    key = data.draw(st.sampled_from(sorted(ROWS_NOW)))
    kind, value = orjson.loads(key)[0], ROWS_NOW[key]
    at = data.draw(st.integers(0, len(value) - 1))
    how = data.draw(st.sampled_from(["flip", "cut", "insert", "swap", "version", "unseal"]))
    if how == "flip":
        changed = value[:at] + bytes([value[at] ^ (1 << data.draw(st.integers(0, 7)))]) + value[at + 1 :]
    elif how == "cut":
        changed = value[:at]
    elif how == "insert":
        changed = value[:at] + data.draw(st.binary(min_size=1, max_size=5)) + value[at:]
    elif how == "swap":
        changed = data.draw(st.sampled_from([other for name, other in ROWS_NOW.items() if name != key]))
    elif how == "version":
        changed = value.replace(b'"v":%d' % ROWS[kind].version, b'"v":%d' % (ROWS[kind].version + 1))
    else:
        changed = value[: value.rindex(b',"crc"')] + b"}"
    if changed == value:
        return
    with pytest.raises(RowError, match="in partition 0") as refused:
        opened(kind, key, 0, changed)
    assert refused.value.key == key


@given(data=st.data())
@settings(max_examples=30, deadline=None)
def test_row_of_any_content_with_a_right_checksum_is_taken_or_refused_with_its_key(data: st.DataObject) -> None:
    """As a faulty writer would make them: the decoders themselves are asked."""
    state = State(SETTINGS, NOVELTY, "r-test")
    key = data.draw(st.sampled_from(sorted(ROWS_NOW)))
    value = orjson.loads(ROWS_NOW[key])
    del value["crc"]
    field = data.draw(st.sampled_from(sorted(value)))
    odd = st.one_of(st.none(), st.integers(-3, 9), st.text(max_size=8), st.sampled_from(["AAAA", [], {}, True, -1.5]))
    value[field] = data.draw(odd)
    row = sealed(StateChange(0, key, orjson.dumps(value))).value or b""
    refused: RowError | None = None
    try:
        state.restore(0, {**ROWS_NOW, key: row}.items())
    except RowError as error:
        refused = error
    if refused is None:
        assert np.all(state.tenants["used"] >= 0)
        return
    assert refused.key == key or b"team" in refused.key
    assert state.partitions == {} and len(state.tenants) == 0
