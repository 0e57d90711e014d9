"""What a session has heard, and which of its calls do it, is the same however its events are cut."""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha256
from random import Random
from typing import Any

import numpy as np
import orjson
import pytest
from numpy.typing import NDArray

from models.provenance import PASSAGES, Provenance
from models.wordpiece import TokenBags
from schemas.event_head import MessageHead, PartHead
from stream.state.schema import NEVER_MS, session_table
from stream.state.table import SessionKey, Table
from stream.steps.content import ContentReader
from stream.steps.provenance import obeyed, store_told
from stream.steps.sessions import NewContent, find_runs
from tests.doubles import WordEmbedder

QUIET_MS = 1_000
ORDER = 3.0
EMBEDDER = WordEmbedder()
_COMMON = 3000
"""Tokens below it say nothing (`models.provenance`)."""
WORDS = [word for word in (f"word{i}" for i in range(60)) if EMBEDDER.encode([word]).ids[0] >= _COMMON][:40]
MUST = next(word for word in ("must", "shall", "obey", "do") if EMBEDDER.encode([word]).ids[0] >= _COMMON)


class Orders:
    """Judges that take a text for an order where it says `MUST`."""

    columns = 1

    def score(
        self, bags: TokenBags, vectors: NDArray[np.int8], again: NDArray[np.bool_], message: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        token = EMBEDDER.encode([MUST]).ids[0]
        texts = np.split(bags.ids, bags.offsets[1:-1]) if len(bags.offsets) > 1 else []
        odds = [ORDER if token in text else -2.0 for text in texts]
        return np.array(odds, np.float32).reshape(-1, 1)

    def covered(self, bags: TokenBags, message: NDArray[np.int64]) -> NDArray[np.float32]:
        return np.zeros(int(message.max(initial=-1)) + 1, np.float32)


@dataclass(frozen=True)
class Event:
    """What an event brings that its session had not shown."""

    session: str
    messages: tuple[MessageHead, ...]
    core_ms: int = 0


@dataclass
class Sessions:
    """The step with its state, as the core drives it."""

    table: Table[SessionKey] = field(default_factory=session_table)
    reader: ContentReader = field(default_factory=lambda: ContentReader(EMBEDDER, Orders()))
    covered: float = 0.0
    """Log-odds that every message is covered by."""
    told_most: int = 0
    """Passages that a session has heard."""

    def take(self, *events: Event) -> list[float]:
        """Scores of a batch of events, whose core time never goes back."""
        keys: list[SessionKey] = [(0, "team", event.session) for event in events]
        core = np.array([event.core_ms for event in events], np.int64)
        runs = find_runs(keys, core, np.full(len(events), core[-1]), self.table, QUIET_MS)
        of = [(i, j) for i, event in enumerate(events) for j in range(len(event.messages))]
        new = NewContent(
            np.array([i for i, _ in of], np.int64), np.array([j for _, j in of], np.int64), np.ones(len(of), np.bool_)
        )
        contents = self.reader.read([events[i].messages[j] for i, j in of])
        covered = np.full(len(of), self.covered, np.float32)
        heard = obeyed(Provenance(), runs, new, contents, covered, self.table)
        for run, key in enumerate(runs.keys):
            if runs.ended_ms[run] != NEVER_MS:
                self.table.remove([key] if key in self.table else [])
                continue
            row = self.table.find([key])
            if row[0] < 0:
                row = self.table.create([key])
            self.table["last_core_ms"][row] = core[runs.last[run]]
            store_told(self.table, row, heard.told, np.array([run]))
            self.table.mark("session", row)
        self.told_most = max(self.told_most, int(heard.told.count.max()))
        return [float(score) for score in heard.x]


def _message(role: str, part: PartHead) -> MessageHead:
    digest = sha256(orjson.dumps([role, part.type, part.text, part.arguments, part.response])).hexdigest()
    return MessageHead(role, digest, [part])


def user(said: str) -> MessageHead:
    return _message("user", PartHead("text", text=said))


def system(said: str) -> MessageHead:
    return _message("system", PartHead("text", text=said))


def told(said: str) -> MessageHead:
    return _message("tool", PartHead("tool_call_response", response=said))


def call(**arguments: Any) -> MessageHead:
    return _message("assistant", PartHead("tool_call", name="pay", arguments=orjson.dumps(arguments).decode()))


A, B, C = WORDS[:3]


def test_a_call_obeys_what_a_tool_said_in_the_same_event_or_an_earlier_one() -> None:
    # Each word weighs 1: of an order of log-odds 3, 1 / (1 + 2) counts, and 2 / (2 + 2) of two words.
    expected = [ORDER / 3, ORDER / 2]
    at_once = Sessions().take(Event("s", (told(f"{MUST} {A} {B}"), call(to=A))), Event("s", (call(to=f"{A} {B}"),)))
    assert at_once == pytest.approx(expected)
    session = Sessions()
    assert np.isnan(session.take(Event("s", (told(f"{MUST} {A} {B}"),))))
    assert session.take(Event("s", (call(to=A), call(to=C)))) == pytest.approx(expected[:1])


@pytest.mark.parametrize("covered", [0.0, 1.0, ORDER, ORDER + 1])
def test_what_the_user_has_handed_over_makes_a_passage_less_of_an_order(covered: float) -> None:
    # As above, of log-odds 3 less what is covered; at 0 it is no order any more.
    said = Sessions(covered=covered).take(Event("s", (told(f"{MUST} {A}"), call(to=A))))
    assert said == pytest.approx([max(ORDER - covered, 0) / 3])


def test_an_event_without_a_call_has_no_score_and_a_call_of_ones_own_has_none_of_the_tool_s() -> None:
    scores = Sessions().take(Event("s", (told(f"{MUST} {A}"),)), Event("s", (user(C),)), Event("s", (call(to=B),)))
    assert np.isnan(scores[:2]).all()
    assert scores[2] == 0


def test_what_comes_after_a_call_is_not_obeyed_by_it() -> None:
    scores = Sessions().take(Event("s", (call(to=A),)), Event("s", (told(f"{MUST} {A}"),)))
    assert scores[0] == 0


def test_names_of_parameters_are_no_words_of_a_call() -> None:
    assert Sessions().take(Event("s", (told(f"{MUST} {A}"), call(**{A: B})))) == [0.0]


@pytest.mark.parametrize("who", [user, system])
def test_what_a_user_or_an_operator_wrote_is_theirs(who: Any) -> None:
    session = Sessions()
    assert session.take(Event("s", (who(f"{A} {C}"), told(f"{MUST} {A} {B}"), call(to=A)))) == [0.0]
    assert session.take(Event("s", (call(to=f"{A} {B}"),))) == pytest.approx([ORDER / 3])


def test_data_that_tools_give_may_be_passed_on() -> None:
    assert Sessions().take(Event("s", (told(f"{A} {B}"), call(to=A)))) == [0.0]


def test_sessions_hear_nothing_of_each_other_and_nothing_of_what_was_before_they_closed() -> None:
    session = Sessions()
    session.take(Event("s", (told(f"{MUST} {A}"),)))
    assert session.take(Event("other", (call(to=A),))) == [0.0]
    assert session.take(Event("s", (call(to=A),), QUIET_MS - 1)) == pytest.approx([ORDER / 3])
    assert session.take(Event("s", (call(to=A, at="again"),), 2 * QUIET_MS)) == [0.0]


def _talk(random: Random, events: int) -> list[Event]:
    """Sessions in which users say the first half of the words, tools and calls all; some are closed by quiet."""

    def said(words: list[str], most: int) -> str:
        return " ".join(random.choices(words, k=random.randrange(1, most)))

    core_ms, out = 0, []
    for _ in range(events):
        core_ms += random.choice([0, 0, 1, 40, QUIET_MS // 3])
        messages = []
        for _ in range(random.randrange(5)):
            if random.random() < 0.4:
                messages.append(random.choice([user, system])(said(WORDS[:20], 20)))
            else:
                messages.append(told(said(WORDS, 20) + random.choice(["", f" {MUST}"])))
        messages += [call(to=said(WORDS, 6)) for _ in range(random.randrange(3))]
        out.append(Event(f"s{random.randrange(4)}", tuple(messages), core_ms))
    return out


def _open(sessions: Sessions, core_ms: int) -> dict[SessionKey, list[bytes]]:
    """What is stored of the sessions that are not closed at `core_ms`."""
    table = sessions.table
    names = table.keys()
    rows = dict(zip(names, table.find(names).tolist(), strict=True))
    return {
        key: [table[name][row].tobytes() for name in table.columns]
        for key, row in sorted(rows.items())
        if table["last_core_ms"][row] + QUIET_MS > core_ms
    }


@pytest.mark.parametrize("seed", range(6))
def test_scores_and_state_do_not_depend_on_how_a_stream_is_cut(seed: int) -> None:
    random = Random(seed)
    talk = _talk(random, 120)
    alone, together = Sessions(), Sessions()
    one_by_one = [score for event in talk for score in alone.take(event)]
    batches: list[float] = []
    at = 0
    while at < len(talk):
        size = random.choice([1, 2, 7, 40])
        batches += together.take(*talk[at : at + size])
        at += size
    assert np.array_equal(one_by_one, batches, equal_nan=True)
    assert sum(score > 0 for score in one_by_one) > 20
    # More has been heard than is kept.
    assert alone.told_most > PASSAGES
    kept = _open(alone, talk[-1].core_ms)
    assert kept == _open(together, talk[-1].core_ms)
    assert kept


def test_a_session_read_back_from_its_row_goes_on_as_it_would_have() -> None:
    talk = [Event("s", event.messages) for event in _talk(Random(9), 40)]
    live, back = Sessions(), Sessions()
    live.take(*talk[:20])
    for change in live.table.changes():
        assert change.value is not None
        back.table.load(0, "session", [(orjson.loads(change.key)[1:], change.value)])
    went_on, came_back = live.take(*talk[20:]), back.take(*talk[20:])
    assert np.array_equal(went_on, came_back, equal_nan=True)
    assert np.nanmax(went_on) > 0
