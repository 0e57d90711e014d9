"""What the committed sample holds, and what it must not."""

from collections import Counter
from pathlib import Path

import orjson
import pytest

from sample.records import ATTACKS, HERE, LIVE, TRAIN, Format, records
from schemas.corpus import CorpusSession, calls, decode_session
from scripts.make_sample import DAY_MS, LICENSES, LIVE_DAYS, SECRET, START_MS, TRAIN_DAYS, base_conversation, table
from stream.sources.lines import read_lines


def load(path: Path) -> list[CorpusSession]:
    return [decode_session(line) for line in read_lines(path)]


@pytest.fixture(scope="module")
def train() -> list[CorpusSession]:
    return load(TRAIN)


@pytest.fixture(scope="module")
def live() -> list[CorpusSession]:
    return load(LIVE)


def test_sample_is_small() -> None:
    assert sum(path.stat().st_size for path in HERE.rglob("*") if path.is_file()) <= 5_000_000


def test_every_session_may_be_passed_on_and_its_source_has_a_notice(
    train: list[CorpusSession], live: list[CorpusSession]
) -> None:
    notice = (HERE / "NOTICE").read_text()
    for source, licence in {(session.source, session.license) for session in train + live + load(ATTACKS)}:
        assert licence in LICENSES
        assert source is not None
        assert source in notice
        assert (HERE / "licenses" / f"{licence}.txt").is_file()


def test_recorded_runs_without_a_licence_are_not_in_it(train: list[CorpusSession], live: list[CorpusSession]) -> None:
    assert not {"agentdojo", "sgd", "bcontrast"} & {session.source for session in train + live}


def test_train_is_benign_and_live_is_judged(train: list[CorpusSession], live: list[CorpusSession]) -> None:
    assert {session.label for session in train} == {"benign"}
    labels = Counter(session.label for session in live)
    assert labels.keys() == {"benign", "attack"}
    assert labels["benign"] >= 100
    assert labels["attack"] >= 40


def test_tenants_tools_turns_and_hard_negatives_are_many_enough(
    train: list[CorpusSession], live: list[CorpusSession]
) -> None:
    tenants = {session.tenant for session in train}
    assert len(tenants) >= 8
    assert tenants == {session.tenant for session in live}
    for sessions in (train, live):
        assert sum(any(turn.tool_calls for turn in session.turns) for session in sessions) >= 100
        assert sum(len(calls(session)) >= 3 for session in sessions) >= 100
        assert sum(session.tenant == "hardneg-code" and session.label == "benign" for session in sessions) >= 30


def test_attacks_are_of_several_families_and_many_lie_in_tool_results(live: list[CorpusSession]) -> None:
    attacks = [session for session in live if session.label == "attack"]
    kinds = Counter((session.attack_family or "").split(".")[0] for session in attacks)
    assert kinds.keys() >= {"indirect_injection", "direct_injection", "jailbreak"}
    injections = {session.attack_family for session in attacks if (session.attack_family or "").startswith("indirect")}
    assert len(injections) >= 3
    carried = [s for s in attacks if any(turn.payload and turn.role == "tool" for turn in s.turns)]
    assert len(carried) == kinds["indirect_injection"] >= 30
    assert all(any(turn.payload for turn in session.turns) for session in attacks)


def test_no_session_task_or_base_conversation_lies_in_both_files(
    train: list[CorpusSession], live: list[CorpusSession]
) -> None:
    names = Counter(session.session for session in train + live)
    assert max(names.values()) == 1
    seen = {(session.tenant, base_conversation(session)) for session in train}
    assert not seen & {(session.tenant, base_conversation(session)) for session in live}
    tasks = {session.task for session in train if session.task}
    assert tasks
    assert not tasks & {session.task for session in live if session.task}


def test_attacks_in_tool_results_stand_beside_benign_sessions_of_their_tasks(live: list[CorpusSession]) -> None:
    benign = {session.task for session in live if session.label == "benign"}
    assert {session.task for session in live if session.label == "attack"} - {None} <= benign


def test_labelled_injections_are_on_tasks_of_training_and_ask_for_what_no_live_one_of_their_tenant_asks(
    train: list[CorpusSession], live: list[CorpusSession]
) -> None:
    def goals(sessions: list[CorpusSession]) -> set[tuple[str | None, str]]:
        injections = (s for s in sessions if (s.attack_family or "").startswith("indirect_injection"))
        return {(s.tenant, s.session.split("/")[-2]) for s in injections}

    labelled = load(ATTACKS)
    assert {session.label for session in labelled} == {"attack"}
    assert len(goals(labelled)) >= 5
    assert not goals(labelled) & goals(live)
    assert {s.task for s in labelled if s.task} <= {s.task for s in train}
    assert not {s.session for s in labelled} & {s.session for s in live}


@pytest.mark.parametrize("path", [TRAIN, LIVE, ATTACKS])
def test_no_credential_is_in_it(path: Path) -> None:
    for line in read_lines(path):
        assert not SECRET.search(line.decode())


@pytest.mark.parametrize(("path", "first_day", "days"), [(TRAIN, 0, TRAIN_DAYS), (LIVE, TRAIN_DAYS, LIVE_DAYS)])
def test_sessions_start_in_their_days_in_order_and_calls_never_overlap(path: Path, first_day: int, days: int) -> None:
    starts = []
    for session in load(path):
        assert session.start_ms is not None
        assert len(session.calls_ms) == len(calls(session))
        assert session.calls_ms[0] == session.start_ms
        assert list(session.calls_ms) == sorted(set(session.calls_ms))
        starts.append(session.start_ms)
    assert starts == sorted(starts)
    assert START_MS + first_day * DAY_MS <= starts[0]
    assert starts[-1] < START_MS + (first_day + days) * DAY_MS


@pytest.mark.parametrize("format", ["litellm", "native"])
def test_records_come_in_the_order_of_time_one_a_call_and_each_is_known(
    format: Format, live: list[CorpusSession]
) -> None:
    times, ids, attacks = [], set(), set()
    for time_ms, record, known in records(LIVE, format):
        times.append(time_ms)
        ids.add(known.call_id)
        assert known.call_id == record["litellm_call_id" if format == "litellm" else "event_id"]
        if known.label == "attack":
            attacks.add(known.session)
    assert times == sorted(times)
    assert len(times) == len(ids) == sum(len(calls(session)) for session in live)
    assert attacks == {session.session for session in live if session.label == "attack"}


def test_each_attack_is_brought_by_a_call() -> None:
    brought = {known.session for _, _, known in records(LIVE) if known.payload_new}
    assert brought == {known.session for _, _, known in records(LIVE) if known.label == "attack"}


def test_litellm_records_do_not_say_which_sessions_are_attacks() -> None:
    for _, record, known in records(LIVE):
        envelope = orjson.dumps({name: value for name, value in record.items() if name not in ("messages", "response")})
        assert known.session.encode() not in envelope
        assert not any(word in envelope for word in (b"attack", b"benign", b"injection", b"hijacked", b"jailbreak"))


def test_readme_counts_what_is_there(train: list[CorpusSession], live: list[CorpusSession]) -> None:
    assert table(train, live) in (HERE / "README.md").read_text()
