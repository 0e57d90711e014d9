"""The sample as ten days with attacks."""

from pathlib import Path

import pytest

from sample.judged import QUIET_END_MS, history, write_quiet_week
from sample.records import ATTACKS, TRAIN
from schemas.corpus import CorpusSession, decode_session
from stream.sources.lines import read_lines


@pytest.fixture(scope="module")
def sessions() -> list[CorpusSession]:
    return history()


def test_every_benign_session_is_there_and_attacks_come_only_after_the_quiet_week(
    sessions: list[CorpusSession],
) -> None:
    benign = [session for session in sessions if session.label == "benign"]
    attacks = [session for session in sessions if session.label == "attack"]
    assert sorted(s.session for s in benign) == sorted(decode_session(line).session for line in read_lines(TRAIN))
    # Of the 471 that the sample's README has, 59 are of a tenant; two in five of the others come.
    assert sum(str(session.attack_family).startswith("indirect_injection.") for session in attacks) == 59
    assert 0.3 * 412 < len(attacks) - 59 < 0.5 * 412
    assert all(session.start_ms is not None and session.start_ms >= QUIET_END_MS for session in attacks)


def test_every_attack_has_a_tenant_a_key_and_a_time_for_each_call(sessions: list[CorpusSession]) -> None:
    tenants = {session.tenant for session in sessions if session.label == "benign"}
    for attack in (session for session in sessions if session.label == "attack"):
        assert attack.tenant in tenants
        assert attack.key
        assert len(attack.calls_ms) >= 1


def test_sessions_come_in_the_order_of_their_start_and_the_same_each_time(sessions: list[CorpusSession]) -> None:
    starts = [session.calls_ms[0] if session.calls_ms else session.start_ms or 0 for session in sessions]
    assert starts == sorted(starts)
    assert history() == sessions


def test_the_quiet_week_is_the_benign_sessions_before_its_end(sessions: list[CorpusSession], tmp_path: Path) -> None:
    write_quiet_week(tmp_path / "week.jsonl")
    week = [decode_session(line) for line in read_lines(tmp_path / "week.jsonl")]
    early = [s for s in sessions if s.label == "benign" and (s.calls_ms or (s.start_ms or 0,))[0] < QUIET_END_MS]
    assert sorted(s.session for s in week) == sorted(s.session for s in early)
    assert {decode_session(line).session for line in read_lines(ATTACKS)}.isdisjoint(s.session for s in week)
