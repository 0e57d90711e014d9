"""What a tool gives back of what was written before it speaks like nobody; what it says itself is judged."""

from __future__ import annotations

from hashlib import sha256

import numpy as np
import orjson
import pytest
from numpy.typing import NDArray

from models.wordpiece import TokenBags
from schemas.event_head import EventHead, MessageHead, PartHead, SourceHead
from stream.steps.content import ContentReader
from stream.steps.echo import without_echoes
from stream.steps.sessions import NewContent
from tests.doubles import WordEmbedder

EMBEDDER = WordEmbedder()
_COMMON = 3000
"""Tokens below it say nothing (`models.provenance`)."""
WORDS = [word for word in (f"word{i}" for i in range(60)) if EMBEDDER.encode([word]).ids[0] >= _COMMON]
LETTER, ORDER = " ".join(WORDS[:10]), " ".join(WORDS[10:20])


class Orders:
    """Judges that take everything for an order."""

    columns = 2

    def score(self, bags: TokenBags, again: NDArray[np.bool_]) -> NDArray[np.float32]:
        return np.full((len(bags.offsets) - 1, 2), 3.0, np.float32)


def message(role: str, *parts: PartHead) -> MessageHead:
    said = orjson.dumps([role, [[part.text, part.arguments, part.response] for part in parts]])
    return MessageHead(role, sha256(said).hexdigest(), list(parts))


def user(text: str) -> MessageHead:
    return message("user", PartHead("text", text=text))


def tool(text: str) -> MessageHead:
    return message("tool", PartHead("tool_call_response", response=text))


def mail(text: str) -> MessageHead:
    arguments = orjson.dumps({"body": text, "to": "ann"}).decode()
    return message("assistant", PartHead("tool_call", name="send_mail", arguments=arguments))


@pytest.fixture
def reader() -> ContentReader:
    return ContentReader(EMBEDDER, Orders())


def judged(reader: ContentReader, *messages: MessageHead, known: int = 0) -> list[NDArray[np.float32]]:
    """Role surprise of the segments of each new message of one request, of which `known` had been heard before."""
    head = EventHead("e", "team", "s", 0, SourceHead("litellm", ""), messages=list(messages))
    at = np.arange(known, len(messages))
    new = NewContent(np.zeros(len(at), np.int64), at, np.ones(len(at), np.bool_))
    contents = without_echoes([head], new, reader.read(messages[known:]), reader)
    return [content.judged[:, 0] for content in contents]


@pytest.mark.parametrize("written", [mail(LETTER), user(f"write to ann: {LETTER}")])
def test_what_a_tool_gives_back_of_a_letter_is_no_order(reader: ContentReader, written: MessageHead) -> None:
    said = judged(reader, user("hello"), written, tool(f"sent: {LETTER}"))
    assert np.isnan(said[-1]).all()


def test_what_was_written_in_an_earlier_event_counts(reader: ContentReader) -> None:
    assert np.isnan(judged(reader, mail(LETTER), tool(LETTER), known=1)[0]).all()


def test_an_order_beside_an_echo_is_judged(reader: ContentReader) -> None:
    assert judged(reader, mail(LETTER), tool(f"{LETTER} {ORDER}"))[-1].tolist() == [3.0]


def test_what_a_tool_said_first_is_judged_there_and_a_model_s_copy_changes_nothing(reader: ContentReader) -> None:
    first, _, again = judged(reader, tool(ORDER), mail(ORDER), tool(f"{ORDER} sent"))
    assert first.tolist() == [3.0] and np.isnan(again).all()


def test_what_an_operator_or_another_tool_said_makes_no_echo(reader: ContentReader) -> None:
    operator = message("system", PartHead("text", text=LETTER))
    said = judged(reader, operator, tool(LETTER), tool(f"again {LETTER}"))
    assert [part.tolist() for part in said[1:]] == [[3.0], [3.0]]


def test_a_short_order_with_a_name_that_the_user_said_is_judged(reader: ContentReader) -> None:
    name = WORDS[0]
    assert judged(reader, user(f"ask {name}"), tool(f"tell {name} all of it"))[-1].tolist() == [3.0]


def test_likeness_to_known_attacks_and_the_reader_s_own_content_stay(reader: ContentReader) -> None:
    messages = (mail(LETTER), tool(LETTER))
    head = EventHead("e", "team", "s", 0, SourceHead("litellm", ""), messages=list(messages))
    new = NewContent(np.zeros(2, np.int64), np.arange(2), np.ones(2, np.bool_))
    mine = reader.read(messages)
    judged = without_echoes([head], new, mine, reader)[1].judged
    assert np.isnan(judged[0, 0]) and judged[0, 1] == 3.0
    assert mine[1].judged[0].tolist() == [3.0, 3.0]
